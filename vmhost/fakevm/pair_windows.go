package fakevm

import (
	"fmt"
	"net"

	"github.com/covedesk/cove/proxy"
)

// pair makes two ends of a stream with half-close: Windows has no socketpair, and this is for tests.
func pair() (a, b proxy.Conn, err error) {
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	defer l.Close()
	for {
		one, err := net.DialTCP("tcp4", nil, l.Addr().(*net.TCPAddr))
		if err != nil {
			return nil, nil, fmt.Errorf("make a socket pair: %w", err)
		}
		two, err := l.AcceptTCP()
		if err == nil && two.RemoteAddr().String() == one.LocalAddr().String() {
			return one, two, nil
		}
		one.Close() // somebody else came
		if err != nil {
			return nil, nil, fmt.Errorf("make a socket pair: %w", err)
		}
		two.Close()
	}
}
