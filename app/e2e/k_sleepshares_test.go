//go:build e2e && linux

package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// holder has files open and works in a folder, and says what it sees of them when /w/ask is there.
const holder = `cd /w/dir; exec 3</w/same 4</w/changed 5</w/replaced 6</w/deleted 7>>/w/log
cat <&3 <&4 >/dev/null; i=0
while :; do
	i=$((i+1)); echo $i >&7
	if [ -e /w/ask ]; then
		for n in 3 4 5 6; do echo open $n: $(cat <&$n 2>&1); done
		for f in same changed replaced deleted; do echo name $f: $(cat /w/$f 2>&1); done
		echo work: $(cat f 2>&1)
		rm /w/ask
	fi
	sleep 0.1
done`

// A container with open files and a working folder on a share goes on after a sleep, and of what the host did
// meanwhile it sees what a network file system shows: new content, a stale handle, or the new file.
func TestContainersOnASharedFolderGoOnAfterASleep(t *testing.T) {
	dir := shared(t)
	for _, f := range []string{"same", "changed", "replaced", "deleted", "dir/f"} {
		write(t, filepath.Join(dir, f), "old\n")
	}
	output(t, docker("run", "-d", "--name", "holder", "-v", dir+":/w", image, "sh", "-c", holder))
	t.Cleanup(func() { docker("rm", "-f", "holder").Run() })
	log := filepath.Join(dir, "log")
	beats := func() int {
		b, _ := os.ReadFile(log)
		return strings.Count(string(b), "\n")
	}
	eventually(t, "a container that writes", func() bool { return beats() > 2 })
	was := begun(t, "holder")
	suspend(t)
	asleep := beats()

	write(t, filepath.Join(dir, "changed"), "new\n") // in place
	write(t, filepath.Join(dir, "other"), "new\n")
	for _, err := range []error{os.Rename(filepath.Join(dir, "other"), filepath.Join(dir, "replaced")), os.Remove(filepath.Join(dir, "deleted"))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(dir, "ask"), "")
	output(t, cove("start"))
	eventually(t, "a container that says what it sees", func() bool {
		_, err := os.Stat(filepath.Join(dir, "ask"))
		return errors.Is(err, os.ErrNotExist)
	})
	said := output(t, docker("logs", "holder"))
	for _, want := range []string{"open 5: cat: read error: Stale file handle", "open 6: cat: read error: Stale file handle",
		"name same: old", "name changed: new", "name replaced: new", "name deleted: cat: can't open '/w/deleted': No such file or directory", "work: old"} {
		if !strings.Contains(said, want+"\n") {
			t.Errorf("the container did not say %q, but\n%s", want, said)
		}
	}
	eventually(t, "a container that goes on to write", func() bool { return beats() > asleep+2 })
	if b := read(t, log); !strings.HasPrefix(b, "1\n2\n3\n") || strings.Contains(b, "\x00") {
		t.Errorf("the log begins anew or has holes:\n%s", b)
	}
	if is := begun(t, "holder"); is != was {
		t.Errorf("the container was started at %s; want %s, before the sleep", is, was)
	}
}
