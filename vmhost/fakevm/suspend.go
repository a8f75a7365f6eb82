package fakevm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/covedesk/cove/vmhost"
)

var _ vmhost.Suspender = (*Machine)(nil)

// mark is what a saved machine is bound to. It has no memory to be saved.
type mark struct {
	CPUs   int
	Memory int64
	Disk   time.Time // when it was changed
}

func markOf(spec vmhost.Spec) mark {
	m := mark{CPUs: spec.CPUs, Memory: spec.Memory}
	if info, err := os.Stat(spec.Data); err == nil {
		m.Disk = info.ModTime()
	}
	return m
}

const markFile = "machine.json"

// Suspend ends the machine and leaves a folder that a next one can be started from.
func (m *Machine) Suspend(ctx context.Context, dir string, beside func(string) error) (err error) {
	if err := errors.Join(ctx.Err(), m.unsaved); err != nil {
		return fmt.Errorf("suspend the fake machine: %w", err)
	}
	if err := os.Mkdir(dir+".new", 0o700); err != nil {
		return fmt.Errorf("suspend the fake machine: %w", err)
	}
	b, err := json.Marshal(markOf(m.spec))
	if err != nil {
		return err
	}
	err = errors.Join(os.WriteFile(filepath.Join(dir+".new", markFile), b, 0o600), beside(dir+".new"))
	if err == nil {
		err = os.Rename(dir+".new", dir)
	}
	if err != nil {
		os.RemoveAll(dir + ".new")
		return fmt.Errorf("suspend the fake machine: %w", err)
	}
	m.halt(vmhost.Exit{Reason: vmhost.ExitSuspended, Detail: "the fake machine was saved"})
	<-m.done
	return nil
}

// bootOrResume starts a machine, or one that goes on.
func (d *Driver) bootOrResume(spec vmhost.Spec) (*Machine, error) {
	if spec.Saved != "" {
		b, err := os.ReadFile(filepath.Join(spec.Saved, markFile))
		var was mark
		if err == nil {
			err = json.Unmarshal(b, &was)
		}
		if is := markOf(spec); err == nil && (was.CPUs != is.CPUs || was.Memory != is.Memory || !was.Disk.Equal(is.Disk)) {
			err = errors.New("it is another machine")
		}
		if err == nil {
			err = os.RemoveAll(spec.Saved)
		}
		if err != nil {
			return nil, &vmhost.Problem{ID: vmhost.ProblemSaved, Summary: "The fake machine cannot be brought back: " + err.Error() + ".", Remedy: "Boot it.", Err: err}
		}
	}
	m, err := d.boot(spec, spec.Saved != "")
	if err != nil {
		return nil, fmt.Errorf("start the fake machine: %w", err)
	}
	return m, nil
}
