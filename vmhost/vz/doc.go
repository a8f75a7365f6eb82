// Package vz runs machines on Apple's Virtualization framework, in this process: when it ends, however it
// ends, the machine ends with it, without the ordered stop that QEMU's guests get. It needs macOS 13, cgo
// and a program signed with the entitlement com.apple.security.virtualization.
//
// It has never run: no Mac was there. What calls the framework is in the files for darwin and is
// type-checked only (packaging/typecheck); all else (links, ports, how a machine starts and ends, what its
// end means) is free of the framework and tested on any Unix. docs/untested.md says what to look at first.
//
// What it cannot do, by the framework or by the vz library in version 3.7.1:
//
//   - The framework pauses no machine for a full disk of the host: the guest sees write errors, and
//     vmhost.EventDiskFull never comes.
//   - A guest that restarts or panics is known by what its kernel prints on the console, and is ended
//     then; a restart that prints nothing is not seen.
//   - The reason of an end by the framework's own fault is not handed on by vz.
//   - A connect to the guest cannot be cancelled; one that comes too late is closed.
//   - vz closes the descriptor of a guest connection while the framework's object still owns it, which
//     closes the number again a moment later: a file opened between the two would lose its descriptor.
//   - It saves a machine on Apple silicon with macOS 14 or newer only, and there not with every device: the
//     framework is asked, and where it refuses the machine is no vmhost.Suspender.
package vz
