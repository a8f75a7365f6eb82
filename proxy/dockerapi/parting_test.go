package dockerapi

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/moby/api/pkg/stdcopy"
)

func frame(kind byte, text string) string {
	return string([]byte{kind, 0, 0, 0, 0, 0, 0, byte(len(text))}) + text
}

func TestACutAnswerSaysWhy(t *testing.T) {
	const multiplexed = "Content-Type: application/vnd.docker.multiplexed-stream\r\n"
	upgradedFrames := "HTTP/1.1 101 UPGRADED\r\n" + multiplexed + "Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
	chunked := func(header, body string) string {
		s := "HTTP/1.1 200 OK\r\n" + header + "Transfer-Encoding: chunked\r\n\r\n"
		if body != "" {
			s += strings.ToLower(hex(len(body))) + "\r\n" + body + "\r\n"
		}
		return s
	}
	const js = "Content-Type: application/json\r\n"
	for _, row := range []struct {
		says, head, answer string
		came               string // before the cut
		told               string // "frame", "json", "text" or empty
	}{
		{"an exec's output", "POST /exec/e/start HTTP/1.1\nHost: d\nContent-Length: 0\nConnection: Upgrade\nUpgrade: tcp", upgradedFrames + frame(1, "hello"), frame(1, "hello"), "frame"},
		{"an attached container that said nothing", "POST /containers/c/attach HTTP/1.1\nHost: d\nContent-Length: 0\nConnection: Upgrade\nUpgrade: tcp", upgradedFrames, "", "frame"},
		{"a piece of output that is not whole", "POST /exec/e/start HTTP/1.1\nHost: d\nContent-Length: 0\nConnection: Upgrade\nUpgrade: tcp", upgradedFrames + frame(1, "hello")[:10], frame(1, "hello")[:10], ""},
		{"the head of a piece that is not whole", "POST /exec/e/start HTTP/1.1\nHost: d\nContent-Length: 0\nConnection: Upgrade\nUpgrade: tcp", upgradedFrames + frame(1, "hello") + "\x01\x00", frame(1, "hello") + "\x01\x00", ""},
		{"a terminal, which has no place for it", "POST /exec/e/start HTTP/1.1\nHost: d\nContent-Length: 0\nConnection: Upgrade\nUpgrade: tcp", upgraded + "$ ", "$ ", ""},
		{"logs that are followed", "GET /containers/c/logs?follow=1 HTTP/1.1\nHost: d", chunked(multiplexed, frame(2, "oops")), frame(2, "oops"), "frame"},
		{"a pull", "POST /images/create?fromImage=a HTTP/1.1\nHost: d\nContent-Length: 0", chunked(js, `{"status":"Pulling"}`+"\r\n"), `{"status":"Pulling"}` + "\r\n", "json"},
		{"a build that said nothing", "POST /v1.47/build HTTP/1.1\nHost: d\nContent-Length: 0", chunked(js, ""), "", "json"},
		{"a push within a line", "POST /images/a/b/push HTTP/1.1\nHost: d\nContent-Length: 0", chunked(js, `{"status":"Pu`), `{"status":"Pu`, ""},
		{"a wait", "POST /containers/c/wait HTTP/1.1\nHost: d\nContent-Length: 0", chunked(js, ""), "", "text"},
		{"an archive", "GET /containers/c/archive HTTP/1.1\nHost: d", chunked("Content-Type: application/x-tar\r\n", "tar"), "tar", ""},
		{"another call with an answer of JSON", "POST /images/prune HTTP/1.1\nHost: d\nContent-Length: 0", chunked(js, ""), "", ""},
	} {
		t.Run(row.says, func(t *testing.T) {
			b := newBed(t, rawEngine(t, func(c *net.UnixConn) {
				in := bufio.NewReader(c)
				http.ReadRequest(in)
				io.WriteString(c, row.answer)
				io.Copy(io.Discard, in)
			}))
			c, r := client(t, b.path)
			resp := ask(t, c, r, row.head, "")
			var from io.Reader = r
			if resp.StatusCode == 200 {
				from = resp.Body
			}
			came := make([]byte, len(row.came))
			if _, err := io.ReadFull(from, came); err != nil || string(came) != row.came {
				t.Fatalf("before the cut came %q, %v; want %q", came, err, row.came)
			}
			b.Suspend()
			rest, err := io.ReadAll(from)
			whole := row.told != "" || resp.StatusCode == 101
			if (err == nil) != whole {
				t.Errorf("the answer ends with %v; want an error for one that is not whole and not told", err)
			}
			switch row.told {
			case "":
				if len(rest) > 0 {
					t.Errorf("after the cut came %q; want nothing", rest)
				}
			case "frame":
				if _, err := stdcopy.StdCopy(io.Discard, io.Discard, bytes.NewReader(append(came, rest...))); err == nil || !strings.Contains(err.Error(), errSuspended.Message) {
					t.Errorf("a client reads %q as %v; want the engine's suspend", rest, err)
				}
			case "json":
				var m struct {
					Error       string
					ErrorDetail struct{ Message string }
				}
				if err := json.Unmarshal(rest, &m); err != nil || m.Error != errSuspended.Message || m.ErrorDetail.Message != m.Error {
					t.Errorf("the last line is %q, %v; want the engine's suspend", rest, err)
				}
			case "text":
				if string(rest) != errSuspended.Message {
					t.Errorf("the answer is %q; want the engine's suspend", rest)
				}
			}
		})
	}
}

func hex(n int) string { return string("0123456789abcdef"[n/16]) + string("0123456789abcdef"[n%16]) }

// What the real CLI prints of calls that a suspend cuts.
func TestTheDockerCLIIsToldOfASuspend(t *testing.T) {
	cli, err := filepath.Abs("../../bin/docker")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(cli); err != nil {
		t.Skip("no docker CLI: make image")
	}
	p := play(t)
	p.things["/containers/c/json"] = `{"Id":"c","Config":{"Tty":false},"State":{"Running":true}}`
	for _, args := range [][]string{{"wait", "c"}, {"logs", "-f", "c"}, {"restart", "c"}, {"pull", "example.com/a:1"}} {
		t.Run(args[0], func(t *testing.T) {
			arrived := make(chan struct{}, 9)
			b := newBed(t, engine(t, func(w http.ResponseWriter, r *http.Request) {
				call := Classify(r.Method, r.URL.Path)
				if !call.Active {
					p.ServeHTTP(w, r)
					return
				}
				io.Copy(io.Discard, r.Body)
				switch {
				case strings.HasSuffix(r.URL.Path, "/logs"):
					w.Header().Set("Content-Type", "application/vnd.docker.multiplexed-stream")
					io.WriteString(w, frame(1, "hello\n"))
				case strings.HasSuffix(r.URL.Path, "/wait"), strings.HasSuffix(r.URL.Path, "/images/create"):
					w.Header().Set("Content-Type", "application/json")
				}
				if !strings.HasSuffix(r.URL.Path, "/restart") {
					http.NewResponseController(w).Flush()
				}
				arrived <- struct{}{}
				<-r.Context().Done()
			}))
			cmd := exec.CommandContext(t.Context(), cli, args...)
			cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+b.path, "DOCKER_CONFIG="+t.TempDir(), "DOCKER_CONTEXT=")
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			<-arrived
			b.Suspend()
			if err := cmd.Wait(); err == nil || !strings.Contains(out.String(), "The engine was suspended during this call") {
				t.Errorf("docker %s = %v, and prints %q; want it to fail and say that the engine was suspended", strings.Join(args, " "), err, out.String())
			}
		})
	}
}
