// Command hello is the first container that `make up` runs: it says where it is, and nothing of it
// is written down before it runs.
package main

import (
	"fmt"
	"os"
	"strings"
)

func main() {
	host, _ := os.Hostname()
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		fmt.Fprintln(os.Stderr, "hello:", err)
		os.Exit(1)
	}
	fmt.Printf("Hello from container %s, on Linux %s.\n", host, strings.TrimSpace(string(kernel)))
}
