//go:build e2e && linux

package e2e

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newShare is a new folder that is shared by default: it is below the temporary folder.
func newShare(t *testing.T) string {
	t.Helper()
	d := t.TempDir()
	if err := os.Chmod(d, 0o700); err != nil {
		t.Fatal(err)
	}
	return d
}

// inShare runs a shell line in a container that has the folder at /w.
func inShare(user, dir, line string) *exec.Cmd {
	return docker("run", "--rm", "--user", user, "-v", dir+":/w", image, "sh", "-c", line)
}

func TestAnyUserWorksInASharedFolder(t *testing.T) {
	d := newShare(t)
	if err := os.WriteFile(filepath.Join(d, "host"), []byte("from the host"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := output(t, inShare("999:999", d, `cat /w/host; echo changed > /w/host; mkdir /w/d; echo new > /w/d/f; ls -ln /w/d`))
	contains(t, "the container", out, "from the host", " 999 ")
	for _, name := range []string{"host", "d", "d/f"} {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(d, name), &st); err != nil {
			t.Fatal(err)
		}
		if int(st.Uid) != os.Getuid() {
			t.Errorf("%s belongs to %d on the host; want the user, %d", name, st.Uid, os.Getuid())
		}
	}
	if b, err := os.ReadFile(filepath.Join(d, "host")); err != nil || string(b) != "changed\n" {
		t.Errorf("on the host: %q, %v", b, err)
	}
}

// What a database's image does at its start: root gives the data folder to the database's user and closes
// it to others; the database refuses to start unless that is what it sees.
func TestADatabasesFolderOnAShare(t *testing.T) {
	d := newShare(t)
	os.MkdirAll(filepath.Join(d, "data", "base"), 0o755)
	output(t, inShare("0", d, `busybox chown -R 999:998 /w/data && busybox chmod 700 /w/data`))
	out := output(t, inShare("999:998", d, `stat -c '%a %u %g' /w/data /w/data/base && cd /w/data && (umask 077; dd if=/dev/zero of=wal bs=64k count=32 conv=fsync) && busybox mv wal base/1 && stat -c '%a %u %g %s' base/1`))
	if want := "700 999 998\n755 999 998\n600 999 998 2097152\n"; out != want {
		t.Errorf("the database sees %q; want %q", out, want)
	}
	if out, _ := failure(t, inShare("1000", d, "ls /w/data")); !strings.Contains(out, "Permission denied") {
		t.Errorf("another user: %s", out)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(d, "data/base/1"), &st); err != nil || int(st.Uid) != os.Getuid() || st.Mode != unix.S_IFREG|0o600 {
		t.Errorf("on the host: uid %d, mode %o, %v", st.Uid, st.Mode, err)
	}
}

// The guest's own disk is the reference for what programs see.
func TestFilesOnAShareAreAsOnTheGuestsDisk(t *testing.T) {
	d := newShare(t)
	here := output(t, docker("run", "--rm", "-v", d+":/w", image, "probe", "files", "/w"))
	there := output(t, docker("run", "--rm", "-v", "cove-files:/w", image, "probe", "files", "/w"))
	output(t, docker("volume", "rm", "cove-files"))
	if here != there {
		t.Errorf("on the share:\n%s\non the guest's disk:\n%s", here, there)
	}
	if b, err := os.ReadFile(filepath.Join(d, "map")); err != nil || !strings.Contains(string(b), "mapped") {
		t.Errorf("what was mapped and synced is not on the host: %v", err)
	}
	if to, err := os.Readlink(filepath.Join(d, "up")); err != nil || !strings.HasPrefix(to, "../") {
		t.Errorf("the link on the host: %q, %v", to, err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(d, "f"), &st); err != nil || st.Mode&0o7000 != 0 || st.Mode&0o600 != 0o600 {
		t.Errorf("a file of mode 0 on the host: %o, %v; want its user to keep it", st.Mode, err)
	}
	if err := unix.Stat(filepath.Join(d, "sparse"), &st); err != nil || st.Size <= 1<<30 || st.Blocks > 1000 {
		t.Errorf("the sparse file on the host: %d bytes in %d blocks, %v", st.Size, st.Blocks, err)
	}
}

func TestLocksOnAShareHoldBetweenContainers(t *testing.T) {
	d := newShare(t)
	for _, kind := range []string{"flock", "posix"} {
		holder := docker("run", "--rm", "-i", "-v", d+":/w", image, "probe", "lock", kind, "/w/"+kind)
		in, err := holder.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := holder.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := holder.Start(); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "held\n" {
			t.Fatalf("%s: %q, %v", kind, line, err)
		}
		try := func() string {
			return output(t, docker("run", "--rm", "-v", d+":/w", image, "probe", "try-lock", kind, "/w/"+kind))
		}
		if got := try(); got != "taken\n" {
			t.Errorf("%s while another container holds it: %q", kind, got)
		}
		in.Close()
		if err := holder.Wait(); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		if got := try(); got != "free\n" {
			t.Errorf("%s afterwards: %q", kind, got)
		}
	}
}

// host1000 does 1,000 operations in a folder: what editors, compilers and version control do.
func host1000(d string) error {
	for i := range 100 {
		f := fmt.Sprintf("%s/f%d", d, i)
		for _, err := range []error{
			os.WriteFile(f, []byte("one"), 0o644),                  // made and written
			os.WriteFile(f+".tmp", []byte("two"), 0o644),           // an editor saves
			os.Rename(f+".tmp", f),                                 // over it
			os.Mkdir(f+".d", 0o755),                                // a folder
			os.Rename(f+".d", f+".e"),                              // renamed
			os.Symlink("x", f+".l"),                                // a link
			os.Chmod(f, 0o600),                                     // attributes
			os.Remove(f + ".e"), os.Remove(f + ".l"), os.Remove(f), // and all removed
		} {
			if err != nil {
				return err
			}
		}
	}
	return os.Mkdir(d+"/end", 0o755)
}

// Watchers in a container see what a local watcher sees. Contents and attributes of a file that is gone or
// renamed before they could be told are left out on both sides; names, their order and which two belong to
// one rename are not.
func TestTheHostsChangesReachWatchersInContainers(t *testing.T) {
	d, local := newShare(t), t.TempDir()
	native := recorder(t, exec.Command(filepath.Join(world.work, "probe"), "record", local, "end"))
	if err := host1000(local); err != nil {
		t.Fatal(err)
	}
	inside := recorder(t, docker("run", "--rm", "-v", d+":/w", image, "probe", "record", "/w", "end"))
	start := time.Now()
	if err := host1000(d); err != nil {
		t.Fatal(err)
	}
	want, got := native(), inside()
	t.Logf("1,000 operations: %d changes natively, %d in the container, after %.1f s", len(want), len(got), time.Since(start).Seconds())
	want, got = onlyNames(want), onlyNames(got)
	if !slices.Equal(want, got) {
		for i := range max(len(want), len(got)) {
			if i >= len(want) || i >= len(got) || want[i] != got[i] {
				t.Fatalf("from change %d on: natively %q, in the container %q", i, want[i:min(i+8, len(want))], got[i:min(i+8, len(got))])
			}
		}
	}
}

// Contents and attributes reach watchers as well, when the file stays.
func TestChangedContentReachesWatchersInContainers(t *testing.T) {
	d := newShare(t)
	f := filepath.Join(d, "f")
	os.WriteFile(f, []byte("old"), 0o644)
	inside := recorder(t, docker("run", "--rm", "-v", d+":/w", image, "probe", "record", "/w", "end"))
	os.WriteFile(f, []byte("new content"), 0o644)
	eventually(t, "the new content in a container", func() bool {
		return output(t, inShare("0", d, "cat /w/f")) == "new content"
	})
	os.Chmod(f, 0o600)
	os.Mkdir(filepath.Join(d, "end"), 0o755)
	contains(t, "the watcher", strings.Join(inside(), "\n"), "modify f", "written f", "attrib f", "create end")
}

// What a container does is not told to it once more.
func TestAContainersOwnChangesAreSeenOnce(t *testing.T) {
	d := newShare(t)
	line := `probe record %s end > /tmp/log & while ! grep -q watching /tmp/log; do sleep 0.1; done
		for i in 1 2 3 4 5 6 7 8 9 10; do echo x > %[1]s/f; echo y >> %[1]s/f; busybox mv %[1]s/f %[1]s/g; mkdir %[1]s/d; busybox rmdir %[1]s/d; rm %[1]s/g; done
		mkdir %[1]s/end; wait; cat /tmp/log`
	here := output(t, inShare("0", d, fmt.Sprintf(line, "/w")))
	there := output(t, inShare("0", d, "mkdir /tmp/x; "+fmt.Sprintf(line, "/tmp/x")))
	if here != there {
		t.Errorf("on the share:\n%s\nin the container's own folder:\n%s", here, there)
	}
}

// recorder starts a probe that records, waits until it watches, and gives what it saw when it has ended.
func recorder(t *testing.T, cmd *exec.Cmd) func() []string {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := bufio.NewScanner(out)
	if !s.Scan() || s.Text() != "watching" {
		t.Fatalf("%v: %q, %v", cmd.Args, s.Text(), s.Err())
	}
	return func() (all []string) {
		t.Helper()
		for s.Scan() {
			all = append(all, s.Text())
		}
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%v: %v", cmd.Args, err)
		}
		return all
	}
}

func onlyNames(all []string) []string {
	return slices.DeleteFunc(all, func(s string) bool {
		return strings.HasPrefix(s, "modify ") || strings.HasPrefix(s, "written ") || strings.HasPrefix(s, "attrib ")
	})
}
