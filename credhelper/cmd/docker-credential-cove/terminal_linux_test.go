package main_test

import (
	"io"
	"strings"
	"sync"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// converse runs the program on a terminal, waits for each prompt and types what follows it. It gives what the
// terminal showed, the exit status, and whether the terminal echoes afterwards.
func (m *machine) converse(args string, dialogue ...string) (string, int, bool) {
	m.t.Helper()
	cmd := m.command(program, strings.Fields(args)...)
	terminal, err := pty.Start(cmd)
	if err != nil {
		m.t.Fatal(err)
	}
	defer terminal.Close()
	var mu sync.Mutex
	var shown strings.Builder
	seen := func() string { mu.Lock(); defer mu.Unlock(); return shown.String() }
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b := make([]byte, 4096)
		for {
			n, err := terminal.Read(b) // EIO at the end
			mu.Lock()
			shown.Write(b[:n])
			mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	unseen := func() bool { // the prompt comes just before the echo goes
		state, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
		return err == nil && state.Lflag&unix.ECHO == 0
	}
	for i := 0; i < len(dialogue); i += 2 {
		for end := time.Now().Add(time.Minute); !strings.HasSuffix(seen(), dialogue[i]) || !unseen(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				_ = cmd.Process.Kill()
				m.t.Fatalf("%s shows %q; want the prompt %q, and no echo", args, seen(), dialogue[i])
			}
		}
		if _, err := io.WriteString(terminal, dialogue[i+1]); err != nil {
			m.t.Fatal(err)
		}
	}
	_ = cmd.Wait()
	<-ended
	return seen(), cmd.ProcessState.ExitCode(), !unseen()
}
