//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// onResize calls f when the terminal has another size, until stop is called.
func onResize(f func()) (stop func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGWINCH)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-c:
				f()
			case <-done:
				return
			}
		}
	}()
	return func() { signal.Stop(c); close(done) }
}
