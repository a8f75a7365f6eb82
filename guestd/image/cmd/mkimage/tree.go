package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// applets are what a person in a root shell misses when nothing but the packages is there; busybox
// gives those that no package brings.
var applets = strings.Fields(`awk basename bc cat chgrp chmod chown chroot clear cmp cp cut date dd df diff dirname
du echo egrep env expr false fgrep find fold free grep groups gunzip gzip halt head hexdump hostname id ifconfig install kill
killall less ln ls lsof md5sum mkdir mkfifo mknod mktemp more mv nc netstat nice nohup nproc nslookup od paste patch pgrep pidof ping
ping6 pkill printf ps pstree pwd readlink realpath reboot rev rm rmdir route sed seq sha256sum sh sleep sort split stat
strings stty su sync tail tar tee telnet test time timeout top touch tr traceroute true truncate tty uname uniq unzip
uptime usleep vi watch wc wget which who whoami xargs yes zcat`)

// prune is what the guest has no use for: documents, translations, what only a boot loader or a
// desktop needs, and scripts in languages that are not there.
var prune = []string{
	"usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/lintian", "usr/share/bash-completion", "usr/share/bug",
	"usr/share/common-licenses", "usr/share/pixmaps", "usr/share/menu", "usr/share/zsh", "usr/share/initramfs-tools", "usr/share/gitweb",
	"usr/share/git-core/contrib", "usr/share/perl5", "usr/lib/systemd", "etc/systemd", "etc/init.d", "etc/cron.daily", "etc/cron.weekly", "etc/kernel", "etc/rc2.d",
	"usr/lib/git-core/git-http-push", "usr/lib/git-core/git-imap-send", "usr/lib/git-core/git-daemon", "usr/lib/git-core/git-instaweb",
	"usr/lib/git-core/git-gui", "usr/lib/git-core/scalar", "usr/lib/git-core/git-http-backend", "usr/lib/git-core/git-shell",
	"usr/lib/openssh/ssh-sk-helper", "usr/bin/ssh-keyscan", "boot", "var", "run", "tmp", "lib64/.keep", "usr/lib/x86_64-linux-gnu/gconv", "usr/lib/aarch64-linux-gnu/gconv",
}

// emptyFolders are where something is mounted or written in a running guest.
var emptyFolders = []string{"proc", "sys", "dev", "run", "tmp", "var", "mnt", "root", "home", "opt/cni/bin", "opt/containerd", "data", "srv", "media", "usr/local/bin", "usr/libexec"}

// links point from the read-only root to what a running guest writes (guestd/internal/boot.RunDir).
var links = map[string]string{
	"etc/resolv.conf": "/run/cove/resolv.conf",
	"etc/hosts":       "/run/cove/hosts",
	"etc/hostname":    "/run/cove/hostname",
	"etc/docker":      "/run/cove/docker",
	"etc/containerd":  "/run/cove/containerd",
	"etc/cni":         "/var/lib/cove/cni",
	"etc/mtab":        "/proc/self/mounts",
	"usr/local/sbin":  "bin",
	// Swarm's routing mesh asks for these in its own network namespaces, whatever the firewall back end.
	"usr/sbin/iptables":  "xtables-nft-multi",
	"usr/sbin/ip6tables": "xtables-nft-multi",
}

// texts are files of our own.
var texts = map[string]string{
	"etc/passwd":        "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
	"etc/group":         "root:x:0:\ntty:x:5:\ndisk:x:6:\nkmem:x:15:\ndocker:x:999:\nnogroup:x:65534:\n",
	"etc/shadow":        "root:*:1:0:99999:7:::\nnobody:*:1:0:99999:7:::\n",
	"etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
	"etc/profile":       "export PATH=/usr/sbin:/usr/bin:/sbin:/bin\nexport PS1='cove:\\w# '\nexport HOME=/root\nalias ll='ls -l'\n",
	"etc/subuid":        "dockremap:100000:65536\n",
	"etc/subgid":        "dockremap:100000:65536\n",
	"etc/gitconfig":     "[safe]\n\tdirectory = *\n",
}

// unpackTree makes the root's tree from the packages. No maintainer script runs; what they would have
// done and the guest needs is done here.
func unpackTree(ctx context.Context, o options, debs []deb, tree string) error {
	defer stage("unpack %d packages", len(debs))()
	for _, dir := range []string{"usr/bin", "usr/sbin", "usr/lib", "usr/lib64"} {
		if err := os.MkdirAll(filepath.Join(tree, dir), 0o755); err != nil {
			return err
		}
	}
	for _, dir := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.Symlink("usr/"+dir, filepath.Join(tree, dir)); err != nil {
			return err
		}
	}
	for _, d := range debs {
		// tar keeps the links to usr: a package that brings /lib as a folder must not replace them.
		script := `dpkg-deb --fsys-tarfile "$1" | tar -x -C "$2" --keep-directory-symlink --no-same-owner --delay-directory-restore`
		if out, err := exec.CommandContext(ctx, "bash", "-o", "pipefail", "-c", script, "unpack", debPath(o, d), tree).CombinedOutput(); err != nil {
			return fmt.Errorf("unpack %s: %w: %s", d.Name, err, out)
		}
	}
	if err := os.Rename(filepath.Join(tree, "boot"), tree+".boot"); err != nil {
		return err
	}
	for _, p := range prune {
		if err := os.RemoveAll(filepath.Join(tree, p)); err != nil {
			return err
		}
	}
	if err := pruneScripts(tree); err != nil {
		return err
	}
	for _, dir := range emptyFolders {
		if err := os.MkdirAll(filepath.Join(tree, dir), 0o755); err != nil {
			return err
		}
	}
	for name, target := range links {
		os.RemoveAll(filepath.Join(tree, name))
		if err := os.Symlink(target, filepath.Join(tree, name)); err != nil {
			return err
		}
	}
	for name, text := range texts {
		os.Remove(filepath.Join(tree, name))
		if err := os.WriteFile(filepath.Join(tree, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := os.Chmod(filepath.Join(tree, "etc/shadow"), 0o600); err != nil {
		return err
	}
	for _, a := range applets {
		if !exists(tree, "usr/bin/"+a) && !exists(tree, "usr/sbin/"+a) {
			if err := os.Symlink("busybox", filepath.Join(tree, "usr/bin", a)); err != nil {
				return err
			}
		}
	}
	// dockerd looks for its init by this name.
	if err := os.Symlink("tini-static", filepath.Join(tree, "usr/bin/docker-init")); err != nil {
		return err
	}
	return certificates(tree)
}

func exists(tree, name string) bool {
	_, err := os.Lstat(filepath.Join(tree, name))
	return err == nil
}

// pruneScripts removes Perl and Python scripts, whose interpreters are not there.
func pruneScripts(tree string) error {
	return filepath.WalkDir(filepath.Join(tree, "usr"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		head := make([]byte, 40)
		n, _ := f.Read(head)
		f.Close()
		line, _, _ := strings.Cut(string(head[:n]), "\n")
		if strings.HasPrefix(line, "#!") && (strings.Contains(line, "perl") || strings.Contains(line, "python")) {
			return os.Remove(path)
		}
		return nil
	})
}

// certificates joins the authorities' certificates as update-ca-certificates does.
func certificates(tree string) error {
	names, err := filepath.Glob(filepath.Join(tree, "usr/share/ca-certificates/mozilla/*.crt"))
	if err != nil || len(names) == 0 {
		return fmt.Errorf("no certificates of authorities in the packages (%v)", err)
	}
	slices.Sort(names)
	var all []byte
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil {
			return err
		}
		all = append(all, b...)
	}
	dir := filepath.Join(tree, "etc/ssl/certs")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "ca-certificates.crt"), all, 0o644)
}
