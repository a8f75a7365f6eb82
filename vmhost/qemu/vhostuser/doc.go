// Package vhostuser is what virtio devices in this process have in common: they hear a front end (QEMU)
// by the vhost-user protocol, see the guest's memory, and take buffers out of its rings.
//
// Everything in the guest's memory is hostile: indices, addresses and lengths are checked where they are
// read, each is read once, and a guest that breaks the rules loses its ring, never our process. What a
// buffer holds can change while its device reads it; a device copies what it decides by.
//
// Sources: the vhost-user protocol (QEMU docs/interop/vhost-user.rst) and virtio 1.2 (2.7 split
// virtqueues).
package vhostuser
