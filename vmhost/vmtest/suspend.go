package vmtest

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/proxy/transport"
	"github.com/covedesk/cove/vmhost"
)

// suspended is a machine's way into a folder, and all that may keep it out of it or in it.
func suspended(t *testing.T, open func(*testing.T) (vmhost.Driver, vmhost.Spec)) {
	m := start(t, open)
	m.hello()
	m.await("Ready", ready)
	client, _, err := transport.Choose(within(t), m.Links(), m.secret)
	if err != nil {
		t.Fatal("Choose:", err)
	}
	if p, can := m.Machine.(vmhost.Pauser); can {
		paused(m, p, client)
	}
	s, can := m.Machine.(vmhost.Suspender)
	if !can {
		t.Skipf("%s saves no machines", m.driver.Name())
	}
	open1, err := client.Dial(within(t), protocol.ServiceEcho)
	if err != nil {
		t.Fatal("Dial:", err)
	}
	defer open1.Close()
	open1.SetDeadline(time.Now().Add(patience))
	dir := filepath.Join(filepath.Dir(m.spec.Data), "saved")

	// What is to be put beside it fails: no folder, and the machine goes on.
	m.sleep()
	nope := errors.New("nothing to put there")
	if err := s.Suspend(within(t), dir, func(string) error { return nope }); !errors.Is(err, nope) {
		t.Errorf("Suspend whose beside fails = %v; want its error", err)
	}
	if rest, _ := filepath.Glob(dir + "*"); rest != nil {
		t.Errorf("a Suspend that failed leaves %q", rest)
	}
	m.hello()
	m.await("Welcome after a Suspend that failed", welcomed)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	m.sleep()
	if err := s.Suspend(ctx, dir, func(string) error { return nil }); err == nil {
		t.Fatal("Suspend that is called off = nil; want an error")
	}
	m.hello()
	m.await("Welcome after a Suspend that was called off", welcomed)
	m.eventually("the guest is reached again", func() bool { _, err := choose(m); return err == nil })

	m.sleep()
	if err := s.Suspend(within(t), dir, func(dir string) error {
		return os.WriteFile(filepath.Join(dir, "beside"), []byte("kept"), 0o600)
	}); err != nil {
		t.Fatal("Suspend:", err)
	}
	m.ends(vmhost.ExitSuspended)
	if _, err := open1.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read of a connection from before the save = %v; want its end", err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "beside")); err != nil || string(b) != "kept" {
		t.Errorf("what was put beside reads %q, %v", b, err)
	}
	filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v, %v; want it to be the user's alone", path, info.Mode(), err)
		}
		return nil
	})

	other := m.spec
	other.Memory += 64 << 20
	m.spec.Saved, other.Saved = dir, dir
	refused(t, m.driver, other, "a machine with more memory")
	now := time.Now()
	if err := os.Chtimes(m.spec.Data, now, now); err != nil {
		t.Fatal(err)
	}
	refused(t, m.driver, m.spec, "a machine whose disk was changed since")
}

// standstill is how long a machine is paused, so that one that is not would answer.
const standstill = 2 * time.Second

// paused is a machine that stands still and goes on.
func paused(m *machine, p vmhost.Pauser, d *transport.Client) {
	m.t.Helper()
	ctx := within(m.t)
	conn, err := d.Dial(ctx, protocol.ServiceEcho)
	if err != nil {
		m.t.Fatal("Dial:", err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	for len(m.said) > 0 {
		<-m.said
	}
	for range 2 {
		if err := p.Pause(ctx); err != nil {
			m.t.Fatal("Pause:", err)
		}
		m.out.Write(protocol.Message{Ping: &protocol.Ping{ID: 7}})
		select {
		case msg := <-m.said:
			if msg.Pong != nil {
				m.t.Errorf("a machine that stands still says %+v", msg)
			}
		case <-time.After(standstill):
		}
		if err := p.GoOn(ctx); err != nil {
			m.t.Fatal("GoOn:", err)
		}
		pong := m.await("Pong after GoOn", func(msg protocol.Message) bool { return msg.Pong != nil }).Pong
		if pong.ID != 7 {
			m.t.Errorf("Pong = %+v; want the one that was asked for", pong)
		}
	}
	if _, err := conn.Write([]byte("x")); err != nil {
		m.t.Error("Write to a connection from before the pause:", err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		m.t.Error("Read of a connection from before the pause:", err)
	}
}

// resumed is the way back, and that what can be used once is.
func resumed(t *testing.T, open func(*testing.T) (vmhost.Driver, vmhost.Spec)) {
	m := start(t, open)
	m.hello()
	m.await("Ready", ready)
	s, can := m.Machine.(vmhost.Suspender)
	if !can {
		t.Skipf("%s saves no machines", m.driver.Name())
	}
	m.sleep()
	m.spec.Saved = filepath.Join(filepath.Dir(m.spec.Data), "saved")
	if err := s.Suspend(within(t), m.spec.Saved, func(string) error { return nil }); err != nil {
		t.Fatal("Suspend:", err)
	}
	m.ends(vmhost.ExitSuspended)

	o := begin(t, m.driver, m.spec)
	if _, err := os.Lstat(m.spec.Saved); err == nil {
		t.Error("the folder of a machine that runs is still there: it could be used twice")
	}
	o.hello()
	if w := o.await("Welcome", welcomed).Welcome; w.Nonce != o.nonce {
		t.Errorf("Welcome's nonce = %s; want %s", w.Nonce, o.nonce)
	}
	client, err := choose(o)
	if err != nil {
		t.Fatal("Choose after the resume:", err)
	}
	if client.Link() == "mux" && o.Links()[0].String() != "mux" {
		t.Errorf("the guest is reached over mux after a resume; want %s", o.Links()[0])
	}
	services(t, within(t), client)
	for len(o.said) > 0 {
		// The end of its boot may have been untold.
		if msg := <-o.said; msg.Step != nil && msg.Step.Name == "kernel" || msg.Ready != nil {
			t.Errorf("after the resume the guest says %+v: it is another one", msg)
		}
	}
	o.out.Write(protocol.Message{Shutdown: &protocol.Shutdown{}})
	o.ends(vmhost.ExitPoweredOff)
	refused(t, o.driver, o.spec, "a folder that was used")
}

// choose finds the way to a machine's guest.
func choose(m *machine) (*transport.Client, error) {
	client, _, err := transport.Choose(within(m.t), m.Links(), m.secret)
	return client, err
}

// sleep has the guest say its last word.
func (m *machine) sleep() {
	m.t.Helper()
	m.out.Write(protocol.Message{Sleep: &protocol.Sleep{}})
	m.await("Asleep", func(msg protocol.Message) bool { return msg.Asleep != nil })
}

func refused(t *testing.T, d vmhost.Driver, spec vmhost.Spec, what string) {
	t.Helper()
	o, err := d.Start(within(t), spec)
	var p *vmhost.Problem
	if err == nil {
		o.Kill()
		<-o.Done()
		t.Fatalf("Start of %s = nil; want a problem", what)
	}
	if !errors.As(err, &p) || p.ID != vmhost.ProblemSaved || p.Remedy == "" || strings.Contains(p.Summary, "%!") {
		t.Errorf("Start of %s = %v; want a *vmhost.Problem %s with a remedy", what, err, vmhost.ProblemSaved)
	}
}
