package vufs

import (
	"io"
	"log/slog"

	"github.com/covedesk/cove/vmhost/qemu/vhostuser"
)

// state is the handler's, and says in the log what QEMU only says yes or no to.
type state struct {
	vhostuser.State
	log *slog.Logger
}

func (s *state) Save(w io.Writer) error {
	err := s.State.Save(w)
	if err != nil {
		s.log.Error("file sharing: the state was not saved", "err", err)
	}
	return err
}

func (s *state) Load(r io.Reader) error {
	err := s.State.Load(r)
	if err != nil {
		s.log.Error("file sharing: the saved state was not taken", "err", err)
	}
	return err
}
