//go:build linux

// Package shell runs a command, or a login shell, for an authenticated host. When the connection ends,
// so does everything that the command started in its session.
package shell

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"

	"github.com/covedesk/cove/guestd/internal/reap"
	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/proxy"
	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// maxRequest bounds the first line: a command line of any sensible length.
const maxRequest = 256 << 10

// Serve serves one connection: a request, then the command's frames.
func Serve(ctx context.Context, r *reap.Reaper, cgroup string, conn proxy.Conn) {
	defer conn.Close()
	req, in, err := readRequest(conn)
	if err != nil {
		return
	}
	run(ctx, r, cgroup, conn, in, req)
}

// session is one command's time.
type session struct {
	conn proxy.Conn
	mu   sync.Mutex // frames are whole
}

func (s *session) send(kind protocol.ShellKind, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return protocol.WriteShell(s.conn, kind, data)
}

func (s *session) exit(code int) {
	s.send(protocol.ShellExit, binary.BigEndian.AppendUint32(nil, uint32(int32(code))))
	s.conn.CloseWrite()
}

// run serves one request whose first line has been read from in.
func run(ctx context.Context, r *reap.Reaper, cgroup string, conn proxy.Conn, in io.Reader, req protocol.ShellRequest) {
	s := &session{conn: conn}
	args := req.Args
	if len(args) == 0 {
		args = []string{"/bin/bash", "-l"}
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = "/root"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "USER=root", "LANG=C.UTF-8", "DOCKER_HOST=unix:///run/docker.sock"}
	if req.Term != "" {
		cmd.Env = append(cmd.Env, "TERM="+req.Term)
	}
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if dir, err := os.Open(cgroup); err == nil {
		defer dir.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	}
	start := s.pipes
	if req.TTY {
		start = s.terminal
	}
	stdin, outputs, theirs, err := start(cmd, req)
	var done <-chan unix.WaitStatus
	if err == nil {
		done, err = r.Start(cmd)
	}
	for _, f := range theirs {
		f.Close()
	}
	if err != nil {
		s.send(protocol.ShellStderr, []byte(fmt.Sprintf("cannot run %s: %v\n", args[0], err)))
		s.exit(127)
		return
	}
	pid := cmd.Process.Pid
	var copies sync.WaitGroup
	for kind, f := range outputs {
		copies.Go(func() { s.copy(kind, f) })
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		s.input(in, stdin, pid)
	}()
	var status unix.WaitStatus
	select {
	case status = <-done:
	case <-gone:
		// The host has closed: hang up, then make sure.
		unix.Kill(-pid, unix.SIGHUP)
		unix.Kill(-pid, unix.SIGKILL)
		status = <-done
	case <-ctx.Done():
		unix.Kill(-pid, unix.SIGKILL)
		status = <-done
	}
	// What the command left in the background may hold the output open; the session ends with it.
	unix.Kill(-pid, unix.SIGHUP)
	copies.Wait()
	code := status.ExitStatus()
	if status.Signaled() {
		code = 128 + int(status.Signal())
	}
	s.exit(code)
	conn.CloseRead()
	<-gone
}

func (s *session) pipes(cmd *exec.Cmd, _ protocol.ShellRequest) (stdin *os.File, outputs map[protocol.ShellKind]*os.File, theirs []*os.File, err error) {
	outputs = map[protocol.ShellKind]*os.File{}
	ends := make([][2]*os.File, 3)
	for i := range ends {
		if ends[i][0], ends[i][1], err = os.Pipe(); err != nil {
			return nil, nil, theirs, err
		}
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = ends[0][0], ends[1][1], ends[2][1]
	outputs[protocol.ShellStdout], outputs[protocol.ShellStderr] = ends[1][0], ends[2][0]
	return ends[0][1], outputs, []*os.File{ends[0][0], ends[1][1], ends[2][1]}, nil
}

func (s *session) terminal(cmd *exec.Cmd, req protocol.ShellRequest) (stdin *os.File, outputs map[protocol.ShellKind]*os.File, theirs []*os.File, err error) {
	master, slave, err := pty.Open()
	if err != nil {
		return nil, nil, nil, err
	}
	pty.Setsize(master, &pty.Winsize{Rows: req.Rows, Cols: req.Cols})
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr.Setctty = true
	return master, map[protocol.ShellKind]*os.File{protocol.ShellStdout: master}, []*os.File{slave}, nil
}

// copy sends what the command writes. Reading a terminal whose other side is closed gives EIO.
func (s *session) copy(kind protocol.ShellKind, f *os.File) {
	defer f.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := f.Read(buf)
		if n > 0 && s.send(kind, buf[:n]) != nil {
			return
		}
		if err != nil {
			return
		}
	}
}

// input takes the host's frames until it closes.
func (s *session) input(in io.Reader, stdin *os.File, pid int) {
	buf := make([]byte, protocol.MaxShellFrame)
	ended := false
	for {
		kind, data, err := protocol.ReadShell(in, buf)
		if err != nil {
			if !ended {
				stdin.Close()
			}
			return
		}
		switch {
		case kind == protocol.ShellStdin && len(data) == 0:
			if !ended {
				ended = true
				stdin.Close()
			}
		case kind == protocol.ShellStdin && !ended:
			stdin.Write(data) // a command that reads no more says so by ending
		case kind == protocol.ShellResize && len(data) == 4:
			pty.Setsize(stdin, &pty.Winsize{Rows: binary.BigEndian.Uint16(data), Cols: binary.BigEndian.Uint16(data[2:])})
		case kind == protocol.ShellSignal && len(data) == 1:
			unix.Kill(-pid, unix.Signal(data[0]))
		}
	}
}

// readRequest reads the first line, and returns what to read the frames from.
func readRequest(conn io.Reader) (protocol.ShellRequest, io.Reader, error) {
	var req protocol.ShellRequest
	in := bufio.NewReaderSize(conn, maxRequest)
	line, err := in.ReadSlice('\n')
	if err != nil {
		return req, nil, err
	}
	return req, in, json.Unmarshal(line, &req)
}
