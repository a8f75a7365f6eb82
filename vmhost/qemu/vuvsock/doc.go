// Package vuvsock is a virtio socket device in this process: QEMU's guests get real AF_VSOCK through
// vhost-user with nothing of it on the host, no privileges, no module, and no context id that another
// machine could have. Only the host dials; what the guest asks to open is reset.
//
// Packets are hostile: each is checked where it is read, and read once, and a guest that breaks the rules
// loses its connection or its device, never our process. Package vhostuser does the same for the rings.
//
// Source: virtio 1.2, 5.10 socket device.
package vuvsock
