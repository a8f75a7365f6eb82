package client

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/covedesk/cove/app/api"
	"os"
)

// A coved that is killed in the middle of an answer is one that does not run.
func TestACutAnswerIsNoDaemon(t *testing.T) {
	home := api.Home(t.TempDir())
	if err := os.Mkdir(home.Dir("run"), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", home.API())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Read(make([]byte, 10)) // leaves something unread: the close is a reset
			c.Close()
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := New(home).Status(ctx); !cut(err) {
		t.Errorf("Status of a coved that dies = %v; want it taken for a cut", err)
	}
}
