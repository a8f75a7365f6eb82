//go:build linux

package logs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSecretsOfURLsAreHidden(t *testing.T) {
	for _, row := range []struct{ line, want string }{
		{`no URL here: a/b?c=d`, `no URL here: a/b?c=d`},
		{`GET https://store.test/x?signature=A:B-C: 401 Unauthorized`, `GET https://store.test/x?signature=xxxxx: 401 Unauthorized`},
		{`error="Get \"https://s.test/x?X-Amz-Signature=ab%2F&X-Amz-Date=1\": EOF"`, `error="Get \"https://s.test/x?X-Amz-Signature=xxxxx&X-Amz-Date=xxxxx\": EOF"`},
		{`{"url":"https:\/\/s.test\/x?a=1\u0026sig=2"}`, `{"url":"https:\/\/s.test\/x?a=xxxxx\u0026sig=xxxxx"}`},
		{`https://t.test/token?scope=repository:app:pull&service=reg&offline_token=true`, `https://t.test/token?scope=repository:app:pull&service=reg&offline_token=true`},
		{`https://user:pass@host/x`, `https://user:xxxxx@host/x`},
		{`https://user:p@ss:w@host:80/x@y`, `https://user:xxxxx@host:80/x@y`},
		{`git clone https://ghp_token@github.test/a.git#main`, `git clone https://xxxxx@github.test/a.git#main`},
		{`HTTP://User:Pass@host`, `HTTP://User:xxxxx@host`},
		{`https://host/a:b@c?tag=1`, `https://host/a:b@c?tag=1`},
		{`listening on tcp://[::1]:2375 and unix:///run/docker.sock`, `listening on tcp://[::1]:2375 and unix:///run/docker.sock`},
		{`two: http://a:b@c/ http://d:e@f/?k=v, done`, `two: http://a:xxxxx@c/ http://d:xxxxx@f/?k=xxxxx done`},
	} {
		if got := string(hide([]byte(row.line))); got != row.want {
			t.Errorf("hide(%s) = %s; want %s", row.line, got, row.want)
		}
	}
}

// A program's output comes in pieces that end anywhere.
func TestASecretInPiecesIsHidden(t *testing.T) {
	const text = "a https://u:secret@h/?sig=secret b\nhttps://u:secret@h/ c\nlast https://u:secret@h/"
	const want = "a https://u:xxxxx@h/?sig=xxxxx b\nhttps://u:xxxxx@h/ c\n"
	for size := 1; size < len(text); size++ {
		l := New("test")
		dir := t.TempDir()
		l.Persist(dir)
		for rest := text; rest != ""; {
			n := min(size, len(rest))
			l.Write([]byte(rest[:n]))
			rest = rest[n:]
		}
		if got := string(l.Tail(0)); got != want {
			t.Fatalf("in pieces of %d the log is %q; want %q", size, got, want)
		}
		l.CloseFile()
		b, err := os.ReadFile(filepath.Join(dir, "test.log"))
		if err != nil || string(b) != want+"last https://u:xxxxx@h/" {
			t.Fatalf("in pieces of %d the file is %q, %v", size, b, err)
		}
	}
}

func TestALineWithoutEndIsShownInTheEnd(t *testing.T) {
	l := New("test")
	long := strings.Repeat("x", maxLine+10)
	l.Write([]byte(long))
	if got := len(l.Tail(0)); got < maxLine {
		t.Errorf("%d bytes of a line without end are shown; want %d at least", got, maxLine)
	}
}
