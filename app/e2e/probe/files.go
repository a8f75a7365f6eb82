//go:build linux

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// record prints what inotify says of a folder, after the line "watching", until a name was made.
// Equal neighbours are one line: the kernel merges them when it can.
func record(dir, last string) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		fail(err.Error())
	}
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_DELETE|unix.IN_MOVE|unix.IN_MODIFY|unix.IN_ATTRIB|unix.IN_CLOSE_WRITE); err != nil {
		fail(err.Error())
	}
	fmt.Println("watching")
	names := map[uint32]string{unix.IN_CREATE: "create", unix.IN_DELETE: "delete", unix.IN_MOVED_FROM: "from", unix.IN_MOVED_TO: "to",
		unix.IN_MODIFY: "modify", unix.IN_ATTRIB: "attrib", unix.IN_CLOSE_WRITE: "written", unix.IN_Q_OVERFLOW: "OVERFLOW"}
	cookies := map[uint32]int{}
	before := ""
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.Read(fd, buf)
		if err != nil {
			fail(err.Error())
		}
		for b := buf[:n]; len(b) > 0; {
			size := 16 + binary.NativeEndian.Uint32(b[12:])
			mask, cookie := binary.NativeEndian.Uint32(b[4:]), binary.NativeEndian.Uint32(b[8:])
			name := string(bytes.TrimRight(b[16:size], "\x00"))
			b = b[size:]
			line := names[mask&(unix.IN_ALL_EVENTS|unix.IN_Q_OVERFLOW)] + " " + name
			if cookie != 0 {
				if _, known := cookies[cookie]; !known {
					cookies[cookie] = len(cookies)
				}
				line += fmt.Sprintf(" #%d", cookies[cookie])
			}
			if line != before {
				fmt.Println(line)
			}
			before = line
			if mask&unix.IN_CREATE != 0 && name == last {
				return
			}
		}
	}
}

// lock takes a lock on a file, says so, and holds it until standard input ends. With try it says whether
// it could.
func lock(kind, path string, try bool) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		fail(err.Error())
	}
	if kind == "flock" {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	} else {
		err = unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	}
	switch {
	case err == nil && try:
		fmt.Println("free")
	case err == nil:
		fmt.Println("held")
		os.Stdin.Read(make([]byte, 1))
	case errors.Is(err, unix.EAGAIN):
		fmt.Println("taken")
	default:
		fail(err.Error())
	}
}

// files does in a folder what programs do with files, and prints what they see: the same on every good
// file system.
func files(d string) {
	say := func(what string, v ...any) { fmt.Println(what, fmt.Sprintln(v...)) }
	look := func(path string) string {
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err.Error()
		}
		return fmt.Sprintf("%o %d %d links %d size %d", st.Mode, st.Uid, st.Gid, st.Nlink, st.Size)
	}
	f := d + "/f"
	say("make", os.WriteFile(f, []byte("hello"), 0o640), look(f))
	say("chmod 4755", unix.Chmod(f, 0o4755), look(f))
	say("chown", unix.Chown(f, 123, 456), look(f))
	say("chmod 0", unix.Chmod(f, 0), look(f))
	b, err := os.ReadFile(f)
	say("read", string(b), err)
	say("link", unix.Link(f, d+"/g"), look(f), look(d+"/g"))
	say("symlink", unix.Symlink("../../../../../../../../etc/passwd", d+"/up"))
	b, err = os.ReadFile(d + "/up")
	say("followed in the container", strings.HasPrefix(string(b), "root:x:0:0:root:/root:/bin/sh"), err)
	say("fifo", unix.Mkfifo(d+"/p", 0o600), look(d+"/p"))
	for _, name := range []string{strings.Repeat("n", 255), strings.Repeat("n", 256), "\xff\xfe", "a\nb", "ü:\\ "} {
		err := os.WriteFile(d+"/"+name, nil, 0o600)
		var e unix.Errno
		errors.As(err, &e)
		say("name of", len(name), e)
	}
	say("xattr", unix.Setxattr(d+"/g", "user.x", []byte("value"), 0))
	n, err := unix.Getxattr(d+"/g", "user.x", make([]byte, 10))
	say("xattr is", n, err)

	s, err := os.Create(d + "/sparse")
	if err != nil {
		fail(err.Error())
	}
	s.WriteAt([]byte("x"), 1<<30)
	data, err := unix.Seek(int(s.Fd()), 0, unix.SEEK_DATA)
	var st unix.Stat_t
	unix.Fstat(int(s.Fd()), &st)
	say("sparse", data, err, st.Size, st.Blocks < 1000)
	say("punch", unix.Fallocate(int(s.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 1<<30-4096, 8192))

	m, err := os.OpenFile(d+"/map", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		fail(err.Error())
	}
	m.Truncate(8192)
	mem, err := unix.Mmap(int(m.Fd()), 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	say("mmap", err)
	copy(mem[4000:], "mapped")
	say("msync", unix.Msync(mem, unix.MS_SYNC))
	b, err = os.ReadFile(d + "/map")
	say("mapped is written", len(b), bytes.Contains(b, []byte("mapped")), err)

	o, err := os.OpenFile(d+"/open", os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	say("open", err, os.Remove(d+"/open"))
	o.WriteString("still")
	o.WriteString(" here")
	b = make([]byte, 20)
	n, _ = o.ReadAt(b, 0)
	say("removed but open", string(b[:n]))
	at := unix.AT_FDCWD
	os.WriteFile(d+"/one", []byte("1"), 0o600)
	os.Mkdir(d+"/two", 0o755)
	say("rename", unix.Renameat2(at, d+"/one", at, d+"/two", unix.RENAME_NOREPLACE), unix.Renameat2(at, d+"/one", at, d+"/two", unix.RENAME_EXCHANGE), look(d+"/two"))
	say("fsync", o.Sync())
}
