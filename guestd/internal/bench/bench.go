//go:build linux

// Package bench asks the engine from inside the guest what `make bench` asks it from the host, so that
// the two can be compared in one run.
package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/covedesk/cove/guestd/internal/engine"
)

// Result is what Run prints, as JSON.
type Result struct {
	Seconds []float64 `json:"seconds"` // of each call
	Bytes   int64     `json:"bytes"`   // of the last answer
}

// Run makes COUNT calls on one connection to the engine's socket: METHOD PATH COUNT [FILE], where FILE is
// the body.
func Run(args []string, out io.Writer) error {
	if len(args) < 3 {
		return errors.New("usage: guestd bench METHOD PATH COUNT [FILE]")
	}
	count, err := strconv.Atoi(args[2])
	if err != nil {
		return fmt.Errorf("count: %w", err)
	}
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", engine.Socket)
	}}}
	var r Result
	for range count {
		begun := time.Now()
		if r.Bytes, err = call(&client, args); err != nil {
			return err
		}
		r.Seconds = append(r.Seconds, time.Since(begun).Seconds())
	}
	return json.NewEncoder(out).Encode(r)
}

func call(client *http.Client, args []string) (int64, error) {
	var body io.Reader
	if len(args) > 3 {
		f, err := os.Open(args[3])
		if err != nil {
			return 0, err
		}
		defer f.Close()
		body = f
	}
	req, err := http.NewRequest(args[0], "http://engine"+args[1], body)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/x-tar")
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return 0, fmt.Errorf("%s %s: %s: %s", args[0], args[1], resp.Status, b)
	}
	return io.Copy(io.Discard, resp.Body)
}
