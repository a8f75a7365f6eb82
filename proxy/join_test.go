package proxy_test

import (
	"bytes"
	"crypto/rand"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/covedesk/cove/proxy"
)

// sockets makes a connected pair of unix sockets.
func sockets(t *testing.T) (proxy.Conn, proxy.Conn) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	for _, c := range []net.Conn{a, b} {
		c.SetDeadline(time.Now().Add(2 * time.Minute))
	}
	return a.(proxy.Conn), b.(proxy.Conn)
}

// joined is a client and a server with a Join between them.
func joined(t *testing.T) (client, server proxy.Conn, n *proxy.Counters, done chan error) {
	client, a := sockets(t)
	b, server := sockets(t)
	n, done = new(proxy.Counters), make(chan error, 1)
	go func() { done <- proxy.Join(a, b, n) }()
	return client, server, n, done
}

func TestJoinKeepsHalfClose(t *testing.T) {
	client, server, n, done := joined(t)
	question := make([]byte, 5<<20)
	rand.Read(question)
	go func() { client.Write(question); client.CloseWrite() }()
	got, err := io.ReadAll(server)
	if err != nil || !bytes.Equal(got, question) {
		t.Fatalf("the server read %d bytes, %v; want %d", len(got), err, len(question))
	}
	go func() { server.Write([]byte("answer")); server.CloseWrite() }()
	if got, err := io.ReadAll(client); string(got) != "answer" || err != nil {
		t.Errorf("the client read %q, %v; want answer", got, err)
	}
	if err := <-done; err != nil {
		t.Errorf("Join = %v; want nil after two ends", err)
	}
	if a, b := n.AtoB.Load(), n.BtoA.Load(); a != int64(len(question)) || b != 6 {
		t.Errorf("counted %d and %d bytes; want %d and 6", a, b, len(question))
	}
}

// `docker run -i … head -c 5` with a long input: the container ends, and what it wrote must arrive.
func TestJoinGivesTheAnswerToOneWhoStillWrites(t *testing.T) {
	client, server, _, done := joined(t)
	go client.Write(make([]byte, 64<<20)) // nobody reads it all
	io.ReadFull(server, make([]byte, 5))
	server.Write([]byte("12345"))
	server.CloseWrite()
	server.CloseRead()
	got := make([]byte, 5)
	if _, err := io.ReadFull(client, got); err != nil || string(got) != "12345" {
		t.Errorf("the client read %q, %v; want 12345", got, err)
	}
	client.Close()
	<-done
}

func TestJoinEndsBothWhenOneIsGone(t *testing.T) {
	client, server, _, done := joined(t)
	client.Close()
	if _, err := io.Copy(io.Discard, server); err != nil {
		t.Error("the server's read:", err)
	}
	server.Close()
	<-done // must come
}
