// Package build says which build of Cove this is.
package build

// Version is set by the linker (see the Makefile) to what `git describe` says; "dev" without it.
var Version = "dev"
