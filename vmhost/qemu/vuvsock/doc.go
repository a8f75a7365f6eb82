// Package vuvsock is a virtio socket device in this process: QEMU's guests get real AF_VSOCK through
// vhost-user with nothing of it on the host, no privileges, no module, and no context id that another
// machine could have. Only the host dials; what the guest asks to open is reset.
//
// Everything in the guest's memory is hostile: indices, addresses, lengths and packets are checked
// where they are read, each is read once, and a guest that breaks the rules loses its connection or
// its device, never our process.
//
// Sources: the vhost-user protocol (QEMU docs/interop/vhost-user.rst) and virtio 1.2 (2.7 split
// virtqueues, 5.10 socket device).
package vuvsock
