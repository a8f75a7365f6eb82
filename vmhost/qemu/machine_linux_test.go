package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/covedesk/cove/vmhost"
)

func TestExplain(t *testing.T) {
	signal := errors.New("signal: killed")
	const panicked = "[ 1.0] fine\n[ 2.0] BUG: unable to handle page fault\n[ 2.1] Kernel panic - not syncing: Fatal exception\n"
	for _, row := range []struct {
		says            string
		err             error
		killed          bool
		asked, console  string
		want            vmhost.ExitReason
		detail, evident string
	}{
		{"a kill is a kill, whatever else is known", signal, true, "guest-shutdown", panicked, vmhost.ExitKilled, "we asked", "said"},
		{"a guest that switches itself off powered off", nil, false, "guest-shutdown", "", vmhost.ExitPoweredOff, "switched itself off", "said"},
		{"a guest that restarts itself was reset", nil, false, "guest-reset", "all is well", vmhost.ExitReset, "restarted", "said"},
		{"a restart after a panic is a panic", nil, false, "guest-reset", panicked, vmhost.ExitPanicked, "panicked", "BUG: unable"},
		{"a panic that the device told is a panic", nil, false, "guest-panic", panicked, vmhost.ExitPanicked, "panicked", "Kernel panic"},
		{"a panic without a console is a panic", nil, false, "guest-panic", "", vmhost.ExitPanicked, "panicked", ""},
		{"a guest that switches itself off after an old panic's words powered off", nil, false, "guest-shutdown", panicked, vmhost.ExitPoweredOff, "switched itself off", "said"},
		{"a polite signal from outside is a crash that says so", nil, false, "host-signal", "", vmhost.ExitCrashed, "signal from outside", "said"},
		{"a rude one is a crash that names it", signal, false, "", "", vmhost.ExitCrashed, "signal: killed", "said"},
		{"an end without a word is a crash", nil, false, "", "", vmhost.ExitCrashed, "without a word", "said"},
		{"a reason we do not know is a crash", nil, false, "host-ui", "", vmhost.ExitCrashed, "without a word", "said"},
	} {
		e := explain(row.err, row.killed, row.asked, row.console, " said\n")
		if e.Reason != row.want || !strings.Contains(e.Detail, row.detail) || !strings.Contains(e.Evidence, row.evident) {
			t.Errorf("%s: explain(%v, %t, %q, …) = %+v; want %s with %q, shown by %q", row.says, row.err, row.killed, row.asked, e, row.want, row.detail, row.evident)
		}
	}
	long := explain(nil, false, "guest-panic", strings.Repeat("boot\n", 1000)+panicked, "")
	if len(long.Evidence) > len(panicked)+200 || !strings.Contains(long.Evidence, "BUG: unable") {
		t.Errorf("the evidence of a panic is %d bytes; want it from the oops on", len(long.Evidence))
	}
}

func TestStartProblem(t *testing.T) {
	for _, row := range []struct{ printed, id, summary string }{
		{"qemu-system-x86_64: cannot set up guest memory 'ram': Cannot allocate memory", vmhost.ProblemNoMemory, "memory"},
		{`qemu-system-x86_64: -blockdev {}: Failed to get "write" lock` + "\nIs another process using the image [/d]?", vmhost.ProblemBusy, "data disk"},
		{"qemu-system-x86_64: write: No space left on device", vmhost.ProblemNoDisk, "full"},
		{"qemu-system-x86_64: -device x: 'x' is not a valid device.", vmhost.ProblemHypervisorExit, "started: -device x: 'x' is not a valid device."},
		{"first\nqemu-system-aarch64: no such machine\n", vmhost.ProblemHypervisorExit, "started: no such machine."},
	} {
		m := &machine{printed: newTail(evidenceSize)}
		m.printed.Write([]byte(row.printed))
		err := m.startProblem(fmt.Errorf("connect: %w", errEnded))
		var p *vmhost.Problem
		if !errors.As(err, &p) || p.ID != row.id || !strings.Contains(p.Summary, row.summary) || p.Remedy == "" || p.Evidence == "" || !errors.Is(err, errEnded) {
			t.Errorf("startProblem after %q = %+v; want %s with %q", row.printed, err, row.id, row.summary)
		}
	}
	other := errors.New("other")
	if err := (&machine{printed: newTail(1)}).startProblem(other); err != other {
		t.Errorf("startProblem(%v) = %v; want it as it is", other, err)
	}
}

// program makes a QEMU of shell.
func program(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "qemu")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

const prints10 = "echo QEMU emulator version 10.0.2"

func TestCheck(t *testing.T) {
	for _, row := range []struct{ says, binary, problem, text string }{
		{"a QEMU of now passes", program(t, prints10), "", ""},
		{"an old one is refused", program(t, "echo QEMU emulator version 7.2.17"), vmhost.ProblemOldHypervisor, "7.2.17"},
		{"one that is not there is refused", filepath.Join(t.TempDir(), "none"), vmhost.ProblemNoHypervisor, "not installed"},
		{"one that does not run is refused", program(t, "echo no library >&2; exit 127"), vmhost.ProblemNoHypervisor, "does not run"},
	} {
		err := New(Options{Binary: row.binary}).Check(t.Context())
		var p *vmhost.Problem
		if row.problem == "" && err != nil || row.problem != "" && (!errors.As(err, &p) || p.ID != row.problem || !strings.Contains(p.Summary, row.text)) {
			t.Errorf("%s: Check = %v; want %q with %q", row.says, err, row.problem, row.text)
		}
	}
}

func TestChoose(t *testing.T) {
	works := vmhost.Accelerator{Name: "kvm", Works: true, Reason: "a kernel spoke on it"}
	hangs := vmhost.Accelerator{Name: "kvm", Reason: "its guests hang"}
	slow := vmhost.Accelerator{Name: "tcg", Works: true, Reason: "slowly"}
	for _, row := range []struct {
		says       string
		remembered []vmhost.Accelerator
		asked      string
		want       string // empty: a problem
		reason     string
	}{
		{"the first that works is taken", []vmhost.Accelerator{works}, "", "kvm", "a kernel spoke on it"},
		{"one that hangs is passed over, and the reason says why", []vmhost.Accelerator{hangs, slow}, "", "tcg", "slowly; kvm: its guests hang"},
		{"one that is asked for and works is taken", []vmhost.Accelerator{works}, "kvm", "kvm", "a kernel spoke on it"},
		{"one that is asked for and hangs is a problem", []vmhost.Accelerator{hangs, slow}, "kvm", "", "its guests hang"},
		{"software emulation can always be asked for", []vmhost.Accelerator{works}, "tcg", "tcg", "ask for it"},
		{"one of another system is a problem", []vmhost.Accelerator{works}, "hvf", "", "hvf"},
	} {
		d := New(Options{Binary: program(t, prints10), Answers: filepath.Join(t.TempDir(), "answers.json")})
		if err := d.remember(d.identity("10.0.2"), row.remembered); err != nil {
			t.Fatal(err)
		}
		got, err := d.choose(t.Context(), vmhost.Spec{Accelerator: row.asked})
		var p *vmhost.Problem
		switch {
		case row.want != "" && (err != nil || got.Name != row.want || !got.Works || !strings.Contains(got.Reason, row.reason)):
			t.Errorf("%s: choose(%q) = %+v, %v; want %s because %q", row.says, row.asked, got, err, row.want, row.reason)
		case row.want == "" && (!errors.As(err, &p) || p.ID != vmhost.ProblemNoAccelerator || !strings.Contains(p.Summary, row.reason) || p.Remedy == ""):
			t.Errorf("%s: choose(%q) = %+v, %v; want %s with %q", row.says, row.asked, got, err, vmhost.ProblemNoAccelerator, row.reason)
		}
	}
}

func TestAnswersAreRemembered(t *testing.T) {
	path := filepath.Join(t.TempDir(), "answers.json")
	d := New(Options{Binary: program(t, prints10), Answers: path})
	tried := []vmhost.Accelerator{{Name: "kvm", Reason: "its guests hang"}, {Name: "tcg", Works: true, Reason: "slowly"}}
	id := d.identity("10.0.2")
	if id == "" || id != d.identity("10.0.2") || id == d.identity("10.0.3") {
		t.Errorf("identity = %q; want one for each version", id)
	}
	if got := d.remembered(id); got != nil {
		t.Errorf("remembered = %+v before anything was", got)
	}
	if err := d.remember(id, tried); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the answers' file is %v, %v; want 0600", st.Mode(), err)
	}
	if got := d.remembered(id); !reflect.DeepEqual(got, tried) {
		t.Errorf("remembered = %+v; want %+v", got, tried)
	}
	for says, other := range map[string]string{"another QEMU": d.identity("10.0.3"), "a QEMU that is not there": ""} {
		if got := d.remembered(other); got != nil {
			t.Errorf("remembered for %s = %+v; want nothing", says, got)
		}
	}
	for _, content := range []string{"", "{", `{"identity":"` + id + `","tried":[]}`, `{"identity":"` + id + `"}`} {
		os.WriteFile(path, []byte(content), 0o600)
		if got := d.remembered(id); got != nil {
			t.Errorf("remembered of %q = %+v; want nothing, so that it is tried again", content, got)
		}
	}
	if err := New(Options{}).remember(id, tried); err != nil {
		t.Errorf("remember without a file = %v; want nil", err)
	}
	if got := New(Options{Binary: filepath.Join(t.TempDir(), "none")}).identity("1"); got != "" {
		t.Errorf("identity without a binary = %q; want none", got)
	}
}

// A kernel on trial needs a console and nothing else: no disk, no network, no monitor.
func TestArgvOfATrial(t *testing.T) {
	trial := withoutMonitor(argv(spec(), "kvm", "amd64", plumbing{console: 3}))
	for _, flag := range []string{"-blockdev", "-netdev", "-mon", "-device"} {
		if slices.Contains(trial, flag) {
			t.Errorf("a trial has %s: %q", flag, trial)
		}
	}
	if got := one(t, trial, "-chardev"); got != "socket,id=console,fd=3" {
		t.Errorf("a trial has -chardev %s; want its console", got)
	}
}

func TestTrial(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	d := New(Options{Binary: program(t, `echo "[    0.000000] Linux version 6.12.0" >&3; exec sleep 600`)})
	if err := d.trial(ctx, "kvm", "/k"); err != nil {
		t.Errorf("trial of one that speaks = %v; want nil", err)
	}
	d = New(Options{Binary: program(t, `echo "qemu-system-x86_64: failed to initialize kvm: Permission denied" >&2; exit 1`)})
	if err := d.trial(ctx, "kvm", "/k"); err == nil || !strings.Contains(err.Error(), "does not run on it: failed to initialize kvm: Permission denied") {
		t.Errorf("trial of one that cannot start = %v; want what it printed", err)
	}
	ready := filepath.Join(t.TempDir(), "ready")
	d = New(Options{Binary: program(t, `: > `+ready+`; exec sleep 600`)})
	go func() {
		for ctx.Err() == nil {
			if _, err := os.Stat(ready); err == nil {
				cancel()
			}
		}
	}()
	if _, err := d.tryOut(ctx, "kvm", "/k"); unavailable("kvm") == "" && !errors.Is(err, context.Canceled) {
		t.Errorf("tryOut that is called off = %v; want context.Canceled, not an answer to remember", err)
	}
	cancel()
}

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vm.lock")
	first, err := takeLock(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := takeLock(ctx, path); !errors.Is(err, context.Canceled) {
		t.Errorf("takeLock of a machine that runs, called off = %v; want context.Canceled", err)
	}
	got := make(chan error, 1)
	go func() {
		f, err := takeLock(context.Background(), path)
		if err == nil {
			f.Close()
		}
		got <- err
	}()
	select {
	case err := <-got:
		t.Errorf("takeLock = %v while another has it; want it to wait", err)
		got <- nil
	default:
	}
	first.Close()
	if err := <-got; err != nil {
		t.Errorf("takeLock after the other let go = %v; want nil", err)
	}
}

func TestCheckMemory(t *testing.T) {
	total, _, err := hostMemory()
	if err != nil {
		t.Fatal(err)
	}
	var p *vmhost.Problem
	if err := checkMemory(total + 1<<20); !errors.As(err, &p) || p.ID != vmhost.ProblemNoMemory || !strings.Contains(p.Remedy, "cove config") {
		t.Errorf("checkMemory of more than the host has = %v; want %s and what to do", err, vmhost.ProblemNoMemory)
	}
	if err := checkMemory(1 << 20); err != nil {
		t.Errorf("checkMemory of 1 MiB = %v; want nil", err)
	}
}

// A QEMU that does not come up ends the start, and nothing waits for its monitor: neither where it ends by itself,
// nor where the start is called off before it has said a word.
func TestAStartThatComesToNothingReturns(t *testing.T) {
	try := func(ctx context.Context, script string) error {
		t.Helper()
		s := spec()
		s.RunDir, s.Memory, s.Accelerator, s.Network = t.TempDir(), 256<<20, "tcg", nil
		d := New(Options{Binary: program(t, `[ "$1" != --version ] || { `+prints10+"; exit; }\n"+script)})
		got := make(chan error, 1)
		go func() {
			_, err := d.Start(ctx, s)
			got <- err
		}()
		select {
		case err := <-got:
			return err
		case <-time.After(time.Minute):
			t.Fatal("Start does not return")
			return nil
		}
	}
	var p *vmhost.Problem
	if err := try(t.Context(), `echo "qemu-system-x86_64: no such machine" >&2; exit 1`); !errors.As(err, &p) || p.ID != vmhost.ProblemHypervisorExit || !strings.Contains(p.Summary, "no such machine") {
		t.Errorf("Start of a QEMU that ends = %v; want what it printed", err)
	}
	ready := filepath.Join(t.TempDir(), "ready")
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer cancel()
		for t.Context().Err() == nil {
			if _, err := os.Stat(ready); err == nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	if err := try(ctx, ": > "+ready+"; exec sleep 600"); !errors.Is(err, context.Canceled) {
		t.Errorf("Start of a QEMU that says nothing, called off = %v; want context.Canceled", err)
	}
}
