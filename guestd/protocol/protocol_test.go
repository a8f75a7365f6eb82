package protocol

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestEveryMessageComesBack(t *testing.T) {
	all := []Message{
		{Hello: &Hello{Version: Version, Nonce: "n", Secret: []byte("s"), Time: time.Unix(5, 0).UTC(), Config: Config{Hostname: "h", Engine: json.RawMessage(`{"debug":true}`), ShutdownSeconds: 3, Proxy: &Proxy{HTTP: NewSecret("http://u:p@h:1"), No: "x"},
			Trust: &Trust{Authorities: "a", Registries: []Registry{{Host: "h:1", Authorities: "b", Clients: []ClientPair{{Certificate: "c", Key: NewSecret("k")}}, Mirrors: []string{"https://m"}, Insecure: true}}}}}},
		{SetClock: &SetClock{By: -time.Second}}, {Shutdown: &Shutdown{}}, {Ping: &Ping{ID: 7}},
		{Welcome: &Welcome{Version: 1, Nonce: "n", Kernel: "k", Arch: "a"}}, {Step: &Step{Name: "s", Start: 1, Duration: 2, Error: "e"}},
		{Listening: &Listening{Vsock: true, Mux: true}}, {Service: &Service{Name: "dockerd", State: "running", Restarts: 2, Detail: "d"}},
		{Ready: &Ready{EngineVersion: "1", APIVersion: "2"}}, {Failed: &Failed{Cause: CauseBoot, Detail: "d", Evidence: "e", Fatal: true}},
		{Pong: &Pong{ID: 7, Time: time.Unix(9, 5).UTC()}}, {Stopping: &Stopping{Reason: "r"}}, {Sleep: &Sleep{}}, {Asleep: &Asleep{}},
		{Ask: &Ask{ID: 3, Bind: &Bind{Key: "tcp 127.0.0.1:80", Protocol: "tcp", Address: "127.0.0.1:80", Target: "172.17.0.2:80", Container: "c"}}},
		{Answer: &Answer{ID: 3, Error: &AskError{Kind: AskInUse, Text: "taken"}}},
		{FileReplayer: &FileReplayer{Thread: 7}}, {FileReplayed: &FileReplayed{Seq: 9}},
		{FileEvents: &FileEvents{Events: []FileEvent{{Seq: 9, Op: FileRenamed, Kind: 0o100000, Dir: []byte("0/a"), Name: []byte("\xff\n"), ToDir: []byte("0"), ToName: []byte("b")}}}},
	}
	fields := map[string]bool{}
	var b bytes.Buffer
	w := NewWriter(&b)
	for _, m := range all {
		b.WriteString("rest of an older session \x00CV \x00\x00CVE\x00\x00\x00\x04junk")
		if err := w.Write(m); err != nil {
			t.Fatal(err)
		}
		v := reflect.ValueOf(m)
		for i := range v.NumField() {
			if !v.Field(i).IsNil() {
				fields[v.Type().Field(i).Name] = true
			}
		}
	}
	if n := reflect.TypeFor[Message]().NumField(); len(fields) != n {
		t.Errorf("this test sends %d kinds of message; there are %d", len(fields), n)
	}
	r := NewReader(&b)
	for _, want := range all {
		got, err := r.Read()
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("Read = %+v, %v; want %+v", got, err, want)
		}
	}
	if _, err := r.Read(); err != io.EOF {
		t.Errorf("Read at the end = %v; want io.EOF", err)
	}
}

func TestTooLarge(t *testing.T) {
	frame := binary.BigEndian.AppendUint32([]byte(magic), MaxMessage+1)
	if _, err := NewReader(bytes.NewReader(frame)).Read(); !errors.Is(err, ErrTooLarge) {
		t.Errorf("Read of a frame over the limit = %v; want ErrTooLarge", err)
	}
	if err := NewWriter(io.Discard).Write(Message{Failed: &Failed{Evidence: string(make([]byte, MaxMessage))}}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("Write over the limit = %v; want ErrTooLarge", err)
	}
}

// A daemon that dies in the middle of a frame costs that frame alone, wherever it was cut off: what
// would be lost is the next daemon's hello, and nobody says it twice.
func TestACutFrameCostsNoOther(t *testing.T) {
	var whole, next bytes.Buffer
	NewWriter(&whole).Write(Message{Failed: &Failed{Detail: "cut", Evidence: string(bytes.Repeat([]byte("x\x00"), 5000))}})
	w := NewWriter(&next)
	for id := range uint64(3) {
		w.Write(Message{Ping: &Ping{ID: id}})
	}
	cuts := []int{whole.Len() / 2, whole.Len() - 1}
	for n := range 40 {
		cuts = append(cuts, n)
	}
	for _, n := range cuts {
		for _, between := range []string{"", "\x00", "\x00C", "\x00CV", "\x00CVE"} {
			r := NewReader(io.MultiReader(bytes.NewReader(whole.Bytes()[:n]), strings.NewReader(between), bytes.NewReader(next.Bytes())))
			for id := range uint64(3) {
				m, err := r.Read()
				if err != nil || m.Ping == nil || m.Ping.ID != id {
					t.Fatalf("a frame cut off after %d bytes, then %q: Read = %+v, %v; want ping %d", n, between, m, err, id)
				}
			}
			if _, err := r.Read(); err != io.EOF {
				t.Errorf("a frame cut off after %d bytes, then %q: Read at the end = %v; want io.EOF", n, between, err)
			}
		}
	}
}

func TestReadSkips(t *testing.T) {
	var ping bytes.Buffer
	NewWriter(&ping).Write(Message{Ping: &Ping{ID: 1}})
	frame := func(body string) string {
		return string(binary.BigEndian.AppendUint32([]byte(magic), uint32(len(body)))) + body
	}
	for _, row := range []struct{ says, before string }{
		{"a body that is no JSON", frame("junk")},
		{"a body that is JSON of another shape", frame(`{"ping":"text"}`)},
		{"an empty body", frame("")},
		{"many magics", strings.Repeat(magic, 1000)},
		{"many zeros", strings.Repeat("\x00", 1000)},
		{"a length and zeros instead of a body", frame("x")[:8] + strings.Repeat("\x00", 100)},
	} {
		m, err := NewReader(strings.NewReader(row.before + ping.String())).Read()
		if err != nil || m.Ping == nil {
			t.Errorf("after %s: Read = %+v, %v; want the ping", row.says, m, err)
		}
	}
	// What a later version says more does not hurt.
	if m, err := NewReader(strings.NewReader(frame(`{"ping":{"id":1,"new":2},"newer":{}}`))).Read(); err != nil || m.Ping == nil {
		t.Errorf("Read of a newer message = %+v, %v; want the ping in it", m, err)
	}
}

func TestReadEnds(t *testing.T) {
	for _, row := range []struct {
		says, in string
		want     error
	}{
		{"between frames is an end", "", io.EOF},
		{"in garbage is an end", "login: \x00CV", io.EOF},
		{"after a magic is a cut", magic, io.ErrUnexpectedEOF},
		{"in a length is a cut", magic + "\x00\x00", io.ErrUnexpectedEOF},
		{"before a body is a cut", magic + "\x00\x00\x00\x05", io.ErrUnexpectedEOF},
		{"in a body is a cut", magic + "\x00\x00\x00\x05{", io.ErrUnexpectedEOF},
	} {
		if _, err := NewReader(strings.NewReader(row.in)).Read(); err != row.want {
			t.Errorf("an end %s: Read of %q = %v; want %v", row.says, row.in, err, row.want)
		}
	}
}

// Who announces much and sends nothing costs nothing.
func TestWhatIsAnnouncedIsNotAllocated(t *testing.T) {
	frame := binary.BigEndian.AppendUint32([]byte(magic), MaxMessage)
	const rounds = 100
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range rounds {
		NewReader(bytes.NewReader(frame)).Read()
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / rounds; each > MaxMessage/8 {
		t.Errorf("Read of a length of %d with no bytes allocates %d bytes; want no more than a reader's own", MaxMessage, each)
	}
}

func TestSeveralMayWriteAtOnce(t *testing.T) {
	pr, pw := io.Pipe()
	w := NewWriter(pw)
	const writers, each = 8, 50
	for i := range uint64(writers) {
		go func() {
			for j := range uint64(each) {
				w.Write(Message{Ping: &Ping{ID: i*each + j}})
			}
		}()
	}
	r, seen := NewReader(pr), map[uint64]bool{}
	for range writers * each {
		m, err := r.Read()
		if err != nil || m.Ping == nil {
			t.Fatalf("Read = %+v, %v; want a ping", m, err)
		}
		seen[m.Ping.ID] = true
	}
	if len(seen) != writers*each {
		t.Errorf("%d pings came; want %d", len(seen), writers*each)
	}
}

func FuzzReader(f *testing.F) {
	var b bytes.Buffer
	NewWriter(&b).Write(Message{Ping: &Ping{ID: 1}})
	f.Add(b.Bytes())
	f.Add([]byte(magic + "\x00\x00\x00\x02{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := NewReader(bytes.NewReader(data))
		for range len(data) + 1 {
			if _, err := r.Read(); err != nil {
				return
			}
		}
		t.Error("more messages than bytes")
	})
}

// A frame is found after any bytes whatever, unless they announce one that is too large.
func FuzzResync(f *testing.F) {
	var ping bytes.Buffer
	NewWriter(&ping).Write(Message{Ping: &Ping{ID: 1}})
	f.Add([]byte(magic))
	f.Add([]byte(magic + "\x00\x00\x40\x00{"))
	f.Add([]byte("\x00CV"))
	f.Fuzz(func(t *testing.T, before []byte) {
		r := NewReader(io.MultiReader(bytes.NewReader(before), bytes.NewReader(ping.Bytes()), bytes.NewReader(ping.Bytes())))
		for {
			m, err := r.Read()
			if errors.Is(err, ErrTooLarge) || m.Ping != nil && m.Ping.ID == 1 {
				return
			}
			if err != nil {
				t.Fatalf("after %q: %v; want a ping", before, err)
			}
		}
	})
}

func TestShellFramesThatAreNone(t *testing.T) {
	buf := make([]byte, MaxShellFrame)
	for _, row := range []struct {
		says, in string
		buf      []byte
		want     error
	}{
		{"nothing is the end", "", buf, io.EOF},
		{"a cut head is a cut", "\x01\x00", buf, io.ErrUnexpectedEOF},
		{"a cut body is a cut", "\x01\x00\x00\x00\x05ab", buf, io.ErrUnexpectedEOF},
		{"a head without its body is a cut", "\x01\x00\x00\x00\x05", buf, io.ErrUnexpectedEOF},
		{"a frame over the limit is too large", "\x01\x00\x01\x00\x01", buf, ErrTooLarge},
		{"four gigabytes are too large", "\x01\xff\xff\xff\xff", buf, ErrTooLarge},
		{"more than the caller's buffer is too large", "\x01\x00\x00\x00\x03abc", buf[:2], ErrTooLarge},
	} {
		if _, _, err := ReadShell(strings.NewReader(row.in), row.buf); !errors.Is(err, row.want) {
			t.Errorf("%s: ReadShell(%q) = %v; want %v", row.says, row.in, err, row.want)
		}
	}
}

func TestShellFrames(t *testing.T) {
	var b bytes.Buffer
	buf := make([]byte, MaxShellFrame)
	for _, size := range []int{0, 1, MaxShellFrame} {
		want := bytes.Repeat([]byte{7}, size)
		if err := WriteShell(&b, ShellStdout, want); err != nil {
			t.Fatal(err)
		}
		kind, got, err := ReadShell(&b, buf)
		if kind != ShellStdout || !bytes.Equal(got, want) || err != nil {
			t.Errorf("ReadShell of %d bytes = %d, %d bytes, %v", size, kind, len(got), err)
		}
	}
	if err := WriteShell(&b, ShellStdout, make([]byte, MaxShellFrame+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("WriteShell over the limit = %v; want ErrTooLarge", err)
	}
}

func FuzzReadShell(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 1, 'x'})
	f.Add([]byte{9, 0xff, 0xff, 0xff, 0xff})
	buf := make([]byte, MaxShellFrame)
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		for {
			_, got, err := ReadShell(r, buf)
			if err != nil {
				return
			}
			if len(got) > len(data) {
				t.Fatalf("%d bytes from %d", len(got), len(data))
			}
		}
	})
}

func TestASecretShowsNowhereButOnTheWire(t *testing.T) {
	const text = "hunter2"
	pair := ClientPair{Certificate: "c", Key: NewSecret(text)}
	var out bytes.Buffer
	fmt.Fprintf(&out, "%v %+v %#v %s %q %x %v", pair, pair, pair, pair.Key, pair.Key, pair.Key, &pair)
	slog.New(slog.NewTextHandler(&out, nil)).Info("said", "key", pair.Key, "pair", pair)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("said", "key", pair.Key)
	if strings.Contains(out.String(), text) || strings.Contains(out.String(), fmt.Sprintf("%x", text)) {
		t.Errorf("the secret shows in %s", out.String())
	}
}
