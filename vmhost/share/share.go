// Package share serves folders of the host to a guest as one FUSE file system, in this process and
// without root. Below its root is one folder for each share, named by its index ("0", "1", …).
//
// What it promises: no request leaves a share, whatever the guest sends and whatever the host renames
// meanwhile; every file made by the guest belongs to the host's user, while the guest sees the owner and
// mode that it gave; a file that the host changed, replaced or removed is seen as on a network file
// system, new or gone, and never hangs a request. docs/files.md has the rules and their reasons.
//
// The protocol is go-fuse's; who carries the requests (a vhost-user-fs device, a test's /dev/fuse) calls
// [FS.HandleRequest].
package share

import "log/slog"

// Share is one folder of the host.
type Share struct {
	Path     string // absolute; may be reached through links, they are followed once, here
	ReadOnly bool
}

// Options tune a file system. The zero value is ready to use.
type Options struct {
	Log *slog.Logger // nil: slog's default
	// Descriptors bounds those that are kept only to be quick; 0 means a quarter of what the process may
	// have. Those of files that the guest has open come on top.
	Descriptors int
	// Hide are paths of the host that the guest does not get, though they lie in a share: see hidden.
	Hide []string
}
