//go:build linux

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/covedesk/cove/vmhost/guestimage"
)

// reference is a guest on QEMU's own user-mode network, with the same kernel, accelerator and card as
// Cove's, and with OpenSSH's server in it: what others are made of.
type reference struct {
	qemu   *exec.Cmd
	tunnel *exec.Cmd

	stream, flow string // QEMU's hostfwd to the guest's port 7
	mover        string // to its port 8
	throughSSH   string // ssh -L to its port 7
}

// startReference boots it.
func (b *bench) startReference(ctx context.Context, accel string) (*reference, error) {
	dir, err := os.MkdirTemp(b.work, "reference")
	if err != nil {
		return nil, err
	}
	if err := b.referenceRoot(ctx, dir); err != nil {
		return nil, err
	}
	var at [5]string
	for i := range at {
		at[i] = freeAddress()
	}
	r := &reference{stream: at[0], flow: at[1], mover: at[2], throughSSH: at[4]}
	forward := ""
	for _, f := range [][3]string{{"tcp", r.stream, "7"}, {"udp", r.flow, "7"}, {"tcp", r.mover, "8"}, {"tcp", at[3], "22"}} {
		forward += fmt.Sprintf(",hostfwd=%s:%s-:%s", f[0], f[1], f[2])
	}
	cpu := "max"
	if accel == "tcg" {
		cpu = "max,erms=off,fsrm=off" // as Cove's: vmhost/qemu says why
	}
	r.qemu = exec.CommandContext(ctx, "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-machine", "q35,vmport=off,smm=off,sata=off,smbus=off,usb=off,i8042=off", "-accel", accel, "-cpu", cpu, "-smp", "2", "-m", "1024",
		"-kernel", filepath.Join(b.bin, "image", guestimage.KernelFile), "-initrd", filepath.Join(dir, "initrd"), "-append", "console=ttyS0 panic=1 quiet",
		"-serial", "stdio", "-netdev", "user,id=net0,ipv6=off"+forward, "-device", "virtio-net-pci,netdev=net0,romfile=")
	out, err := r.qemu.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := r.qemu.Start(); err != nil {
		return nil, err
	}
	said := bufio.NewScanner(out)
	var all strings.Builder
	for said.Scan() {
		fmt.Fprintln(&all, said.Text())
		if strings.Contains(said.Text(), "reference ready") {
			go io.Copy(io.Discard, out)
			if err := r.openTunnel(ctx, dir, at[3]); err != nil {
				r.stop()
				return nil, err
			}
			return r, nil
		}
	}
	r.stop()
	return nil, fmt.Errorf("the reference guest ended: %s", all.String())
}

// openTunnel starts ssh -L and waits until it leads somewhere.
func (r *reference) openTunnel(ctx context.Context, dir, sshd string) error {
	if err := greets(ctx, sshd); err != nil {
		return err
	}
	_, port, _ := net.SplitHostPort(sshd)
	r.tunnel = exec.CommandContext(ctx, "ssh", "-N", "-L", r.throughSSH+":127.0.0.1:7", "-p", port, "-i", filepath.Join(dir, "key"),
		"-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "ExitOnForwardFailure=yes", "root@127.0.0.1")
	r.tunnel.Stderr = os.Stderr
	if err := r.tunnel.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- r.tunnel.Wait() }()
	for end := time.Now().Add(2 * time.Minute); ; {
		_, err := echoTimes("tcp", r.throughSSH, 1)
		if err == nil || time.Now().After(end) {
			return err
		}
		select {
		case err := <-ended:
			return fmt.Errorf("ssh -L ended: %w", err)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// greets waits until a server says something: QEMU takes connections before the guest does.
func greets(ctx context.Context, address string) error {
	for end := time.Now().Add(2 * time.Minute); ; {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.SetDeadline(time.Now().Add(10 * time.Second))
			_, err = c.Read(make([]byte, 1))
			c.Close()
		}
		if err == nil || time.Now().After(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (r *reference) stop() {
	if r.tunnel != nil && r.tunnel.Process != nil {
		r.tunnel.Process.Kill() // openTunnel waits for it
	}
	if r.qemu.Process.Kill() == nil { // once
		r.qemu.Wait()
	}
}

// freeAddress is one on loopback that nobody has, for TCP or UDP.
func freeAddress() string {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "127.0.0.1:0"
	}
	defer l.Close()
	return l.Addr().String()
}

const sshdConfig = `HostKey /etc/ssh/host
AuthorizedKeysFile /etc/ssh/authorized
StrictModes no
PermitRootLogin yes
AllowTcpForwarding yes
UsePAM no
`

// referenceRoot makes the guest's initial file system: ours with its modules, and over it another init and
// sshd with its libraries. sshd comes from the distribution's package, which is not installed.
func (b *bench) referenceRoot(ctx context.Context, dir string) error {
	root := filepath.Join(dir, "root")
	for _, d := range []string{"etc/ssh", "root"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return err
		}
	}
	files := map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/init\nsshd:x:1:1::/run/sshd:/bin/false\n", "etc/group": "root:x:0:\nsshd:x:1:\n",
		"etc/ssh/sshd_config": sshdConfig,
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	script := `set -e
apt-get download -q openssh-server libwrap0 >/dev/null 2>&1
for p in *.deb; do dpkg-deb -x "$p" unpacked; done
ssh-keygen -q -t ed25519 -N '' -f key
ssh-keygen -q -t ed25519 -N '' -f root/etc/ssh/host
cp key.pub root/etc/ssh/authorized
mkdir -p root/usr/sbin
cp unpacked/usr/sbin/sshd root/usr/sbin/
export LD_LIBRARY_PATH=$PWD/unpacked/lib/x86_64-linux-gnu:$PWD/unpacked/usr/lib/x86_64-linux-gnu
ldd root/usr/sbin/sshd | grep -o '/[^ ]*' | while read -r lib; do
	to=root/lib/x86_64-linux-gnu/$(basename "$lib")
	case $lib in /lib64/*) to=root$lib ;; esac
	mkdir -p "$(dirname "$to")"
	cp -L "$lib" "$to"
done
(cd root && find . | busybox cpio -o -H newc 2>/dev/null) > more
`
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", filepath.Join(root, "init"), "./app/internal/bench/refguest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the reference guest: %w: %s", err, out)
	}
	make := exec.CommandContext(ctx, "bash", "-c", script)
	make.Dir = dir
	if out, err := make.CombinedOutput(); err != nil {
		return fmt.Errorf("make the reference guest: %w: %s", err, out)
	}
	ours, err := os.ReadFile(filepath.Join(b.bin, "image", guestimage.InitrdFile))
	if err != nil {
		return err
	}
	more, err := os.ReadFile(filepath.Join(dir, "more"))
	if err != nil {
		return err
	}
	// A later archive's files replace an earlier one's (kernel: driver-api/early-userspace).
	return os.WriteFile(filepath.Join(dir, "initrd"), append(ours, more...), 0o600)
}
