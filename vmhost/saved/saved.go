// Package saved keeps the folder of a saved machine, for the drivers that save one: see vmhost.Suspender and
// vmhost.Spec.Saved. A folder has its name only when it is whole and on the disk, it is used once, and it says
// what it belongs to, in the file machine.json. What else is in it is the driver's.
package saved

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/covedesk/cove/vmhost"
)

// Make makes the folder dir, which must not be there. fill writes what is to be in it, synced, under another
// path. With an error there is no dir.
func Make(dir string, fill func(making string) error) error {
	if _, err := os.Lstat(dir); err == nil {
		return fmt.Errorf("%s is there already", dir)
	}
	making := dir + ".new"
	if err := os.RemoveAll(making); err != nil {
		return err
	}
	if err := os.Mkdir(making, 0o700); err != nil {
		return err
	}
	err := fill(making)
	if err == nil {
		err = syncDir(making)
	}
	if err == nil {
		err = os.Rename(making, dir)
	}
	if err == nil {
		if err = syncDir(filepath.Dir(dir)); err == nil {
			return nil
		}
		err = errors.Join(err, os.Rename(dir, making)) // it may not outlive a crash, and the machine goes on
	}
	os.RemoveAll(making)
	return err
}

// Use takes the name from a folder that Make made, so that nobody uses it again, and removes it in time. With
// an error the guest must not run.
func Use(dir string) error {
	used := dir + ".used"
	if err := os.RemoveAll(used); err != nil {
		return err
	}
	if err := os.Rename(dir, used); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(used)); err != nil {
		return err
	}
	go os.RemoveAll(used)
	return nil
}

// Create opens a new file that is the user's own from its first moment.
func Create(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
}

// Write makes such a file, and has it on the disk when it returns.
func Write(path string, write func(io.Writer) error) error {
	f, err := Create(path)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Sync(), f.Close())
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// machineFile is what a folder belongs to.
const machineFile = "machine.json"

// Bind writes what a folder in the making belongs to, as JSON.
func Bind(making string, machine any) error {
	b, err := json.MarshalIndent(machine, "", "  ")
	if err != nil {
		return err
	}
	return Write(filepath.Join(making, machineFile), func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
}

// Bound reads what Bind wrote.
func Bound(dir string, machine any) error {
	b, err := os.ReadFile(filepath.Join(dir, machineFile))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, machine); err != nil {
		return fmt.Errorf("%s: %w", machineFile, err)
	}
	return nil
}

// Difference names the first words that are not the same in what a machine was made of and what it is made of now.
func Difference(was, is []string) string {
	for i := range min(len(was), len(is)) {
		if was[i] != is[i] {
			return fmt.Sprintf("%q was %q", is[i], was[i])
		}
	}
	return fmt.Sprintf("%d arguments were %d", len(is), len(was))
}

// Problem says that a saved machine cannot be brought back. The error's text is a clause for people.
func Problem(err error) *vmhost.Problem {
	return &vmhost.Problem{ID: vmhost.ProblemSaved, Summary: "The suspended VM cannot be brought back: " + err.Error() + ".",
		Remedy: "It boots anew: containers with a restart policy start again, and everything on the data disk is kept.", Err: err}
}
