// Package vufs is a virtio file system device in this process: QEMU's guests mount folders of the host
// through vhost-user, with no other program and no privileges.
//
// It carries requests, and knows nothing of what they ask but two things of FUSE: who asks (the header),
// to answer for a handler that cannot, and that what comes first is not to change while it is looked at.
// Requests are handled beside each other and answered as they end, in any order. How many run at once is
// bounded; the rest wait in the guest's ring.
//
// Source: virtio 1.2, 5.11 file system device.
package vufs
