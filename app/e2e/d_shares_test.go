//go:build e2e && linux

package e2e

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// shared makes a folder in the temporary folder, which is shared unless a setting says otherwise.
func shared(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(world.work, "share")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// What both sides write, the other reads, by every way to mount it; the paths are the host's.
func TestMountsOfTheHost(t *testing.T) {
	dir := shared(t)
	write(t, filepath.Join(dir, "in"), "from the host\n")
	for _, row := range []struct {
		says string
		args []string
	}{
		{"a bind", []string{"-v", dir + ":/x"}},
		{"a mount", []string{"--mount", "type=bind,src=" + dir + ",dst=/x"}},
		{"a volume that is a bind", []string{"--mount", `type=volume,dst=/x,volume-opt=type=none,volume-opt=o=bind,volume-opt=device=` + dir}},
	} {
		t.Run(row.says, func(t *testing.T) {
			args := append(append([]string{"run", "--rm"}, row.args...), image, "sh", "-c", "cat /x/in && echo from the container > /x/out && mkdir -p /x/new/folder")
			if got := output(t, docker(args...)); got != "from the host\n" {
				t.Errorf("the container read %q; want what the host wrote", got)
			}
			out := filepath.Join(dir, "out")
			if got := read(t, out); got != "from the container\n" {
				t.Errorf("the host read %q; want what the container wrote", got)
			}
			var st unix.Stat_t
			if err := unix.Stat(out, &st); err != nil || int(st.Uid) != os.Getuid() {
				t.Errorf("the container's file belongs to %d (%v); want the user, %d", st.Uid, err, os.Getuid())
			}
			os.Remove(out)
			os.RemoveAll(filepath.Join(dir, "new"))
		})
	}
	t.Run("a file", func(t *testing.T) {
		if got := output(t, docker("run", "--rm", "-v", dir+"/in:/etc/in:ro", image, "cat", "/etc/in")); got != "from the host\n" {
			t.Errorf("the container read %q", got)
		}
	})
	t.Run("a folder whose name is two lines", func(t *testing.T) {
		write(t, filepath.Join(dir, "two\nlines", "in"), "from the host\n")
		if got := output(t, docker("run", "--rm", "-v", dir+"/two\nlines:/x", image, "cat", "/x/in")); got != "from the host\n" {
			t.Errorf("the container read %q", got)
		}
	})
	t.Run("inspect says the host's path", func(t *testing.T) {
		output(t, docker("create", "--name", "where", "-v", dir+":/x", image))
		defer docker("rm", "-f", "where").Run()
		if got := strings.TrimSpace(output(t, docker("inspect", "-f", "{{(index .Mounts 0).Source}}", "where"))); got != dir {
			t.Errorf("inspect names %q; want %q", got, dir)
		}
	})
	t.Run("a file that is changed on the host is seen in a container that runs", func(t *testing.T) {
		output(t, docker("run", "-d", "--name", "watcher", "-v", dir+":/x", image, "sleep", "600"))
		defer docker("rm", "-f", "watcher").Run()
		output(t, docker("exec", "watcher", "cat", "/x/in"))
		write(t, filepath.Join(dir, "in"), "changed\n")
		eventually(t, "the container reads what the host changed", func() bool {
			return output(t, docker("exec", "watcher", "cat", "/x/in")) == "changed\n"
		})
	})
}

func TestComposeMountsARelativeFolder(t *testing.T) {
	dir := shared(t)
	write(t, filepath.Join(dir, "src", "index.html"), "a page\n")
	write(t, filepath.Join(dir, "compose.yaml"), "services:\n  web:\n    image: "+image+"\n    command: cat /src/index.html\n    volumes: ['./src:/src:ro']\n  missing:\n    image: "+image+"\n    volumes: ['./none:/src']\n")
	compose := func(args ...string) *exec.Cmd {
		return docker(append([]string{"compose", "-p", "shares", "-f", filepath.Join(dir, "compose.yaml")}, args...)...)
	}
	defer compose("down", "-t", "0").Run()
	if got := output(t, compose("run", "--rm", "-T", "web")); got != "a page\n" {
		t.Errorf("the service read %q; want the page", got)
	}
	said, _ := failure(t, compose("run", "--rm", "-T", "missing"))
	contains(t, "compose", said, filepath.Join(dir, "none"), "does not exist")
}

// What is not shared or does not exist is refused by name, whatever asks for it, and nothing is made of it.
func TestMountsThatAreRefused(t *testing.T) {
	dir := shared(t)
	none := filepath.Join(dir, "none")
	os.Symlink("/srv", filepath.Join(dir, "out"))
	for _, row := range []struct {
		says string
		args []string
		want []string
	}{
		{"a bind of what is not shared", []string{"run", "--rm", "-v", "/srv:/x", image}, []string{"the host's /srv is not shared", "cove config set shares"}},
		{"a bind of what does not exist", []string{"run", "--rm", "-v", none + ":/x", image}, []string{none + " does not exist", "`shares`"}},
		{"a mount of what does not exist", []string{"run", "--rm", "--mount", "type=bind,src=" + none + ",dst=/x", image}, []string{none + " does not exist"}},
		{"a volume of what is not shared", []string{"volume", "create", "-o", "type=none", "-o", "o=bind", "-o", "device=/srv"}, []string{"the host's /srv is not shared"}},
		{"a link that leads out", []string{"run", "--rm", "-v", dir + "/out:/x", image}, []string{dir + "/out leads to /srv, which is not shared"}},
		{"the root", []string{"run", "--rm", "-v", "/:/x", image}, []string{"the host's / is not shared", "VM's own"}},
		{"the VM's own files", []string{"run", "--rm", "-v", "/etc:/x", image}, []string{"the host's /etc is not shared", "VM's own"}},
		{"a path with a colon", []string{"run", "--rm", "-v", dir + "/a:b:/x", image}, []string{dir + "/a"}},
		{"Cove's own folder", []string{"run", "--rm", "-v", world.home + "/run:/x", image}, []string{"is Cove's own"}},
	} {
		t.Run(row.says, func(t *testing.T) {
			said, _ := failure(t, docker(row.args...))
			contains(t, "docker "+strings.Join(row.args, " "), said, row.want...)
		})
	}
	if _, err := os.Stat(none); err == nil {
		t.Error("a refused mount made its folder")
	}
	for value, want := range map[string]string{none: none + " does not exist", dir + "/a\nb": "has a line break", "/etc": "/etc in the VM is the VM's own", dir + "/a:b": "has a colon", world.work + "/probe": "is not a folder"} {
		said, _ := failure(t, cove("config", "set", "shares", value))
		contains(t, "cove config set shares "+value, said, want)
	}
}

// A container is given the temporary folder, where Cove's own folder lies in the tests, hoping to rewrite the
// VM's disk, or to talk to the engine. It finds neither, and cannot take the place of what it does not see.
func TestCovesOwnFolderIsNotInAShare(t *testing.T) {
	name := filepath.Base(world.home)
	got := output(t, docker("run", "--rm", "-v", world.work+":/x", image, "sh", "-c", "ls /x/bin >/dev/null || exit 9; ls -a /x; for p in "+name+" "+name+"/run/docker.sock "+name+"/vm/default/data.raw "+name+"/settings.json; do [ -e /x/$p ] && echo reached $p; done; mkdir /x/"+name+" 2>&1; rm -rf /x/"+name+"; true"))
	for _, line := range strings.Split(got, "\n") {
		if line == name || strings.HasPrefix(line, "reached") {
			t.Errorf("the container sees %q", line)
		}
	}
	contains(t, "mkdir of the hidden name", got, "ermission denied")
	if _, err := os.Stat(filepath.Join(world.home, "run", "docker.sock")); err != nil {
		t.Errorf("what the container did reached Cove's folder: %v", err)
	}
}

// Unix sockets on a share lead from container to container. They are the VM's: neither side reaches the other's.
func TestUnixSocketsOnAShare(t *testing.T) {
	dir := shared(t)
	ran(t, "-v", dir+":/x", image, "probe", "echo", "/x/guest")
	if got := output(t, docker("run", "--rm", "-v", dir+":/x", image, "probe", "ask", "/x/guest", "by socket")); got != "by socket\n" {
		t.Errorf("by a socket on a share another container said %q", got)
	}
	if _, err := net.Dial("unix", filepath.Join(dir, "guest")); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a container's socket says %v to the host; want that it is refused", err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "host"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	said, _ := failure(t, docker("run", "--rm", "-v", dir+":/x", image, "probe", "engine", "/x/host", "/_ping"))
	contains(t, "a container at a socket of the host's", said, "refused")
}

// The guest's root is read-only for whoever gets it, though folders of the host stand in it.
func TestTheGuestsRootIsReadOnly(t *testing.T) {
	for _, dir := range []string{"/", "/usr", "/etc", "/home", "/opt"} {
		said, _ := failure(t, cove("shell", "--", "mkdir", filepath.Join(dir, "mine")))
		contains(t, "mkdir in "+dir, said, "Read-only file system")
	}
	if got := strings.TrimSpace(output(t, cove("shell", "--", "stat", "-c", "%a", "/run/cove/shares"))); got != "700" {
		t.Errorf("/run/cove/shares has the mode %s; want 700", got)
	}
}

// A full disk of the host is an error of the program that writes, and all goes on when there is room.
func TestAFullShare(t *testing.T) {
	small := filepath.Join(world.work, "small") // packaging/e2e.sh mounts 4 MiB there when it is root
	var fs unix.Statfs_t
	if err := unix.Statfs(small, &fs); err != nil || fs.Blocks*uint64(fs.Bsize) > 8<<20 {
		t.Skip("there is no small file system: mounting one needs root")
	}
	got := output(t, docker("run", "--rm", "-v", small+":/x", image, "sh", "-c", "dd if=/dev/zero of=/x/big bs=64k count=200 2>&1; echo status $?; rm /x/big; for i in 1 2 3 4 5 6 7 8 9; do echo again > /x/after && break; sleep 1; done; cat /x/after"))
	contains(t, "writing 12 MiB into 4", got, "No space left on device", "status 1", "again")
}

// sharesOfOnesOwn are three: one to read and write, one to read, one that is removed while a container has it and is
// not there at the next start.
func sharesOfOnesOwn(t *testing.T) (own, lost atStart) {
	keep, ro, gone := shared(t), shared(t), shared(t)
	write(t, filepath.Join(ro, "in"), "to read\n")
	write(t, filepath.Join(gone, "in"), "soon gone\n")
	set := func(t *testing.T) {
		output(t, cove("config", "set", "shares", strings.Join([]string{keep, ro + ":ro", gone}, ",")))
		contains(t, "cove config get shares", output(t, cove("config", "get", "shares")), ro+":ro")
	}
	own = atStart{
		says: "folders of one's own choice are shared",
		set:  set,
		seen: func(t *testing.T) { ownShares(t, keep, ro, gone) },
	}
	lost = atStart{
		says: "a share that is gone at the start costs a notice",
		keys: []string{"shares"},
		set:  func(*testing.T) {}, // it is set already, and could not be set again
		seen: func(t *testing.T) {
			contains(t, "cove status", output(t, cove("status")), gone+" is not shared: it does not exist")
			output(t, docker("run", "--rm", "-v", keep+":/x", image, "cat", "/x/f"))
		},
	}
	return own, lost
}

func ownShares(t *testing.T, keep, ro, gone string) {
	t.Run("a read-only share is read and not written", func(t *testing.T) {
		got := output(t, docker("run", "--rm", "-v", ro+":/x", image, "sh", "-c", "cat /x/in; echo more >> /x/in; rm -f /x/in; mkdir /x/d; true"))
		contains(t, "the container", got, "to read")
		said, _ := failure(t, docker("run", "--rm", "-v", ro+":/x", image, "sh", "-c", "touch /x/new"))
		contains(t, "touch", said, "Read-only file system")
		if got := read(t, filepath.Join(ro, "in")); got != "to read\n" {
			t.Errorf("the host's file is now %q", got)
		}
	})
	t.Run("what was shared by default is not any more", func(t *testing.T) {
		other := shared(t)
		said, _ := failure(t, docker("run", "--rm", "-v", other+":/x", image))
		contains(t, "docker run", said, "the host's "+other+" is not shared", keep)
	})
	t.Run("a share that is removed while it is mounted", func(t *testing.T) {
		output(t, docker("run", "-d", "--name", "orphan", "-v", gone+":/x", "-v", keep+":/keep", image, "sleep", "600"))
		defer docker("rm", "-f", "orphan").Run()
		output(t, docker("exec", "orphan", "cat", "/x/in"))
		if err := os.RemoveAll(gone); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the file is gone for the container", func() bool { return docker("exec", "orphan", "cat", "/x/in").Run() != nil })
		said, _ := failure(t, docker("exec", "orphan", "sh", "-c", "echo x > /x/new"))
		if !strings.Contains(said, "nonexistent directory") && !strings.Contains(said, "Stale") {
			t.Errorf("writing into a share that is gone says %q", said)
		}
		output(t, docker("exec", "orphan", "sh", "-c", "echo fine > /keep/f"))
		refused, _ := failure(t, docker("run", "--rm", "-v", gone+":/x", image))
		contains(t, "a new mount", refused, gone+" does not exist")
	})
}
