package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/covedesk/cove/app/api"
	"github.com/covedesk/cove/app/internal/settings"
	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/proxy/dockerapi"
	"github.com/covedesk/cove/vmhost"
	"github.com/covedesk/cove/vmhost/disk"
	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/system"
)

// growPatience bounds a growth of the disk that the guest takes part in.
const growPatience = time.Minute

// setDisk changes the size of the data disk, which grows at once where an engine runs, and never shrinks.
func (d *Daemon) setDisk(ctx context.Context, value string, dry bool) (api.SettingChange, error) {
	return d.resizeDisk(ctx, value, dry, func(s *settings.Store) (api.SettingChange, error) { return s.Set("disk", value) })
}

// unsetDisk gives the setting its default again. A disk that is larger already stays as it is.
func (d *Daemon) unsetDisk(ctx context.Context, dry bool) (api.SettingChange, error) {
	unset := func(s *settings.Store) (api.SettingChange, error) { return s.Unset("disk") }
	was, err := d.Setting("disk")
	if err != nil { // the file needs mending, by this too
		return d.change(dry, unset)
	}
	now, err := units.RAMInBytes(was.Value)
	if size, derr := units.RAMInBytes(was.Default); err != nil || derr != nil || size <= now {
		return d.change(dry, unset)
	}
	return d.resizeDisk(ctx, was.Default, dry, unset)
}

// resizeDisk makes a change of the setting and has the disk grow by it.
func (d *Daemon) resizeDisk(ctx context.Context, value string, dry bool, set func(*settings.Store) (api.SettingChange, error)) (api.SettingChange, error) {
	var before api.Setting
	var size int64
	c, err := d.change(dry, func(s *settings.Store) (api.SettingChange, error) {
		var err error
		if before, err = s.Get("disk"); err != nil {
			return api.SettingChange{}, err
		}
		if n, err := units.RAMInBytes(value); err == nil {
			if u, err := disk.UsageOf(d.dataDisk(s.Values())); err == nil && n < u.Size {
				return api.SettingChange{}, &settings.ValueError{Key: "disk", Value: value, Allowed: before.Allowed,
					Why: fmt.Sprintf("the data disk has %s already, and a disk cannot shrink", units.BytesSize(float64(u.Size)))}
			}
		}
		c, err := set(s)
		size = s.Values().Disk
		return c, err
	})
	if err != nil || c.Value == before.Value {
		return c, err
	}
	state, _ := d.life.State()
	switch state.Phase {
	case api.Starting:
		c.Restart = true // it may be past its look at the disk
	case api.Running:
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), growPatience)
		defer cancel()
		v, err := d.current(ctx)
		if err != nil {
			c.Restart = true
			return c, nil
		}
		grower, ok := v.machine.(vmhost.DiskGrower)
		if !ok {
			c.Restart = true
			return c, nil
		}
		if dry {
			return c, nil
		}
		if err := grower.GrowDisk(ctx, size); err != nil {
			return c, errors.Join(d.notGrown(err), d.putBack(before))
		}
		return c, v.growFiles(ctx, size)
	}
	return c, nil
}

// growFiles has the guest take a disk that has grown.
func (v *vm) growFiles(ctx context.Context, size int64) error {
	if _, err := v.askDisk(ctx, protocol.DiskRequest{Grow: size}); err != nil {
		return &api.Error{Failure: api.Failure{Cause: vmhost.ProblemDataDisk, Summary: "The data disk has grown, its file system has not: " + err.Error() + ".", Remedy: "It grows at the next start: `cove restart`."}}
	}
	v.d.log.Info("data disk has grown", "size", size)
	return nil
}

// catchUpDisk grows the disk of a machine that was suspended when the setting grew: until it runs again its disk
// must be as it was.
func (v *vm) catchUpDisk() {
	want, err := v.d.values()
	if err != nil {
		return // said where it is used
	}
	u, err := disk.UsageOf(v.spec.Data)
	grower, ok := v.machine.(vmhost.DiskGrower)
	if err != nil || !ok || want.Disk <= u.Size {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), growPatience)
	defer cancel()
	if err = grower.GrowDisk(ctx, want.Disk); err == nil {
		err = v.growFiles(ctx, want.Disk)
	}
	if err != nil {
		v.d.life.Notice("The data disk is not as large as the setting says: " + err.Error() + " `cove restart` tries again.")
	}
}

func (d *Daemon) notGrown(err error) error {
	return &api.Error{Failure: api.Failure{Cause: vmhost.ProblemDataDisk, Summary: "The data disk could not grow: " + err.Error() + ".", Remedy: "Set disk to a smaller size. The setting is as it was."}}
}

// putBack gives the setting disk its former value.
func (d *Daemon) putBack(before api.Setting) error {
	_, err := d.change(false, func(s *settings.Store) (api.SettingChange, error) {
		if before.Set {
			return s.Set("disk", before.Value)
		}
		return s.Unset("disk")
	})
	return err
}

// dataPlace is where the settings put the data disk, and the folder that it is in or would be.
func (d *Daemon) dataPlace() (path, folder string, err error) {
	d.settingsLock.Lock()
	defer d.settingsLock.Unlock()
	s, err := d.store()
	if err != nil {
		return "", "", err
	}
	path = d.dataDisk(s.Values())
	return path, filepath.Dir(path), nil
}

// askDisk asks the guest's disk service.
func (v *vm) askDisk(ctx context.Context, req protocol.DiskRequest) (protocol.DiskAnswer, error) {
	var a protocol.DiskAnswer
	conn, err := v.Dial(ctx, protocol.ServiceDisk)
	if err != nil {
		return a, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	b, err := json.Marshal(req)
	if err != nil {
		return a, err
	}
	if _, err := conn.Write(append(b, '\n')); err != nil {
		return a, fmt.Errorf("ask the guest for its disk: %w", err)
	}
	if err := json.NewDecoder(io.LimitReader(conn, protocol.MaxMessage)).Decode(&a); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return a, fmt.Errorf("ask the guest for its disk: %w", err)
	}
	if a.Error != "" {
		return a, errors.New(a.Error)
	}
	return a, nil
}

// DiskUsage is what the data disk holds and takes: see localapi.Core.
func (d *Daemon) DiskUsage(ctx context.Context) (api.DiskUsage, error) {
	out, err := d.hostUsage()
	if err != nil {
		return out, err
	}
	if state, _ := d.life.State(); state.Phase != api.Running && state.Phase != api.Starting {
		return out, nil
	}
	v, err := d.current(ctx)
	if err != nil {
		return out, err
	}
	a, err := v.askDisk(ctx, protocol.DiskRequest{})
	if err != nil {
		return out, err
	}
	out.Guest = &api.GuestDisk{Size: a.Size, Used: a.Used, Free: a.Free}
	out.Engine, err = v.engineUsage(ctx)
	return out, err
}

// hostUsage is what the host alone knows of the data disk. One that is not made yet takes nothing.
func (d *Daemon) hostUsage() (api.DiskUsage, error) {
	path, folder, err := d.dataPlace()
	if err != nil {
		return api.DiskUsage{}, err
	}
	out := api.DiskUsage{Disk: api.Disk{Path: path}}
	if out.HostFree, err = disk.Free(folder); err != nil {
		return out, err
	}
	if u, err := disk.UsageOf(path); err == nil {
		out.Size, out.Allocated = u.Size, u.Allocated
	}
	return out, nil
}

// engineUsage asks the engine what it keeps.
func (v *vm) engineUsage(ctx context.Context) ([]api.DiskUse, error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return v.Dial(ctx, dockerapi.Service) }}}
	req, err := http.NewRequestWithContext(ctx, "GET", "http://engine/system/df", nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the engine what it keeps: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask the engine what it keeps: it answers %s", resp.Status)
	}
	var u system.DiskUsage
	if err := json.NewDecoder(resp.Body).Decode(&u); err != nil {
		return nil, fmt.Errorf("ask the engine what it keeps: %w", err)
	}
	var out []api.DiskUse
	if i := u.ImageUsage; i != nil {
		out = append(out, api.DiskUse{Kind: "images", Count: i.TotalCount, Active: i.ActiveCount, Size: i.TotalSize, Reclaimable: i.Reclaimable})
	}
	if c := u.ContainerUsage; c != nil {
		out = append(out, api.DiskUse{Kind: "containers", Count: c.TotalCount, Active: c.ActiveCount, Size: c.TotalSize, Reclaimable: c.Reclaimable})
	}
	if w := u.VolumeUsage; w != nil {
		out = append(out, api.DiskUse{Kind: "volumes", Count: w.TotalCount, Active: w.ActiveCount, Size: w.TotalSize, Reclaimable: w.Reclaimable})
	}
	if b := u.BuildCacheUsage; b != nil {
		out = append(out, api.DiskUse{Kind: "build-cache", Count: b.TotalCount, Active: b.ActiveCount, Size: b.TotalSize, Reclaimable: b.Reclaimable})
	}
	return out, nil
}

// CompactDisk lets the guest tell which blocks are free, and says what came back: see localapi.Core.
func (d *Daemon) CompactDisk(ctx context.Context) (api.Compacted, error) {
	var out api.Compacted
	v, err := d.current(ctx)
	if err != nil {
		return out, err
	}
	before, err := d.hostUsage()
	if err != nil {
		return out, err
	}
	a, err := v.askDisk(ctx, protocol.DiskRequest{Trim: true})
	if err != nil {
		return out, err
	}
	after, err := d.hostUsage()
	out.Disk, out.Before, out.Trimmed = after.Disk, before.Allocated, a.Trimmed
	return out, err
}
