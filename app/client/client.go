// Package client is the one typed client of coved's local API. It starts coved where that is asked for.
// Errors of the daemon come back as *api.Error.
package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"

	"github.com/covedesk/cove/app/api"
)

// ErrNoDaemon says that coved does not run.
var ErrNoDaemon = errors.New("coved is not running")

// Client talks to the coved of one home.
type Client struct {
	home api.Home
	http http.Client
}

// New returns a client. It connects with the first call.
func New(home api.Home) *Client {
	c := &Client{home: home}
	c.http.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, home.API()) }}
	return c
}

// Home is the home that this client is for.
func (c *Client) Home() api.Home { return c.home }

// call sends a request and reads the answer into out, which may be nil.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("ask coved: %w", err)
		}
		body = bytes.NewReader(b)
	}
	resp, err := c.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("read coved's answer: %w", err)
	}
	return nil
}

// send does the request; an answer that is not 2xx is its error.
func (c *Client) send(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://cove/"+api.Version+path, body)
	if err != nil {
		return nil, fmt.Errorf("ask coved: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if absent(err) {
			return nil, ErrNoDaemon
		}
		return nil, fmt.Errorf("ask coved: %w", err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, failure(resp)
}

func failure(resp *http.Response) error {
	e := new(api.Error)
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(e); err != nil || e.Summary == "" {
		return fmt.Errorf("coved answers %s", resp.Status)
	}
	return e
}

// Status is how it is.
func (c *Client) Status(ctx context.Context) (api.Status, error) {
	var s api.Status
	return s, c.call(ctx, "GET", "/status", nil, &s)
}

// Events calls f with the status as it is and with everything that follows, until the context ends.
func (c *Client) Events(ctx context.Context, f func(api.Event)) error {
	resp, err := c.send(ctx, "GET", "/events", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for d := json.NewDecoder(resp.Body); ; {
		var e api.Event
		if err := d.Decode(&e); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("read coved's events: %w", err)
		}
		f(e)
	}
}

// Start brings the engine up and waits for it.
func (c *Client) Start(ctx context.Context) error { return c.call(ctx, "POST", "/start", nil, nil) }

// Suspend saves the engine with its containers, and ends the VM.
func (c *Client) Suspend(ctx context.Context) error { return c.call(ctx, "POST", "/suspend", nil, nil) }

// Stop ends the VM in order.
func (c *Client) Stop(ctx context.Context) error { return c.call(ctx, "POST", "/stop", nil, nil) }

// Quit ends the VM, then coved.
func (c *Client) Quit(ctx context.Context) error { return c.call(ctx, "POST", "/quit", nil, nil) }

// Settings are all there are.
func (c *Client) Settings(ctx context.Context) ([]api.Setting, error) {
	var s []api.Setting
	return s, c.call(ctx, "GET", "/settings", nil, &s)
}

// Setting is one of them.
func (c *Client) Setting(ctx context.Context, key string) (api.Setting, error) {
	var s api.Setting
	return s, c.call(ctx, "GET", "/settings/"+url.PathEscape(key), nil, &s)
}

// Set changes one, or in a dry run says what that would change.
func (c *Client) Set(ctx context.Context, key, value string, dry bool) (api.SettingChange, error) {
	var s api.SettingChange
	return s, c.call(ctx, "PUT", settingPath(key, dry), map[string]string{"value": value}, &s)
}

// Unset gives one its default again, or in a dry run says what that would change.
func (c *Client) Unset(ctx context.Context, key string, dry bool) (api.SettingChange, error) {
	var s api.SettingChange
	return s, c.call(ctx, "DELETE", settingPath(key, dry), nil, &s)
}

func settingPath(key string, dry bool) string {
	return "/settings/" + url.PathEscape(key) + "?dry-run=" + strconv.FormatBool(dry)
}

// Memory is how the VM's memory stands.
func (c *Client) Memory(ctx context.Context) (api.Memory, error) {
	var m api.Memory
	return m, c.call(ctx, "GET", "/memory", nil, &m)
}

// Image is what the guest image holds.
func (c *Client) Image(ctx context.Context) (api.Image, error) {
	var i api.Image
	return i, c.call(ctx, "GET", "/image", nil, &i)
}

// VerifyImage checks the signature of an image, in its registry or in a layout on this machine.
func (c *Client) VerifyImage(ctx context.Context, q api.VerifyRequest) (api.Verification, error) {
	var v api.Verification
	return v, c.call(ctx, "POST", "/image/verify", q, &v)
}

// ImportDisk makes the data disk of an image file, given by its absolute path.
func (c *Client) ImportDisk(ctx context.Context, path string) (api.Disk, error) {
	var d api.Disk
	return d, c.call(ctx, "POST", "/disk/import", map[string]string{"path": path}, &d)
}

// DiskUsage is what the data disk holds and takes.
func (c *Client) DiskUsage(ctx context.Context) (api.DiskUsage, error) {
	var u api.DiskUsage
	return u, c.call(ctx, "GET", "/disk", nil, &u)
}

// CompactDisk gives what is free in the data disk back to the host.
func (c *Client) CompactDisk(ctx context.Context) (api.Compacted, error) {
	var d api.Compacted
	return d, c.call(ctx, "POST", "/disk/compact", nil, &d)
}

// Ports are the ports of the host that lead to containers.
func (c *Client) Ports(ctx context.Context) ([]api.Port, error) {
	var p []api.Port
	return p, c.call(ctx, "GET", "/ports", nil, &p)
}

// Logs copies a log to w: its last lines (0: all that is kept) and, if asked, those that come.
func (c *Client) Logs(ctx context.Context, w io.Writer, name string, tail int, follow bool) error {
	q := url.Values{"tail": {strconv.Itoa(tail)}, "follow": {strconv.FormatBool(follow)}}
	resp, err := c.send(ctx, "GET", "/logs/"+url.PathEscape(name)+"?"+q.Encode(), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(w, resp.Body); err != nil && ctx.Err() == nil {
		return fmt.Errorf("read the log: %w", err)
	}
	return nil
}

// Measure times the transport with so many bytes each way.
func (c *Client) Measure(ctx context.Context, size int64) (api.Measured, error) {
	var m api.Measured
	return m, c.call(ctx, "POST", "/diag/transport?bytes="+strconv.FormatInt(size, 10), nil, &m)
}

// Stream is a connection to the guest's shell: see guestd/protocol.
type Stream struct {
	net.Conn
	r *bufio.Reader
}

func (s *Stream) Read(b []byte) (int, error) { return s.r.Read(b) }

// Shell opens a stream for one shell request.
func (c *Client) Shell(ctx context.Context) (*Stream, error) {
	conn, err := dial(ctx, c.home.API())
	if err != nil {
		if absent(err) {
			return nil, ErrNoDaemon
		}
		return nil, fmt.Errorf("reach coved: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	fmt.Fprintf(conn, "POST /%s/shell HTTP/1.1\r\nHost: cove\r\nConnection: Upgrade\r\nUpgrade: cove-shell\r\nContent-Length: 0\r\n\r\n", api.Version)
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		conn.Close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("read coved's answer: %w", err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		defer conn.Close()
		return nil, failure(resp)
	}
	return &Stream{conn, r}, nil
}
