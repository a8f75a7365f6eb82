package credhelper

import (
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/term"
)

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// readUnseen reads a line without echo. Ctrl-C gives the terminal back as it was.
func readUnseen(f *os.File) (string, error) {
	fd := int(f.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", fmt.Errorf("read the passphrase: %w", err)
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt)
	defer signal.Stop(interrupted)
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-interrupted:
			_ = term.Restore(fd, before)
			os.Exit(130)
		case <-done:
		}
	}()
	line, err := term.ReadPassword(fd)
	if err != nil {
		return "", fmt.Errorf("read the passphrase: %w", err)
	}
	return string(line), nil
}
