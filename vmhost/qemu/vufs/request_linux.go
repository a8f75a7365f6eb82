package vufs

import (
	"runtime/debug"
	"syscall"
)

const (
	headerSize = 40               // linux/fuse.h: struct fuse_in_header
	answerSize = 16               // struct fuse_out_header
	headSize   = headerSize + 128 // with the arguments that follow it, of any request
)

// readHead copies header and arguments out of the guest's hands, so that who decides by them and who acts
// on them see the same; and gives the request's number, 0 for one that is too short to have any. What
// follows (names, bytes to write) is the handler's to read once.
func (r *request) readHead() uint64 {
	r.in = r.in[:0]
	room := r.head[:]
	for _, p := range r.chain.Out {
		n := copy(room, p)
		if n > 0 {
			r.in = append(r.in, room[:n:n])
			room = room[n:]
		}
		if n < len(p) {
			r.in = append(r.in, p[n:])
		}
	}
	if r.chain.OutBytes < headerSize {
		return 0
	}
	return le.Uint64(r.head[8:])
}

// answer has the handler answer, and does it in its place where it cannot: a guest that waits for an answer
// waits for ever.
func (d *Device) answer(r *request) (n int) {
	if r.chain.OutBytes < headerSize {
		return fail(r.chain.In, 0, syscall.EIO)
	}
	defer func() {
		if p := recover(); p != nil {
			d.log.Error("file sharing: a request made us panic", "opcode", le.Uint32(r.head[4:]), "panic", p, "stack", string(debug.Stack()))
			n = fail(r.chain.In, r.unique, syscall.EIO)
		}
	}()
	n, errno := d.handler.HandleRequest(r.in, r.chain.In)
	if errno != 0 || n < 0 || n > r.chain.InBytes {
		return fail(r.chain.In, r.unique, syscall.EIO)
	}
	return n
}

// fail writes an answer that is an error, and returns its length.
func fail(out [][]byte, unique uint64, errno syscall.Errno) int {
	var b [answerSize]byte
	le.PutUint32(b[0:], answerSize)
	le.PutUint32(b[4:], uint32(-int32(errno)))
	le.PutUint64(b[8:], unique)
	n := 0
	for _, p := range out {
		n += copy(p, b[n:])
	}
	return n
}
