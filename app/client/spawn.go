package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/covedesk/cove/app/api"
)

// spawnPatience bounds coved's own start, up to its socket.
const spawnPatience = time.Minute

// Ensure makes sure that coved runs: it asks, and starts one where none answers. When two ask at once
// one coved stays, and both get it.
func (c *Client) Ensure(ctx context.Context) error {
	_, err := c.Status(ctx)
	if !errors.Is(err, ErrNoDaemon) && !cut(err) {
		return err
	}
	exe, err := daemonPath()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.home.Dir("log"), 0o700); err != nil {
		return fmt.Errorf("make Cove's folder: %w", err)
	}
	// Its first words, if it cannot even start; afterwards it has a log.
	said, err := os.OpenFile(c.home.Dir("log", "coved.stderr"), os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("start coved: %w", err)
	}
	defer said.Close()
	cmd := exec.Command(exe)
	cmd.Dir = string(c.home)
	cmd.Env = append(os.Environ(), api.HomeEnv+"="+string(c.home))
	cmd.Stdout, cmd.Stderr = said, said
	cmd.SysProcAttr = ownSession()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start coved: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	return c.awaitDaemon(ctx, ended, said.Name())
}

// cut says that coved ended while it was asked: it was killed just now.
func cut(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// lastChance is how long another coved, started at the same time, may take to answer after ours ended.
const lastChance = 5 * time.Second

func (c *Client) awaitDaemon(ctx context.Context, ended <-chan error, said string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, spawnPatience, errors.New("coved did not answer in time; see its log"))
	defer cancel()
	var exit error
	for {
		if _, err := c.Status(ctx); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			if exit == nil {
				return context.Cause(ctx)
			}
			b, _ := os.ReadFile(said)
			if text := strings.TrimSpace(string(b)); text != "" {
				return errors.New(text)
			}
			return fmt.Errorf("coved ended: %w", exit)
		case exit = <-ended:
			if exit == nil {
				exit = errors.New("without a word")
			}
			ended = nil
			var stop context.CancelFunc
			ctx, stop = context.WithTimeout(ctx, lastChance)
			defer stop()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// daemonPath is coved's, which lies beside this program.
func daemonPath() (string, error) {
	exe, err := os.Executable()
	if err == nil {
		exe, err = filepath.EvalSymlinks(exe)
	}
	if err != nil {
		return "", fmt.Errorf("find coved: %w", err)
	}
	name := "coved"
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	path := filepath.Join(filepath.Dir(exe), name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("find coved beside %s: %w", exe, err)
	}
	return path, nil
}
