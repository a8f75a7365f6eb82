package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/covedesk/cove/app/client"
	"github.com/covedesk/cove/guestd/protocol"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func shellCommand() *cobra.Command {
	return &cobra.Command{
		Use: "shell [-- COMMAND [ARG …]]", Short: "A root shell in the guest, or a command there",
		Long: "Open a root shell in the guest, or run a command in it. Input and output are passed through, and the\nexit status is the command's.",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd.Context(), false)
			if err != nil {
				return err
			}
			status, err := shell(cmd.Context(), c, args)
			if err != nil {
				return err
			}
			if status != 0 {
				return exitError(status)
			}
			return nil
		},
	}
}

// frames writes shell frames from several goroutines.
type frames struct {
	mu sync.Mutex
	w  io.Writer
}

func (f *frames) send(kind protocol.ShellKind, data []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return protocol.WriteShell(f.w, kind, data)
}

// shell runs a command in the guest and gives its status.
func shell(ctx context.Context, c *client.Client, args []string) (int, error) {
	in, out := int(os.Stdin.Fd()), int(os.Stdout.Fd())
	req := protocol.ShellRequest{Args: args, TTY: term.IsTerminal(in) && term.IsTerminal(out), Term: os.Getenv("TERM")}
	if req.TTY {
		if cols, rows, err := term.GetSize(out); err == nil {
			req.Cols, req.Rows = uint16(cols), uint16(rows)
		}
	}
	s, err := c.Shell(ctx)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	line, err := json.Marshal(req)
	if err != nil {
		return 0, err
	}
	if _, err := s.Write(append(line, '\n')); err != nil {
		return 0, fmt.Errorf("open a shell: %w", err)
	}
	to := &frames{w: s}
	if req.TTY {
		before, err := term.MakeRaw(in)
		if err != nil {
			return 0, fmt.Errorf("open a shell: %w", err)
		}
		defer term.Restore(in, before)
		stop := onResize(func() {
			if cols, rows, err := term.GetSize(out); err == nil {
				b := binary.BigEndian.AppendUint16(nil, uint16(rows))
				to.send(protocol.ShellResize, binary.BigEndian.AppendUint16(b, uint16(cols)))
			}
		})
		defer stop()
	}
	// An interrupt is the command's: 2 is SIGINT on Linux, whatever it is here.
	stop := context.AfterFunc(ctx, func() { to.send(protocol.ShellSignal, []byte{2}) })
	defer stop()
	go func() { // ends with the program: a read of a terminal cannot be interrupted
		buf := make([]byte, 32<<10)
		for {
			n, err := os.Stdin.Read(buf)
			if n > 0 && to.send(protocol.ShellStdin, buf[:n]) != nil {
				return
			}
			if err != nil {
				to.send(protocol.ShellStdin, nil)
				return
			}
		}
	}()
	buf := make([]byte, protocol.MaxShellFrame)
	for {
		kind, data, err := protocol.ReadShell(s, buf)
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = errors.New("the guest is gone")
			}
			return 0, fmt.Errorf("shell: %w", err)
		}
		switch kind {
		case protocol.ShellStdout:
			os.Stdout.Write(data)
		case protocol.ShellStderr:
			os.Stderr.Write(data)
		case protocol.ShellExit:
			if len(data) != 4 {
				return 0, errors.New("shell: the guest gave no exit status")
			}
			return int(int32(binary.BigEndian.Uint32(data))), nil
		}
	}
}
