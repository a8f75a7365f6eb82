package protocol

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"testing"
	"time"
)

func TestEveryMessageComesBack(t *testing.T) {
	all := []Message{
		{Hello: &Hello{Version: Version, Nonce: "n", Secret: []byte("s"), Time: time.Unix(5, 0).UTC(), Config: Config{Hostname: "h", Engine: json.RawMessage(`{"debug":true}`), ShutdownSeconds: 3}}},
		{SetClock: &SetClock{Time: time.Unix(9, 0).UTC()}}, {Shutdown: &Shutdown{}}, {Ping: &Ping{ID: 7}},
		{Welcome: &Welcome{Version: 1, Nonce: "n", Kernel: "k", Arch: "a"}}, {Step: &Step{Name: "s", Start: 1, Duration: 2, Error: "e"}},
		{Listening: &Listening{Vsock: true, Mux: true}}, {Service: &Service{Name: "dockerd", State: "running", Restarts: 2, Detail: "d"}},
		{Ready: &Ready{EngineVersion: "1", APIVersion: "2"}}, {Failed: &Failed{Cause: CauseBoot, Detail: "d", Evidence: "e", Fatal: true}},
		{Pong: &Pong{ID: 7}}, {Stopping: &Stopping{Reason: "r"}},
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

// A frame that was cut off swallows what follows it up to its length, and then the reader is in step again.
func TestACutFrameCostsLittle(t *testing.T) {
	var b bytes.Buffer
	b.Write(binary.BigEndian.AppendUint32([]byte(magic), 40))
	b.WriteString(`{"ping":`)
	w := NewWriter(&b)
	for id := range uint64(4) {
		w.Write(Message{Ping: &Ping{ID: id}})
	}
	m, err := NewReader(&b).Read()
	if err != nil || m.Ping == nil || m.Ping.ID > 2 {
		t.Errorf("Read after a cut frame = %+v, %v; want one of the next pings", m, err)
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
