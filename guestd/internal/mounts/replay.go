//go:build linux

// Package mounts keeps the guest's kernel in step with the host's folders: what the host changed there is
// done once more here, so that caches and watchers in containers see it as a change. See
// protocol.ServiceFileEvents; a replayed change has no effect on the host.
package mounts

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"strconv"
	"sync"

	"github.com/covedesk/cove/guestd/protocol"
	"golang.org/x/sys/unix"
)

// Replayer serves protocol.ServiceFileEvents, one connection at a time.
type Replayer struct {
	Root string // where the file system of the shares is mounted, for root alone
	// Forget has the kernel forget what it knows of files and does not use. It is called when the host's
	// changes come late or no longer, because the host has let the kernel trust in being told.
	Forget func() error

	mu     sync.Mutex
	newest io.Closer
	turn   sync.Mutex
}

// Serve replays until the host ends the connection. A newer connection ends an older one.
func (r *Replayer) Serve(conn io.ReadWriteCloser) error {
	defer conn.Close()
	r.mu.Lock()
	if r.newest != nil {
		r.newest.Close()
	}
	r.newest = conn
	r.mu.Unlock()
	r.turn.Lock()
	defer r.turn.Unlock()
	ended := make(chan error)
	go func() {
		// The host knows the replay by the thread. It is never given back, so that nothing else of this
		// process runs on it.
		runtime.LockOSThread()
		err := r.replay(conn)
		r.forget()
		ended <- err
	}()
	return <-ended
}

func (r *Replayer) replay(conn io.ReadWriter) error {
	root, err := unix.Open(r.Root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", r.Root, err)
	}
	defer unix.Close(root)
	var fs unix.Statfs_t
	if err := unix.Fstatfs(root, &fs); err != nil || fs.Type != unix.FUSE_SUPER_MAGIC {
		return fmt.Errorf("no folders of the host are mounted at %s (%v)", r.Root, err)
	}
	in, out := protocol.NewReader(conn), protocol.NewWriter(conn)
	script := -1
	defer func() { unix.Close(script) }()
	if err := out.Write(protocol.Message{FileReplayer: &protocol.FileReplayer{Thread: uint32(unix.Gettid())}}); err != nil {
		return err
	}
	for {
		m, err := in.Read()
		if err != nil {
			return err
		}
		if m.FileEvents == nil {
			continue
		}
		if m.FileEvents.Forget {
			r.forget()
		}
		var last uint64
		for _, e := range m.FileEvents.Events {
			last = e.Seq
			if script < 0 { // the host shows it once it knows who replays
				script, err = folder(root, "")
				if err != nil {
					return fmt.Errorf("open the folder of what is replayed: %w", err)
				}
			}
			if err := replayOne(root, script, e); err != nil {
				// Most often something was changed again meanwhile, which is a later event.
				slog.Debug("replay of a change", "op", e.Op, "err", err)
			}
		}
		if err := out.Write(protocol.Message{FileReplayed: &protocol.FileReplayed{Seq: last}}); err != nil {
			return err
		}
	}
}

func (r *Replayer) forget() {
	if err := r.Forget(); err != nil {
		slog.Warn("the kernel may know files of the host as they were", "err", err)
	}
}

// DropNames has the kernel forget files that nobody uses. Those that were used just now are spared the first
// time.
func DropNames() error {
	for range 2 {
		if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0); err != nil {
			return err
		}
	}
	return nil
}

func replayOne(root, script int, e protocol.FileEvent) error {
	var st unix.Stat_t
	unix.Fstatat(script, strconv.FormatUint(e.Seq, 10), &st, unix.AT_SYMLINK_NOFOLLOW) // never there: it says what comes
	dir, err := folder(root, string(e.Dir))
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	name := string(e.Name)
	switch e.Op {
	case protocol.FileCreated:
		return create(dir, name, e.Kind)
	case protocol.FileDeleted:
		flags := 0
		if e.Kind == unix.S_IFDIR {
			flags = unix.AT_REMOVEDIR
		}
		return unix.Unlinkat(dir, name, flags)
	case protocol.FileRenamed:
		to, err := folder(root, string(e.ToDir))
		if err != nil {
			return err
		}
		defer unix.Close(to)
		return unix.Renameat2(dir, name, to, string(e.ToName), 0)
	case protocol.FileModified, protocol.FileWritten, protocol.FileAttributes, protocol.FileLooked:
		return change(dir, name, e)
	}
	return fmt.Errorf("unknown operation %q", e.Op)
}

// folder opens a folder of the shares. A container may have put a link in its place, which would lead to
// the guest's own files: it is not followed, and neither is a mount.
func folder(root int, path string) (int, error) {
	if path == "" {
		path = protocol.ReplayFolder
	}
	return unix.Openat2(root, path, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	})
}

func create(dir int, name string, kind uint32) error {
	switch kind {
	case unix.S_IFDIR:
		return unix.Mkdirat(dir, name, 0o755)
	case unix.S_IFLNK:
		return unix.Symlinkat("replay", dir, name) // the host tells the kernel the real target
	case unix.S_IFREG, unix.S_IFIFO, unix.S_IFSOCK:
		return unix.Mknodat(dir, name, kind|0o644, 0)
	}
	return errors.ErrUnsupported
}

// change makes the kernel see a file's new content or attributes, and tell those who watch it.
func change(dir int, name string, e protocol.FileEvent) error {
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_XDEV}
	if name == "" {
		name = "."
	}
	fd, err := unix.Openat2(dir, name, how)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Statx_t
	// The answer's time of change differs from the one that the kernel has, whereupon it drops its pages.
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &st); err != nil {
		return err
	}
	if e.Op == protocol.FileLooked {
		return nil
	}
	self := "/proc/self/fd/" + strconv.Itoa(fd)
	if uint32(st.Mode)&unix.S_IFMT == unix.S_IFREG {
		switch e.Op {
		case protocol.FileModified:
			if err := unix.Truncate(self, int64(st.Size)); err == nil {
				return nil
			}
		case protocol.FileWritten:
			f, err := os.OpenFile(self, os.O_WRONLY, 0)
			if err == nil {
				return f.Close()
			}
		}
	}
	// Also for a program that runs: it cannot be opened for writing.
	return unix.UtimesNanoAt(fd, "", []unix.Timespec{{Nsec: unix.UTIME_NOW}, {Nsec: unix.UTIME_NOW}}, unix.AT_EMPTY_PATH)
}
