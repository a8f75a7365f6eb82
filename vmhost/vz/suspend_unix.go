//go:build unix

package vz

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/covedesk/cove/vmhost"
	"github.com/covedesk/cove/vmhost/saved"
)

// savedState is the framework's file of a saved machine, which it encrypts for this Mac.
const savedState = "machine.vzvmsave"

// savedVersion is of the bond's format, and of what Suspend does.
const savedVersion = 1

// bond says which machine a saved state belongs to. The framework looks at the machine's devices, and at no disk.
type bond struct {
	Version int        `json:"version"`
	MacOS   string     `json:"macos"` // its version and build: another one may read the state in another way
	Made    []string   `json:"made"`  // see made
	Disk    saved.Disk `json:"disk"`  // of the data disk as the guest left it
}

// newBond is a machine's, but for the disk's mark.
func newBond(macOS string, spec vmhost.Spec, identifier []byte) bond {
	return bond{Version: savedVersion, MacOS: macOS, Made: made(spec, identifier)}
}

// made is all that a machine is configured from, word by word.
func made(spec vmhost.Spec, identifier []byte) []string {
	network := "nat"
	if spec.Network != nil {
		network = "card"
	}
	words := []string{fmt.Sprintf("cpus=%d", spec.CPUs), fmt.Sprintf("memory=%dMiB", spec.Memory>>20),
		"kernel=" + spec.Kernel, "initrd=" + spec.Initrd, "cmdline=" + cmdline(spec), "root=" + spec.Root, "data=" + spec.Data,
		"network=" + network, "identifier=" + hex.EncodeToString(identifier)}
	for _, s := range spec.Shares {
		words = append(words, fmt.Sprintf("share=%s,readonly=%t", s.Path, s.ReadOnly))
	}
	return words
}

// fits says whether a saved folder is this machine's. The error is a clause for people.
func (m *machine) fits(dir string) error {
	if m.saver == nil {
		return errors.New("the Virtualization framework does not save or restore this machine here")
	}
	var was bond
	if err := saved.Bound(dir, &was); err != nil {
		return err
	}
	data, err := saved.MarkDisk(m.data)
	switch {
	case was.Version != m.bond.Version:
		return errors.New("another version of Cove saved it")
	case was.MacOS != m.bond.MacOS:
		return fmt.Errorf("macOS %s saved it, and this is %s", was.MacOS, m.bond.MacOS)
	case err != nil:
		return err
	case was.Disk != data:
		return errors.New("its data disk was changed since")
	case !slices.Equal(was.Made, m.bond.Made):
		return errors.New("the VM is made in another way now: " + saved.Difference(was.Made, m.bond.Made))
	}
	return nil
}

// run starts the machine, or brings it back from dir: paused until nobody can use the folder again.
func (m *machine) run(ctx context.Context, dir string) error {
	if dir == "" {
		return m.vm.start()
	}
	if err := m.fits(dir); err != nil {
		return saved.Problem(err)
	}
	if err := m.saver.restore(filepath.Join(dir, savedState)); err != nil {
		return saved.Problem(err)
	}
	undo := func(err error) error {
		if err := m.vm.stop(); err != nil {
			m.log.Error("end a machine that was not brought back", "err", err)
		}
		return err
	}
	if err := context.Cause(ctx); err != nil {
		return undo(err) // what was saved is as it was
	}
	if err := saved.Use(dir); err != nil {
		return undo(saved.Problem(err))
	}
	if err := m.vm.goOn(); err != nil {
		return undo(saved.Problem(err))
	}
	return nil
}

// offered is the machine with what it can do.
func (m *machine) offered() vmhost.Machine {
	if m.saver == nil {
		return m
	}
	return suspendable{m}
}

// suspendable is a machine that the framework can save.
type suspendable struct{ *machine }

var _ vmhost.Suspender = suspendable{}

// Suspend saves the machine: see vmhost.Suspender. A save that has begun cannot be called off: when the context
// ends, what was saved is thrown away.
func (m suspendable) Suspend(ctx context.Context, dir string, beside func(dir string) error) error {
	m.saving.Lock()
	defer m.saving.Unlock()
	paused := false
	err := saved.Make(dir, func(making string) error {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		// While the guest runs, so that it hears of it: nobody says what becomes of them in a saved machine.
		for _, l := range m.links {
			if l, is := l.(*link); is {
				l.hangUp()
			}
		}
		if err := m.vm.pause(); err != nil {
			return err
		}
		paused = true
		return m.save(ctx, making, beside)
	})
	if err == nil {
		err = m.putAway(dir)
	}
	if err != nil {
		if paused {
			m.unpause()
		}
		return fmt.Errorf("suspend the machine: %w", err)
	}
	<-m.done
	return nil
}

// save writes a paused machine to a folder.
func (m *machine) save(ctx context.Context, making string, beside func(string) error) error {
	path := filepath.Join(making, savedState)
	if err := m.saver.save(path); err != nil {
		return err
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	// The framework made the file, with a mode of its own.
	if err := os.Chmod(path, 0o600); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := beside(making); err != nil {
		return err
	}
	b := m.bond
	if b.Disk, err = saved.MarkDisk(m.data); err != nil {
		return err
	}
	return saved.Bind(making, b)
}

// putAway ends a machine that is saved in dir. With an error there is no dir any more.
func (m *machine) putAway(dir string) error {
	m.mu.Lock()
	m.suspended = !m.killed
	killed := m.killed
	m.mu.Unlock()
	err := errors.New("it was ended meanwhile")
	if !killed {
		if err = m.vm.stop(); err == nil {
			return nil
		}
		m.mu.Lock()
		m.suspended = false
		m.mu.Unlock()
	}
	return errors.Join(err, saved.Use(dir))
}

// unpause lets a machine that was not saved go on. One that does not, or that was to be ended while it was being
// saved, is ended.
func (m *machine) unpause() {
	m.mu.Lock()
	killed := m.killed
	m.mu.Unlock()
	var err error
	if !killed {
		if err = m.vm.goOn(); err == nil {
			return
		}
		m.log.Error("a machine that could not be saved does not go on", "err", err)
		m.mu.Lock()
		m.stuck = fmt.Errorf("it could not be saved, and does not go on: %w", err)
		m.mu.Unlock()
	}
	m.disconnect()
	if err := m.vm.stop(); err != nil {
		m.log.Error("end the machine", "err", err)
	}
}
