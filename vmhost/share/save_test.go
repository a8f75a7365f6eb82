//go:build linux

package share

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// A disk that hangs costs the save, after a while, and nothing else.
func TestASaveWhileARequestHangs(t *testing.T) {
	f, err := New([]Share{{Path: t.TempDir()}}, Options{})
	must(err)
	defer f.Close()
	f.running.RLock() // as a request does
	done := make(chan error)
	go func() { done <- f.Save(io.Discard) }()
	f.running.RLock() // others are served meanwhile
	f.running.RUnlock()
	if err := <-done; err == nil {
		t.Error("saved while a request runs")
	}
	f.running.RUnlock()
	if err := f.Save(io.Discard); err != nil {
		t.Error(err)
	}
}

// Folders in each other by two names each would be walked for ever.
func TestAStateOfFoldersInEachOther(t *testing.T) {
	host := t.TempDir()
	f, err := New([]Share{{Path: host}}, Options{})
	must(err)
	defer f.Close()
	s := f.state()
	root := s.Nodes[0]
	for i := range uint64(2) {
		n := root
		n.ID, n.Ino, n.Links = s.Next+i, root.Ino+1+i, nil
		for _, name := range []string{"a", "b"} {
			n.Links = append(n.Links, savedLink{s.Next + 1 - i, name})
		}
		s.Nodes = append(s.Nodes, n)
	}
	s.Next += 2
	done := make(chan struct{})
	go func() {
		defer close(done)
		if f.restore(s) == nil {
			f.GetAttr(nil, &fuse.GetAttrIn{InHeader: fuse.InHeader{NodeId: s.Next - 1}}, &fuse.AttrOut{})
			t.Error("it was taken")
		}
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("a look at one of them does not end")
	}
}

// FuzzLoad takes any state whose sum is right: it is refused, or is a file system that answers.
func FuzzLoad(f *testing.F) {
	host := f.TempDir()
	must(os.MkdirAll(host+"/d/e", 0755))
	must(os.WriteFile(host+"/d/f", []byte("old"), 0644))
	fs, err := New([]Share{{Path: host}}, Options{})
	must(err)
	root := fs.exports[0].root.id
	var dir, file fuse.EntryOut
	fs.Lookup(nil, &fuse.InHeader{NodeId: root}, "d", &dir)
	fs.Lookup(nil, &fuse.InHeader{NodeId: dir.NodeId}, "f", &file)
	fs.Open(nil, &fuse.OpenIn{InHeader: fuse.InHeader{NodeId: file.NodeId}}, &fuse.OpenOut{})
	fs.OpenDir(nil, &fuse.OpenIn{InHeader: fuse.InHeader{NodeId: dir.NodeId}}, &fuse.OpenOut{})
	state := fs.state()
	fs.Close()
	f.Add(state.encode(nil), uint64(0), uint64(0), 0)
	f.Add(state.encode(nil), uint64(3), uint64(1<<63-1), 1)
	f.Fuzz(func(t *testing.T, b []byte, id, other uint64, at int) {
		s := &saved{}
		if s.decode(b) != nil {
			return
		}
		if n := len(s.Nodes); n > 0 && at >= 0 && at < n {
			// What bytes that are changed anyhow seldom make: another file's number in the right place.
			s.Nodes[at].ID = id
			s.Nodes[n-1].Links = append(s.Nodes[n-1].Links, savedLink{other, "name"})
		}
		fs, err := New([]Share{{Path: host}}, Options{})
		must(err)
		defer fs.Close()
		if fs.restore(s) != nil {
			return
		}
		fs.reopenAll(s.Handles)
		for _, n := range s.Nodes {
			fs.GetAttr(nil, &fuse.GetAttrIn{InHeader: fuse.InHeader{NodeId: n.ID}}, &fuse.AttrOut{})
			fs.Lookup(nil, &fuse.InHeader{NodeId: n.ID}, "f", &fuse.EntryOut{})
		}
		for _, n := range s.Nodes {
			fs.Forget(n.ID, 1<<40)
		}
		if err := fs.Save(io.Discard); err != nil {
			t.Error(err)
		}
	})
}

// BenchmarkSave has 100,000 files known, 1,000 of them open.
func BenchmarkSave(b *testing.B) {
	host := b.TempDir()
	f, err := New([]Share{{Path: host}}, Options{})
	must(err)
	defer f.Close()
	f.uses(b, 100_000, 1_000)
	var state bytes.Buffer
	b.Run("save", func(b *testing.B) {
		for b.Loop() {
			state.Reset()
			must(f.Save(&state))
		}
		b.ReportMetric(float64(state.Len()), "bytes")
	})
	b.Run("load", func(b *testing.B) {
		for b.Loop() {
			f, err := New([]Share{{Path: host}}, Options{})
			must(err)
			must(f.Load(bytes.NewReader(state.Bytes())))
			must(f.Close())
		}
	})
}

// uses fills the tables as a guest that looked at so many files does.
func (f *FS) uses(b *testing.B, files, open int) {
	root := f.exports[0].root
	born := time.Now().UnixNano()
	add := func(parent *node, name string, kind uint32) *node {
		t := &f.nodes
		n := &node{id: t.next, export: root.export, key: key{root.key.dev, t.next * 3, born + int64(t.next)*1e7}, kind: kind, lookups: 1, shown: t.next * 3}
		n.seen.Store(stamp{size: t.next}.digest())
		t.next++
		t.byID[n.id], t.byKey[exportKey{n.export, n.key}] = n, n
		t.nameLocked(n, parent, name)
		return n
	}
	var dir *node
	for i := range files {
		if i%50 == 0 {
			dir = add(root, fmt.Sprintf("package-%d", i), unix.S_IFDIR)
			continue
		}
		n := add(dir, fmt.Sprintf("component-%d.ts", i), unix.S_IFREG)
		n.stamp.size, n.stamp.mtime.Sec, n.stamp.ctime.Sec = uint64(i), born/1e9, born/1e9
		if i%(files/open) == 1 {
			fd, err := unix.Open("/dev/null", unix.O_RDONLY, 0)
			must(err)
			_, err = f.addHandle(n, fd, unix.O_RDWR)
			must(err)
		}
	}
}
