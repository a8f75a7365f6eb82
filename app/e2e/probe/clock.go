//go:build linux

package main

import (
	"fmt"
	"time"
)

// clock prints the time, in ns since 1970, ten times a second for ever.
func clock() {
	for range time.Tick(100 * time.Millisecond) {
		fmt.Println(time.Now().UnixNano())
	}
}
