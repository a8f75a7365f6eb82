package daemon

import (
	"errors"
	"fmt"
	"os"

	"github.com/covedesk/cove/app/internal/shares"
	"github.com/covedesk/cove/guestd/protocol"
	"github.com/covedesk/cove/vmhost"
	"github.com/covedesk/cove/vmhost/share"
)

// userHome is the user's home folder, or empty.
func userHome() string {
	dir, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return dir
}

// sharing is what one start of the VM has of the host's folders.
type sharing struct {
	d   *Daemon
	set *shares.Set
	fs  *share.FS // nil where the hypervisor serves them
}

// Close lets go of the folders.
func (s *sharing) Close() error {
	s.d.mu.Lock()
	if s.d.shared == s.set {
		s.d.shared = nil
	}
	s.d.mu.Unlock()
	if s.fs == nil {
		return nil
	}
	return s.fs.Close()
}

// wanted are the shared folders that the settings ask for, as they are now.
func (d *Daemon) wanted() (*shares.Set, []string, error) {
	d.settingsLock.Lock()
	defer d.settingsLock.Unlock()
	s, err := d.store()
	if err != nil {
		return nil, nil, err
	}
	v := s.Values()
	set, notices := shares.Resolve(v.Shares, []string{string(d.home), d.dataDisk(v)})
	return set, notices, nil
}

// share opens the shared folders for a machine that is about to start, or that comes back with those that it
// had. A folder that cannot be shared costs a notice, never the start.
func (d *Daemon) share(spec *vmhost.Spec, config *protocol.Config, was *rest) (*sharing, error) {
	set, notices, err := d.wanted()
	if err != nil {
		return nil, err
	}
	if was != nil {
		// What was shared since comes with the next start; what is not any more is gone for the guest.
		set, notices = set.Still(was.Folders), nil
	}
	for _, n := range notices {
		d.life.Notice(n)
	}
	s := &sharing{d: d, set: set}
	var served []share.Share
	for _, f := range set.Folders {
		spec.Shares = append(spec.Shares, vmhost.Share{Path: f.Path, ReadOnly: f.ReadOnly})
		config.Shares = append(config.Shares, protocol.Share{Path: f.Path, ReadOnly: f.ReadOnly, Names: f.Names})
		served = append(served, share.Share{Path: f.Path, ReadOnly: f.ReadOnly})
	}
	if len(served) > 0 || was != nil && len(was.Folders) > 0 {
		options := share.Options{Log: d.log, Hide: set.Hidden()}
		s.fs, err = share.New(served, options)
		if err != nil && was != nil && !errors.Is(err, errors.ErrUnsupported) {
			// The machine has its device all the same.
			d.life.Notice(fmt.Sprintf("No folder of the host is shared: %v. `cove restart` tries again.", err))
			s.set, config.Shares = &shares.Set{}, nil
			s.fs, err = share.New(nil, options)
		}
		switch {
		case err == nil:
			spec.Files = s.fs
		case errors.Is(err, errors.ErrUnsupported):
			s.fs = nil
		default: // a folder went away since it was looked at
			d.life.Notice(fmt.Sprintf("No folder of the host is shared: %v. `cove restart` tries again.", err))
			s.fs, spec.Shares, config.Shares = nil, nil, nil
			s.set = &shares.Set{}
		}
	}
	d.mu.Lock()
	d.shared = s.set
	d.mu.Unlock()
	return s, nil
}

// mountable is the daemon as the docker.sock front asks it: see dockerapi.Shares.
type mountable struct{ d *Daemon }

func (m mountable) Mount(path string) error {
	m.d.mu.Lock()
	set := m.d.shared
	m.d.mu.Unlock()
	if set == nil {
		// A start that is to come shares what the settings say.
		var err error
		if set, _, err = m.d.wanted(); err != nil {
			return err
		}
	}
	return set.Mount(path)
}
