package qemu

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"time"

	"github.com/covedesk/cove/vmhost"
	"github.com/moby/sys/atomicwriter"
)

// trialPatience is how long a virtual CPU may take to print the kernel's first line: it takes less
// than a second where an accelerator works.
const trialPatience = 10 * time.Second

// candidates are the accelerators of a system, best first; the last one always works.
func candidates(goos string) []string {
	switch goos {
	case "linux":
		return []string{"kvm", "tcg"}
	case "darwin":
		return []string{"hvf", "tcg"}
	case "windows":
		return []string{"whpx", "tcg"}
	}
	return []string{"tcg"}
}

// Accelerators proves each candidate by booting the kernel on it. An accelerator that can be opened
// and then hangs its guests is not one that works (DESIGN.md 12).
func (d *Driver) Accelerators(ctx context.Context, kernel string) ([]vmhost.Accelerator, error) {
	version, err := d.version(ctx)
	if err != nil {
		return nil, err
	}
	id := d.identity(version)
	if known := d.remembered(id); known != nil {
		return known, nil
	}
	var out []vmhost.Accelerator
	for _, name := range candidates(runtime.GOOS) {
		a, err := d.tryOut(ctx, name, kernel)
		if err != nil {
			return nil, err
		}
		d.Log.Info("accelerator tried", "name", a.Name, "works", a.Works, "reason", a.Reason)
		out = append(out, a)
		if a.Works {
			break
		}
	}
	if err := d.remember(id, out); err != nil {
		d.Log.Warn("accelerators are not remembered", "err", err)
	}
	return out, nil
}

func (d *Driver) tryOut(ctx context.Context, name, kernel string) (vmhost.Accelerator, error) {
	a := vmhost.Accelerator{Name: name}
	if name == "tcg" {
		a.Works, a.Reason = true, "software emulation works everywhere, slowly"
		return a, nil
	}
	if why := unavailable(name); why != "" {
		a.Reason = why
		return a, nil
	}
	start := time.Now()
	err := d.trial(ctx, name, kernel)
	switch {
	case ctx.Err() != nil:
		return a, ctx.Err()
	case err != nil:
		a.Reason = err.Error()
	default:
		a.Works, a.Reason = true, fmt.Sprintf("a kernel spoke on it after %.1f s", time.Since(start).Seconds())
	}
	return a, nil
}

// choose picks the accelerator for a spec.
func (d *Driver) choose(ctx context.Context, spec vmhost.Spec) (vmhost.Accelerator, error) {
	if spec.Accelerator != "" && !slices.Contains(candidates(runtime.GOOS), spec.Accelerator) {
		return vmhost.Accelerator{}, &vmhost.Problem{ID: vmhost.ProblemNoAccelerator,
			Summary: fmt.Sprintf("There is no accelerator %q on this system.", spec.Accelerator),
			Remedy:  "Set accelerator to auto: `cove config unset accelerator`."}
	}
	if spec.Accelerator == "tcg" {
		return vmhost.Accelerator{Name: "tcg", Works: true, Reason: "the settings ask for it"}, nil
	}
	all, err := d.Accelerators(ctx, spec.Kernel)
	if err != nil {
		return vmhost.Accelerator{}, err
	}
	var refused string
	for _, a := range all {
		switch {
		case spec.Accelerator != "" && a.Name == spec.Accelerator && !a.Works:
			return a, &vmhost.Problem{ID: vmhost.ProblemNoAccelerator,
				Summary: fmt.Sprintf("The accelerator %s, which the settings ask for, does not work here: %s.", a.Name, a.Reason),
				Remedy:  "Let Cove choose: `cove config unset accelerator`."}
		case a.Works && (spec.Accelerator == "" || a.Name == spec.Accelerator):
			if refused != "" {
				a.Reason += "; " + refused
			}
			return a, nil
		}
		refused = a.Name + ": " + a.Reason
	}
	return vmhost.Accelerator{}, fmt.Errorf("no accelerator among %v", all)
}

// answers is the file that remembers.
type answers struct {
	Identity string               `json:"identity"` // what the answers hold for
	Tried    []vmhost.Accelerator `json:"tried"`
}

// identity changes whenever an answer may: another QEMU, another host kernel, another device.
func (d *Driver) identity(version string) string {
	path, _ := exec.LookPath(d.Binary)
	st, err := os.Stat(path)
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%s %s %d %s", path, version, st.ModTime().UnixNano(), hostIdentity())
}

func (d *Driver) remembered(id string) []vmhost.Accelerator {
	b, err := os.ReadFile(d.Answers)
	var a answers
	if err != nil || json.Unmarshal(b, &a) != nil || a.Identity != id || id == "" || len(a.Tried) == 0 {
		return nil
	}
	return a.Tried
}

func (d *Driver) remember(id string, tried []vmhost.Accelerator) error {
	if d.Answers == "" || id == "" {
		return nil
	}
	b, err := json.MarshalIndent(answers{id, tried}, "", "  ")
	if err != nil {
		return err
	}
	return atomicwriter.WriteFile(d.Answers, b, 0o600)
}
