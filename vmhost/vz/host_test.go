package vz

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/covedesk/cove/vmhost"
)

func TestCheckHost(t *testing.T) {
	for _, row := range []struct{ says, version, virtualization, want string }{
		{"a new macOS on a Mac that can", "15.3.1", "1", ""},
		{"the oldest that we take", "13.0", "1", ""},
		{"a version without a point", "26", "1", ""},
		{"a kernel that says nothing of virtualization is believed", "14.5", "", ""},
		{"one too old", "12.7.6", "1", vmhost.ProblemOldHypervisor},
		{"a Mac without virtualization", "15.0", "0", vmhost.ProblemNoHypervisor},
		{"an old one without it hears of the version first", "11.0", "0", vmhost.ProblemOldHypervisor},
		{"no version at all", "", "1", vmhost.ProblemOldHypervisor},
	} {
		got := id(checkHost(row.version, row.virtualization))
		if got != row.want {
			t.Errorf("%s: checkHost(%q, %q) = %q; want %q", row.says, row.version, row.virtualization, got, row.want)
		}
	}
}

func TestCheckAccelerator(t *testing.T) {
	for name, want := range map[string]string{"": "", "hvf": "", "tcg": vmhost.ProblemNoAccelerator, "kvm": vmhost.ProblemNoAccelerator} {
		if got := id(checkAccelerator(name)); got != want {
			t.Errorf("checkAccelerator(%q) = %q; want %q", name, got, want)
		}
	}
}

// id is a problem's, "" for none, and the text of an error that is not one.
func id(err error) string {
	var p *vmhost.Problem
	switch {
	case err == nil:
		return ""
	case !errors.As(err, &p):
		return err.Error()
	case p.Summary == "" || p.Remedy == "":
		return "a problem without words"
	}
	return p.ID
}

func TestCmdline(t *testing.T) {
	const want = "console=hvc0 panic=1 quiet"
	if got := cmdline(vmhost.Spec{Cmdline: []string{"quiet"}}); got != want {
		t.Errorf("cmdline = %q; want %q", got, want)
	}
}

func TestHardwareAddress(t *testing.T) {
	a, again, other := hardwareAddress([]byte("one")), hardwareAddress([]byte("one")), hardwareAddress([]byte("two"))
	if a.String() != again.String() || a.String() == other.String() {
		t.Errorf("hardwareAddress gives %s, %s for one machine and %s for another; want the same and another", a, again, other)
	}
	for _, a := range []string{a.String(), other.String()} {
		if !strings.Contains("26ae", a[1:2]) {
			t.Errorf("hardwareAddress = %s; want a unicast address, locally administered", a)
		}
	}
}

// Half-close stands on a private field of vz: an upgrade that renames it is found here, on any system.
func TestVZKeepsTheFieldThatHalfCloseStandsOn(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/Code-Hex/vz/v3").Output()
	if err != nil || len(strings.TrimSpace(string(dir))) == 0 {
		t.Skip("the source of vz is not here:", err)
	}
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(strings.TrimSpace(string(dir)), "socket.go"), nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	found := false
	ast.Inspect(file, func(n ast.Node) bool {
		spec, is := n.(*ast.TypeSpec)
		if !is || spec.Name.Name != "VirtioSocketConnection" {
			return true
		}
		for _, f := range spec.Type.(*ast.StructType).Fields.List {
			for _, name := range f.Names {
				found = found || name.Name == "rawConn" && types.ExprString(f.Type) == "net.Conn"
			}
		}
		return false
	})
	if !found {
		t.Error("vz.VirtioSocketConnection has no field rawConn of type net.Conn any more: see hidden")
	}
}
