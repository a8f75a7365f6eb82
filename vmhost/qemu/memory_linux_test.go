package qemu

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/covedesk/cove/vmhost/saved"
	"golang.org/x/sys/unix"
)

// The copy of a guest's memory is the same in every byte, and takes room for what there is only.
func TestCopyMemory(t *testing.T) {
	const size = 64 << 20
	from, err := newMemory(size)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	random := rand.NewChaCha8([32]byte{1})
	some := func(n int) []byte { b := make([]byte, n); random.Read(b); return b }
	for _, w := range []struct {
		at int64
		b  []byte
	}{
		{0, some(1)},
		{3*pageSize - 1, some(2)},         // over a border
		{8 << 20, make([]byte, 4<<20)},    // there, and zero
		{20<<20 + 5, some(3 << 20)},       // more than a piece
		{size - pageSize, some(pageSize)}, // the last page
	} {
		if _, err := from.WriteAt(w.b, w.at); err != nil {
			t.Fatal(err)
		}
	}
	to, err := saved.Create(filepath.Join(t.TempDir(), "memory"))
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	if err := copyMemory(t.Context(), to, from); err != nil {
		t.Fatal(err)
	}
	want := make([]byte, size)
	if _, err := from.ReadAt(want, 0); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(to.Name()); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the copy is not the same: %d bytes, %v", len(got), err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(to.Fd()), &st); err != nil || st.Blocks*512 > 4<<20 {
		t.Errorf("the copy of 3 MiB takes %d KiB, %v", st.Blocks/2, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := copyMemory(ctx, to, from); !errors.Is(err, context.Canceled) {
		t.Errorf("copyMemory that is called off = %v; want context.Canceled", err)
	}
}

// A saved machine is for the very same machine.
func TestCheckSaved(t *testing.T) {
	dir := t.TempDir()
	s := spec()
	s.Saved, s.Data = filepath.Join(dir, "saved"), filepath.Join(dir, "data.raw")
	if err := os.WriteFile(s.Data, []byte("disk"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(s.Saved, 0o700); err != nil {
		t.Fatal(err)
	}
	p := plumbing{memory: 3, monitor: 4, console: 5, control: 6, mux: 7, vsock: 8, network: 9}
	m := &machine{spec: s, version: "10.0.2", plumbing: p}
	m.accel.Name = "tcg"
	mark := func() {
		t.Helper()
		os.Remove(filepath.Join(s.Saved, "machine.json"))
		if err := m.mark(s.Saved); err != nil {
			t.Fatal(err)
		}
	}
	mark()
	other := p
	other.memory, other.mux, other.incoming = 13, 17, true // descriptors differ from start to start
	if err := checkSaved(s, "10.0.2", "tcg", other); err != nil {
		t.Errorf("checkSaved of the same machine = %v; want nil", err)
	}
	more, cpus := s, s
	more.Memory += 1 << 20
	cpus.CPUs++
	without := p
	without.network = 0
	for name, err := range map[string]error{
		"another QEMU":        checkSaved(s, "10.0.3", "tcg", p),
		"another accelerator": checkSaved(s, "10.0.2", "kvm", p),
		"more memory":         checkSaved(more, "10.0.2", "tcg", p),
		"more processors":     checkSaved(cpus, "10.0.2", "tcg", p),
		"no network":          checkSaved(s, "10.0.2", "tcg", without),
	} {
		if err == nil {
			t.Errorf("checkSaved of a machine with %s = nil; want why not", name)
		}
	}
	for name, change := range map[string]func() error{
		"written to": func() error { return os.WriteFile(s.Data, []byte("DISK"), 0o600) },
		"replaced by a backup of the same content": func() error {
			return errors.Join(os.WriteFile(s.Data+".bak", []byte("DISK"), 0o600), os.Rename(s.Data+".bak", s.Data))
		},
		"gone": func() error { return os.Remove(s.Data) },
	} {
		os.WriteFile(s.Data, []byte("disk"), 0o600)
		mark()
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if err := checkSaved(s, "10.0.2", "tcg", p); err == nil {
			t.Errorf("checkSaved of a disk that was %s = nil; want why not", name)
		}
	}
	if err := os.WriteFile(filepath.Join(s.Saved, "machine.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := checkSaved(s, "10.0.2", "tcg", p); err == nil {
		t.Error("checkSaved of a cut file = nil; want why not")
	}
}
