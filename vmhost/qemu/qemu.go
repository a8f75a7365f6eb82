// Package qemu runs machines on QEMU. What it starts has no device that was not asked for, no display,
// no network listener, and QEMU itself may start no program; its monitor is a socket of the user's own.
// However this process ends, the guest is told by its control port, and QEMU is gone in [Grace].
package qemu

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/covedesk/cove/vmhost"
)

// Grace is how long a guest has to stop its engine after its host process is gone.
const Grace = 30 * time.Second

// oldest is the oldest major version of QEMU that we start. 7.2 corrupts the memory of 6.12 guest
// kernels under software emulation (4 of 7 boots crashed; 10.0: none of 9).
const oldest = 8

// Options are what a Driver needs to know.
type Options struct {
	// Binary is QEMU's name or path; empty means the one for this machine's architecture on PATH.
	Binary string
	// Answers is the path of a file that remembers which accelerators work; empty means to forget.
	Answers string
	Log     *slog.Logger
}

// Driver starts machines with QEMU.
type Driver struct {
	Options

	mu    sync.Mutex // guards the answer of version
	asked os.FileInfo
	said  string
}

var _ vmhost.Driver = (*Driver)(nil)

// New returns a Driver. It looks at nothing yet: see Check.
func New(o Options) *Driver {
	if o.Binary == "" {
		o.Binary = map[string]string{"amd64": "qemu-system-x86_64", "arm64": "qemu-system-aarch64"}[runtime.GOARCH]
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Driver{Options: o}
}

// Name is "qemu".
func (d *Driver) Name() string { return "qemu" }

// Check says whether there is a QEMU that can be trusted with a guest.
func (d *Driver) Check(ctx context.Context) error {
	_, err := d.version(ctx)
	return err
}

const installHint = "Install QEMU 10: on Debian 12 `sudo apt install -t bookworm-backports qemu-system-x86`, on other systems the package qemu-system-x86 or qemu (on arm64: qemu-system-arm)."

// version asks QEMU for its version, and refuses one that is known to be bad.
func (d *Driver) version(ctx context.Context) (string, error) {
	path, err := exec.LookPath(d.Binary)
	if err != nil {
		return "", &vmhost.Problem{ID: vmhost.ProblemNoHypervisor, Summary: fmt.Sprintf("QEMU is not installed: there is no %s on PATH.", d.Binary), Remedy: installHint, Err: err}
	}
	// A wake asks twice, and each time QEMU would link all its libraries to answer.
	d.mu.Lock()
	defer d.mu.Unlock()
	program, _ := os.Stat(path)
	if program != nil && d.asked != nil && os.SameFile(program, d.asked) && program.ModTime().Equal(d.asked.ModTime()) && program.Size() == d.asked.Size() {
		return checkVersion(path, d.said)
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	ask := exec.CommandContext(ctx, path, "--version")
	ask.Env = environ()
	out, err := ask.CombinedOutput()
	if err != nil {
		if ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled) {
			return "", ctx.Err()
		}
		return "", &vmhost.Problem{ID: vmhost.ProblemNoHypervisor, Summary: fmt.Sprintf("QEMU at %s does not run.", path), Remedy: installHint, Evidence: string(out), Err: err}
	}
	d.asked, d.said = program, string(out)
	return checkVersion(path, d.said)
}

// environ is what QEMU gets of ours: a proxy's password is in there for us, not for it.
func environ() []string { return []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent"} }

var versionLine = regexp.MustCompile(`QEMU emulator version ((\d+)\.[0-9.]+)`)

// checkVersion reads what `qemu --version` printed.
func checkVersion(path, printed string) (string, error) {
	m := versionLine.FindStringSubmatch(printed)
	if m == nil {
		return "", &vmhost.Problem{ID: vmhost.ProblemNoHypervisor, Summary: fmt.Sprintf("%s does not say which version of QEMU it is.", path), Remedy: installHint, Evidence: printed}
	}
	if major, _ := strconv.Atoi(m[2]); major < oldest {
		return "", &vmhost.Problem{
			ID:      vmhost.ProblemOldHypervisor,
			Summary: fmt.Sprintf("QEMU %s at %s is too old: versions before %d corrupt the memory of the guest under software emulation.", m[1], path, oldest),
			Remedy:  installHint,
		}
	}
	return m[1], nil
}
