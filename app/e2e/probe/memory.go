//go:build linux

package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// use takes so many MiB, of memory or of files that lie in the kernel's, says so, and keeps them until it is
// stopped.
func use(what string, mib uint32) {
	piece := make([]byte, 1<<20)
	for i := range piece {
		piece[i] = byte(i)
	}
	var kept [][]byte
	switch what {
	case "memory":
		for range mib {
			kept = append(kept, append([]byte(nil), piece...))
		}
	case "files":
		f, err := os.Create("/used")
		if err != nil {
			fail(err.Error())
		}
		for range mib {
			if _, err := f.Write(piece); err != nil {
				fail(err.Error())
			}
		}
		f.Sync()
		f.Seek(0, io.SeekStart)
		io.Copy(io.Discard, struct{ io.Reader }{f})
	default:
		fail("use memory or files")
	}
	fmt.Println("in use")
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGTERM)
	<-stop
	fmt.Println("let go of", len(kept))
}
