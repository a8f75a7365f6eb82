// Package vz runs machines on Apple's Virtualization framework, in this process: when it ends, however it
// ends, the machine ends with it, without the guest's ordered stop that QEMU's guests get. It builds on
// macOS with cgo only. It has not run yet: see docs/untested.md.
package vz
