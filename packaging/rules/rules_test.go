// Package rules holds the tests that keep the project in the shape that DESIGN.md gives it. It has no
// code of its own.
package rules

import (
	"bufio"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/covedesk/cove/"

// imports says what a package may reach of ours, whole and through others, and why not more.
// The first rule whose prefix matches holds.
var imports = []struct {
	pkg     string
	may     []string // prefixes of packages of ours
	stdOnly bool
	because string
}{
	{"app/api", nil, true, "the wire types are for anybody to import"},
	{"app/client", []string{"app/api"}, false, "clients are never parts of the daemon"},
	{"app/cmd/cove", []string{"app/client", "app/api", "app/internal/build", "app/internal/credentials", "app/internal/dockerconfig", "app/internal/hostproxy", "app/internal/registry", "app/internal/secret", "app/internal/trust", "guestd/protocol"}, false, "the CLI is a client, never a part, of the daemon"},
	{"app/internal/testregistry", nil, false, "tests of every part start it"},
	{"app/internal/dockerconfig", nil, false, "docker's settings are docker's, whoever changes them"},
	{"app/internal/credentials", []string{"app/internal/dockerconfig", "app/internal/secret"}, false, "helpers are programs, and the CLI uses it without coved"},
	{"app/internal/imagetrust", []string{"app/api"}, false, "what decides whether an image is trusted knows no daemon and reaches nobody by itself"},
	{"app/internal/secret", nil, true, "every part keeps secrets by it"},
	{"app/internal/trust", []string{"app/internal/secret"}, false, "it finds certificates, for whoever asks"},
	{"app/internal/registry", []string{"app/internal/hostproxy", "app/internal/secret", "app/internal/trust"}, false, "it speaks to registries, and knows no daemon"},
	{"app/internal/lifecycle", []string{"app/api"}, false, "the phase machine is pure and knows no driver"},
	{"proxy/proxytest", []string{"proxy"}, false, "a contract suite knows the contract"},
	{"proxy/transport", []string{"proxy"}, false, "the transport knows bytes, not what they mean"},
	{"proxy/dockerapi", []string{"proxy"}, false, "the front knows the engine's API and no daemon"},
	{"proxy/ports", []string{"proxy", "guestd/protocol"}, false, "ports are asked for by the guest's protocol"},
	{"proxy", nil, true, "everything rests on it"},
	{"vmhost/vmtest", []string{"vmhost", "proxy", "guestd/protocol"}, false, "the suite is the contract, not a driver"},
	{"vmhost/fakevm", []string{"vmhost", "proxy", "guestd/protocol"}, false, "it stands in for a driver and a guest"},
	{"vmhost/qemu", []string{"vmhost", "proxy", "guestd/protocol"}, false, "drivers never know their user"},
	{"vmhost/vz", []string{"vmhost", "proxy", "guestd/protocol"}, false, "drivers never know their user"},
	{"vmhost/wsl2", []string{"vmhost", "proxy", "guestd/protocol"}, false, "drivers never know their user"},
	{"vmhost/share", []string{"guestd/protocol"}, false, "it serves folders and knows no machine"},
	{"vmhost", []string{"vmhost", "proxy"}, false, "a machine knows nothing of the daemon"},
	{"guestd/protocol", nil, true, "both sides of the control port import it"},
	{"guestd/image", []string{"guestd/image", "vmhost/guestimage", "vmhost", "proxy"}, false, "a recipe needs none of the running parts"},
	{"guestd", []string{"guestd", "proxy"}, false, "the guest knows nothing of the host's daemon"},
	{"credhelper", []string{"credhelper"}, false, "the credential helper stands alone"},
	{"ui/model", []string{"app/client", "app/api"}, false, "the model knows no Fyne"},
	{"ui", []string{"ui", "app/client", "app/api"}, false, "the GUI is a client, never a part, of the daemon"},
	{"extensions", []string{"extensions", "app/api"}, false, "extensions see the API"},
	{"packaging", []string{"packaging"}, false, "recipes import none of ours"},
}

func TestImports(t *testing.T) {
	for _, p := range lines(t, "go", "list", "./...") {
		name := strings.TrimPrefix(p, module)
		for _, rule := range imports {
			if !under(name, rule.pkg) {
				continue
			}
			for _, dep := range lines(t, "go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", p) {
				ours, is := strings.CutPrefix(dep, module)
				switch {
				case dep == p || under(ours, rule.pkg) && is && !rule.stdOnly:
				case !is && rule.stdOnly:
					t.Errorf("%s reaches %s, and may use the standard library only, because %s", name, dep, rule.because)
				case is && !slices.ContainsFunc(rule.may, func(m string) bool { return under(ours, m) }):
					t.Errorf("%s may not reach %s, because %s", name, ours, rule.because)
				}
			}
			break
		}
	}
}

func TestNoProgramHasTheTestRegistry(t *testing.T) {
	const registry = module + "app/internal/testregistry"
	for _, line := range lines(t, "go", "list", "-f", "{{.ImportPath}}:{{range .Imports}} {{.}}{{end}}", "./...") {
		if slices.Contains(strings.Fields(line), registry) {
			t.Errorf("%s is imported by more than tests: %s", registry, line)
		}
	}
}

// toolkit says who may not reach a package of Fyne's, and why not.
var toolkit = []struct{ pkg, not, because string }{
	{"ui/model", "fyne.io", "the model is tested without a window, and drawn by whatever draws"},
	{"ui/view", "fyne.io/fyne/v2/app", "its tests need neither cgo nor a display"},
}

func TestToolkit(t *testing.T) {
	for _, rule := range toolkit {
		for _, dep := range lines(t, "go", "list", "-deps", "./"+rule.pkg) {
			if under(dep, rule.not) {
				t.Errorf("%s may not reach %s, because %s", rule.pkg, dep, rule.because)
			}
		}
	}
}

func TestEveryPackageSaysWhatItPromises(t *testing.T) {
	for _, dir := range lines(t, "go", "list", "-f", "{{.Dir}}", "./...") {
		documented := false
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if !strings.HasSuffix(e.Name(), ".go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, e.Name()), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			documented = documented || f.Doc != nil && len(f.Doc.Text()) > 40
		}
		if !documented {
			t.Errorf("%s does not open with its promise (a package comment)", dir)
		}
	}
}

// The owner set the top level; what is generated or hidden is git's to ignore.
func TestTopLevel(t *testing.T) {
	allowed := strings.Fields("app vmhost guestd proxy ui credhelper extensions packaging go.mod go.sum Makefile README.md docs LICENSE CHANGELOG.md")
	for _, f := range lines(t, "git", "ls-files") {
		top, _, _ := strings.Cut(f, "/")
		if !strings.HasPrefix(top, ".") && !slices.Contains(allowed, top) {
			t.Errorf("%s: the top level holds only %v", f, allowed)
		}
	}
}

func TestEveryDirectDependencyHasAReason(t *testing.T) {
	f, err := os.Open(filepath.Join(root(t), "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	requirement := regexp.MustCompile(`^\s*(?:require )?(\S+\.\S+/\S+) v\S+(?:\s*// (.*))?$`)
	s := bufio.NewScanner(f)
	for s.Scan() {
		m := requirement.FindStringSubmatch(s.Text())
		if m != nil && m[2] == "" {
			t.Errorf("go.mod: %s has no reason beside it", m[1])
		}
	}
}

func TestPackageFoldersAreNotDumps(t *testing.T) {
	top := root(t) // its name is the user's
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && path != top {
			switch d.Name() {
			case ".git", "bin", "build":
				return filepath.SkipDir
			case "util", "utils", "common", "manager", "helper", "helpers", "misc":
				t.Errorf("%s: a folder is named after what it holds", path)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func under(pkg, prefix string) bool { return pkg == prefix || strings.HasPrefix(pkg, prefix+"/") }

func root(t *testing.T) string {
	t.Helper()
	return filepath.Dir(lines(t, "go", "env", "GOMOD")[0])
}

func lines(t *testing.T, name string, args ...string) []string {
	t.Helper()
	cmd := exec.Command(name, args...)
	if name != "go" || args[0] != "env" {
		cmd.Dir = root(t)
	}
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v", name, strings.Join(args, " "), err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}
