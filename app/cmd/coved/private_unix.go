//go:build unix

package main

import "golang.org/x/sys/unix"

// private keeps every file that we make from other users.
func private() { unix.Umask(0o077) }
