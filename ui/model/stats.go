package model

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
)

// Stats are a container's numbers at one time.
type Stats struct {
	Read     time.Time
	CPU      float64 // per cent of one processor
	Memory   int64   // bytes, without what the kernel can drop at once
	Limit    int64   // bytes
	Received float64 // bytes a second
	Sent     float64
	Reads    float64 // bytes a second, of disks
	Writes   float64

	received, sent, reads, writes uint64
}

// keptStats is two minutes of them.
const keptStats = 120

func (s *Stats) cpu() float64 {
	if s == nil {
		return -1
	}
	return s.CPU
}

func (s *Stats) memory() int64 {
	if s == nil {
		return -1
	}
	return s.Memory
}

// statsOf counts as `docker stats` does.
func statsOf(r *container.StatsResponse, before *Stats) *Stats {
	s := &Stats{Read: r.Read, Limit: int64(r.MemoryStats.Limit)}
	cpu := float64(r.CPUStats.CPUUsage.TotalUsage) - float64(r.PreCPUStats.CPUUsage.TotalUsage)
	system := float64(r.CPUStats.SystemUsage) - float64(r.PreCPUStats.SystemUsage)
	if cpu > 0 && system > 0 && r.PreCPUStats.SystemUsage > 0 {
		n := float64(r.CPUStats.OnlineCPUs)
		if n == 0 {
			n = float64(max(1, len(r.CPUStats.CPUUsage.PercpuUsage)))
		}
		s.CPU = cpu / system * n * 100
	}
	used := r.MemoryStats.Usage
	for _, key := range []string{"total_inactive_file", "inactive_file"} { // cgroup v1, then v2
		if v, ok := r.MemoryStats.Stats[key]; ok && v < used {
			used -= v
			break
		}
	}
	s.Memory = int64(used)
	for _, n := range r.Networks {
		s.received += n.RxBytes
		s.sent += n.TxBytes
	}
	for _, e := range r.BlkioStats.IoServiceBytesRecursive {
		switch strings.ToLower(e.Op) {
		case "read":
			s.reads += e.Value
		case "write":
			s.writes += e.Value
		}
	}
	if before != nil {
		if d := s.Read.Sub(before.Read).Seconds(); d > 0 {
			rate := func(now, then uint64) float64 {
				if now < then {
					return 0
				}
				return float64(now-then) / d
			}
			s.Received, s.Sent = rate(s.received, before.received), rate(s.sent, before.sent)
			s.Reads, s.Writes = rate(s.reads, before.reads), rate(s.writes, before.writes)
		}
	}
	return s
}

// Watch says whose numbers somebody looks at. They flow while those run and somebody attends.
func (s *Store) Watch(ids []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watched = map[string]bool{}
	for _, id := range ids {
		s.watched[id] = true
	}
	s.streamLocked()
}

// Attend says whether somebody is at the window. Numbers and logs count as use of the engine (docs/sleep.md), so
// a window that is left open must let it sleep.
func (s *Store) Attend(yes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.attended != yes {
		s.attended = yes
		s.streamLocked()
		s.stirLocked()
	}
}

// streamLocked opens and closes streams of numbers as it should be now.
func (s *Store) streamLocked() {
	for id, stop := range s.streams {
		if c := s.containers[id]; !s.flowsLocked() || !s.watched[id] || c == nil || c.State != "running" {
			stop()
			delete(s.streams, id)
			if c != nil {
				c.Stats = nil
			}
			delete(s.history, id)
		}
	}
	if s.ctx == nil || !s.flowsLocked() {
		return
	}
	for id := range s.watched {
		c := s.containers[id]
		if c == nil || c.State != "running" || s.streams[id] != nil {
			continue
		}
		ctx, stop := context.WithCancel(s.ctx)
		s.streams[id] = stop
		s.work.Go(func() { s.stream(ctx, id) })
	}
}

// flowsLocked says that what counts as use may be asked for.
func (s *Store) flowsLocked() bool { return s.attended && s.life.Phase == "running" }

func (s *Store) stream(ctx context.Context, id string) {
	resp, err := s.docker.ContainerStats(ctx, id, true)
	if err == nil {
		defer resp.Body.Close()
		d := json.NewDecoder(resp.Body)
		for ctx.Err() == nil {
			var r container.StatsResponse
			if err = d.Decode(&r); err != nil {
				break
			}
			s.mu.Lock()
			if c := s.containers[id]; c != nil && ctx.Err() == nil && !r.Read.IsZero() {
				c.Stats = statsOf(&r, c.Stats)
				h := append(s.history[id], *c.Stats)
				s.history[id] = h[max(0, len(h)-keptStats):]
				s.touchLocked()
			}
			s.mu.Unlock()
		}
	}
	// It ended by itself: the next change of the container, or the next look, opens it again.
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() == nil {
		s.streams[id]()
		delete(s.streams, id)
	}
}

// History is a container's numbers of the last two minutes, the newest last.
func (s *Store) History(id string) []Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Stats(nil), s.history[id]...)
}
