//go:build unix

package vz

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/covedesk/cove/vmhost"
)

// saving is a fake that can save its machine. What it is told to refuse, it does not do.
type saving struct {
	*fake
	refuse map[string]error  // by what is noted
	during map[string]func() // is called then
	state  string            // what save writes and restore wants
}

func (s *saving) do(what string) error {
	s.note(what)
	if f := s.during[what]; f != nil {
		f()
	}
	return s.refuse[what]
}

func (s *saving) pause() error { return s.do("pause") }
func (s *saving) goOn() error  { return s.do("go-on") }

func (s *saving) save(path string) error {
	if err := s.do("save"); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	f.WriteString(s.state)
	return f.Close()
}

func (s *saving) restore(path string) error {
	b, err := os.ReadFile(path)
	if err := s.do("restore"); err != nil {
		return err
	}
	if err != nil || string(b) != s.state {
		return errors.New("invalid argument")
	}
	return nil
}

// newSaving is a rig whose machine can be saved, and the folder for it.
func newSaving(t *testing.T, running bool) (*rig, *saving, string) {
	t.Helper()
	r := newRig(t, false)
	s := &saving{fake: r.fake, refuse: map[string]error{}, during: map[string]func(){}, state: "memory"}
	home := t.TempDir()
	r.m.vm, r.m.saver, r.m.data = s, s, filepath.Join(home, "data.raw")
	r.m.bond = newBond("15.5 (24F74)", vmhost.Spec{CPUs: 2, Memory: 1 << 30, Data: r.m.data}, []byte("id"))
	if err := os.WriteFile(r.m.data, []byte("disk"), 0o600); err != nil {
		t.Fatal(err)
	}
	if running {
		r.started <- nil
		if err := r.m.begin(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
	}
	return r, s, filepath.Join(home, "saved")
}

func TestWhichMachineCanBeSuspended(t *testing.T) {
	r := newRig(t, false)
	if _, can := r.m.offered().(vmhost.Suspender); can {
		t.Error("a machine that the framework does not save is a Suspender")
	}
	r, _, _ = newSaving(t, false)
	if _, can := r.m.offered().(vmhost.Suspender); !can {
		t.Error("a machine that the framework saves is no Suspender")
	}
}

func TestPause(t *testing.T) {
	r := newRig(t, true) // it cannot be saved
	p, can := r.m.offered().(vmhost.Pauser)
	if !can {
		t.Fatal("a machine that the framework does not save cannot be paused either")
	}
	if err := errors.Join(p.Pause(t.Context()), p.GoOn(t.Context()), p.Pause(t.Context()), r.m.Kill()); err != nil {
		t.Fatal(err)
	}
	ends(t, "a paused machine", func() { <-r.m.Done() })
	if want := "pause go-on pause link control mux stop theirs lock"; r.seen() != want {
		t.Errorf("seen %q; want %q", r.seen(), want)
	}
	r, s, _ := newSaving(t, true)
	s.refuse["pause"], s.refuse["go-on"] = errors.New("no pause"), errors.New("no way on")
	if err := r.m.Pause(t.Context()); !errors.Is(err, s.refuse["pause"]) {
		t.Errorf("Pause = %v; want the framework's error", err)
	}
	if err := r.m.GoOn(t.Context()); !errors.Is(err, s.refuse["go-on"]) {
		t.Errorf("GoOn = %v; want the framework's error", err)
	}
}

func suspend(ctx context.Context, r *rig, dir string, beside func(string) error) error {
	return r.m.offered().(vmhost.Suspender).Suspend(ctx, dir, beside)
}

func nothing(string) error { return nil }

func TestSuspend(t *testing.T) {
	r, _, dir := newSaving(t, true)
	raw, guest := pair(t)
	l := newLink(func(uint32) (net.Conn, error) { return &likeVZ{raw, raw}, nil })
	r.m.links = append(r.m.links, l)
	c, err := l.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = suspend(t.Context(), r, dir, func(making string) error {
		r.note("beside")
		ends(t, "a connection of a machine that is being saved", func() { guest.Read(make([]byte, 1)) })
		if _, err := os.Lstat(dir); err == nil {
			t.Error("the folder has its name before it is whole")
		}
		return os.WriteFile(filepath.Join(making, "coved.json"), []byte("{}"), 0o600)
	})
	if err != nil {
		t.Fatal("Suspend:", err)
	}
	select {
	case <-r.m.Done():
	default:
		t.Error("Suspend returns before the machine has ended")
	}
	if got := r.m.Exit(); got.Reason != vmhost.ExitSuspended {
		t.Errorf("Exit() = %+v; want %s", got, vmhost.ExitSuspended)
	}
	if want := "pause save beside stop link control mux theirs lock"; r.seen() != want {
		t.Errorf("seen %q; want %q", r.seen(), want)
	}
	if _, err := c.Write([]byte("x")); err == nil {
		t.Error("a connection from before the save can be written to")
	}
	var files []string
	filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			t.Fatal(err)
		}
		if info, err := e.Info(); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v, %v; want it to be the user's alone", path, info.Mode(), err)
		}
		files = append(files, e.Name())
		return nil
	})
	if want := []string{"saved", "coved.json", "machine.json", savedState}; !slices.Equal(files, want) {
		t.Errorf("the folder has %q; want %q", files, want)
	}
}

func TestASuspendThatFails(t *testing.T) {
	nope := errors.New("nope")
	for _, row := range []struct {
		says  string
		setUp func(r *rig, s *saving, cancel func())
		want  string // seen until then
		exit  vmhost.ExitReason
	}{
		{"it is called off before", func(_ *rig, _ *saving, cancel func()) { cancel() }, "", ""},
		{"the machine is not paused", func(_ *rig, s *saving, _ func()) { s.refuse["pause"] = nope }, "pause", ""},
		{"it is not saved", func(_ *rig, s *saving, _ func()) { s.refuse["save"] = nope }, "pause save go-on", ""},
		{"it is called off while it is saved", func(_ *rig, s *saving, cancel func()) { s.during["save"] = cancel }, "pause save go-on", ""},
		{"nothing is put beside it", func(_ *rig, s *saving, _ func()) { s.refuse["beside"] = nope }, "pause save beside go-on", ""},
		{"its data disk is gone", func(r *rig, s *saving, _ func()) { s.during["beside"] = func() { os.Remove(r.m.data) } }, "pause save beside go-on", ""},
		{"the framework does not end it", func(r *rig, _ *saving, _ func()) { r.stopErr = nope }, "pause save beside stop go-on", ""},
		{"it does not go on", func(_ *rig, s *saving, _ func()) { s.refuse["save"], s.refuse["go-on"] = nope, nope },
			"pause save go-on link control mux stop theirs lock", vmhost.ExitCrashed},
		{"it is killed while it is saved", func(r *rig, s *saving, _ func()) {
			s.during["save"] = func() { r.m.Kill(); <-r.m.Done() }
		}, "pause save link control mux stop theirs lock beside stop", vmhost.ExitKilled},
		{"it is to be killed while it is saved, which the framework refuses", func(r *rig, s *saving, _ func()) {
			s.during["save"] = func() { r.stopErr = nope; r.m.Kill(); r.stopErr = nil }
		}, "pause save link control mux stop beside stop theirs lock", vmhost.ExitKilled},
	} {
		r, s, dir := newSaving(t, true)
		ctx, cancel := context.WithCancel(t.Context())
		row.setUp(r, s, cancel)
		var err error
		ends(t, row.says, func() { err = suspend(ctx, r, dir, func(string) error { return s.do("beside") }) })
		cancel()
		if err == nil {
			t.Errorf("%s: Suspend = nil; want an error", row.says)
		}
		for _, path := range []string{dir, dir + ".new"} {
			if _, err := os.Lstat(path); err == nil {
				t.Errorf("%s: %s is there", row.says, filepath.Base(path))
			}
		}
		if row.exit != "" {
			ends(t, row.says, func() { <-r.m.Done() })
			if got := r.m.Exit().Reason; got != row.exit {
				t.Errorf("%s: it ended by %s; want %s", row.says, got, row.exit)
			}
		}
		if r.seen() != row.want {
			t.Errorf("%s: seen %q; want %q", row.says, r.seen(), row.want)
		}
		if row.exit != "" {
			continue
		}
		select {
		case <-r.m.Done():
			t.Errorf("%s: the machine has ended: %+v", row.says, r.m.Exit())
			continue
		default:
		}
		// It runs on as if nothing had been, and can be suspended again.
		r.stopErr, s.refuse, s.during = nil, nil, nil
		os.WriteFile(r.m.data, []byte("disk"), 0o600)
		if err := suspend(t.Context(), r, dir, nothing); err != nil || r.m.Exit().Reason != vmhost.ExitSuspended {
			t.Errorf("%s: the next Suspend = %v, %+v; want nil, and %s", row.says, err, r.m.Exit(), vmhost.ExitSuspended)
		}
	}
}

func TestASuspendIntoAFolderThatIsThere(t *testing.T) {
	r, _, dir := newSaving(t, true)
	if err := os.MkdirAll(filepath.Join(dir, "kept"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := suspend(t.Context(), r, dir, nothing); err == nil {
		t.Error("Suspend = nil; want an error")
	}
	if _, err := os.Lstat(filepath.Join(dir, "kept")); err != nil || r.seen() != "" {
		t.Errorf("the folder: %v, seen %q; want it as it was, and nothing", err, r.seen())
	}
}

// asleep is a machine that was saved, and the next one of the same parts before its start.
func asleep(t *testing.T) (*rig, *saving, string) {
	t.Helper()
	r, _, dir := newSaving(t, true)
	if err := suspend(t.Context(), r, dir, nothing); err != nil {
		t.Fatal(err)
	}
	o, s, _ := newSaving(t, false)
	o.m.data, o.m.bond = r.m.data, newBond(r.m.bond.MacOS, vmhost.Spec{CPUs: 2, Memory: 1 << 30, Data: r.m.data}, []byte("id"))
	return o, s, dir
}

func TestResume(t *testing.T) {
	r, s, dir := asleep(t)
	s.during["go-on"] = func() {
		if _, err := os.Lstat(dir); err == nil {
			t.Error("the guest runs, and the folder could be used again")
		}
	}
	if err := r.m.begin(t.Context(), dir); err != nil {
		t.Fatal("begin:", err)
	}
	if want := "restore go-on"; r.seen() != want {
		t.Errorf("seen %q; want %q", r.seen(), want)
	}
	if err := suspend(t.Context(), r, dir, nothing); err != nil {
		t.Error("Suspend of a machine that was brought back:", err)
	}
}

func TestAResumeThatFails(t *testing.T) {
	const let = "link control mux theirs lock"
	for _, row := range []struct {
		says string
		make func(r *rig, s *saving, dir string)
		seen string
		used bool
	}{
		{"more memory", func(r *rig, _ *saving, _ string) { r.m.bond.Made[1] = "memory=2048MiB" }, let, false},
		{"a folder is shared now", func(r *rig, _ *saving, _ string) { r.m.bond.Made = append(r.m.bond.Made, "share=/x,readonly=true") }, let, false},
		{"another macOS", func(r *rig, _ *saving, _ string) { r.m.bond.MacOS = "15.6 (24G84)" }, let, false},
		{"another version of what is saved", func(r *rig, _ *saving, _ string) { r.m.bond.Version++ }, let, false},
		{"a disk that was written to", func(r *rig, _ *saving, _ string) { os.WriteFile(r.m.data, []byte("DISK"), 0o600) }, let, false},
		{"no disk", func(r *rig, _ *saving, _ string) { os.Remove(r.m.data) }, let, false},
		{"a machine that cannot be saved", func(r *rig, _ *saving, _ string) { r.m.saver = nil }, let, false},
		{"no machine.json", func(_ *rig, _ *saving, dir string) { os.Remove(filepath.Join(dir, "machine.json")) }, let, false},
		{"a state that the framework refuses", func(_ *rig, s *saving, _ string) { s.state = "another" }, "restore " + let, false},
		{"a folder that cannot be moved away", func(_ *rig, s *saving, dir string) {
			s.during["restore"] = func() { os.Rename(dir, dir+".other") }
		}, "restore stop " + let, true},
		{"a machine that does not go on", func(_ *rig, s *saving, _ string) { s.refuse["go-on"] = errors.New("no") }, "restore go-on stop " + let, true},
	} {
		r, s, dir := asleep(t)
		row.make(r, s, dir)
		err := r.m.begin(t.Context(), dir)
		var p *vmhost.Problem
		if !errors.As(err, &p) || p.ID != vmhost.ProblemSaved || p.Remedy == "" || strings.Contains(p.Summary, "%!") {
			t.Errorf("%s: begin = %v; want a *vmhost.Problem %s with a remedy", row.says, err, vmhost.ProblemSaved)
		}
		if r.seen() != row.seen {
			t.Errorf("%s: seen %q; want %q", row.says, r.seen(), row.seen)
		}
		if _, err := os.Lstat(filepath.Join(dir, savedState)); (err != nil) != row.used {
			t.Errorf("%s: what was saved: %v; want it used: %v", row.says, err, row.used)
		}
	}
}

func TestAResumeThatIsGivenUpKeepsWhatWasSaved(t *testing.T) {
	r, s, dir := asleep(t)
	ctx, cancel := context.WithCancel(t.Context())
	s.during["restore"] = cancel
	if err := r.m.begin(ctx, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("begin = %v; want context.Canceled", err)
	}
	ends(t, "it", func() {
		for !strings.HasSuffix(r.seen(), "lock") {
			time.Sleep(time.Millisecond)
		}
	})
	if want := "restore stop link control mux theirs lock"; r.seen() != want {
		t.Errorf("seen %q; want %q", r.seen(), want)
	}
	if _, err := os.Lstat(filepath.Join(dir, savedState)); err != nil {
		t.Error("what was saved:", err)
	}
}

func TestHangUp(t *testing.T) {
	raw, guest := pair(t)
	again, _ := pair(t)
	give := []net.Conn{raw, again}
	l := newLink(func(uint32) (net.Conn, error) { c := give[0]; give = give[1:]; return c, nil })
	if _, err := l.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.hangUp()
	ends(t, "a connection", func() { guest.Read(make([]byte, 1)) })
	c, err := l.Open(t.Context())
	if err != nil {
		t.Fatal("Open after it:", err)
	}
	c.Close()
	l.Close()
	l.hangUp()
}
