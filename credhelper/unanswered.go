package credhelper

import (
	"os"
	"path/filepath"
	"time"

	"github.com/covedesk/cove/credhelper/keystore"
)

// quiet is how long nobody is asked again to unlock a keystore for reading, after the question was closed
// or left: who pulls twenty images must not be asked, or wait, twenty times. A login asks always.
const quiet = 5 * time.Minute

// unansweredFile has the time of the last such question.
const unansweredFile = "unanswered"

func (h *Helper) unanswered() bool {
	info, err := os.Stat(filepath.Join(h.dir, unansweredFile))
	if err != nil {
		return false
	}
	age := time.Since(info.ModTime())
	return age >= 0 && age < quiet // a clock that was set back asks
}

// noteUnanswered keeps the time, where the keystore would have asked. Without a place for it, it asks again.
func (h *Helper) noteUnanswered(s keystore.Store, err error) {
	if !h.ask || !keystore.IsLocked(err) || s.Name() == keystore.File || h.unanswered() {
		return
	}
	if c, err := h.choice(); err != nil || c.Keystore != s.Name() {
		return // it was not asked
	}
	_ = os.WriteFile(filepath.Join(h.dir, unansweredFile), nil, 0o600)
}
