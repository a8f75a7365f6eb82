//go:build !desktop || !cgo

// Command cove-desktop, built without the tag desktop or without cgo, only says so.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "cove-desktop: this one was built without its window. `make build` builds it with.")
	os.Exit(1)
}
