package transport

import (
	"fmt"

	"github.com/covedesk/cove/proxy"
	"github.com/mdlayher/vsock"
)

// ListenVsock listens on an AF_VSOCK port for the host alone: other callers are closed before a byte
// of theirs is read.
func ListenVsock(port uint32) (Listener, error) {
	l, err := vsock.Listen(port, nil)
	if err != nil {
		return nil, fmt.Errorf("listen on vsock port %d: %w", port, err)
	}
	return vsockListener{l}, nil
}

type vsockListener struct{ *vsock.Listener }

func (l vsockListener) Accept() (proxy.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if addr, ok := c.RemoteAddr().(*vsock.Addr); ok && addr.ContextID == vsock.Host {
			return c.(*vsock.Conn), nil
		}
		c.Close()
	}
}
