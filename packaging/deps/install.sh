#!/usr/bin/env bash
# Installs what building and running Cove needs on Debian 12 or newer, and says what. What is there
# already is left alone, so a second run does nothing. Root is needed only when something is missing.
set -euo pipefail

# Each package with a file or command that shows it is there.
declare -A want=(
	[gcc]=/usr/bin/gcc [libc6-dev]=/usr/include/stdio.h [make]=/usr/bin/make [git]=/usr/bin/git
	[ca-certificates]=/etc/ssl/certs/ca-certificates.crt [debian-archive-keyring]=/usr/share/keyrings/debian-archive-keyring.gpg
	[erofs-utils]=/usr/bin/mkfs.erofs [kmod]=/usr/sbin/depmod [xz-utils]=/usr/bin/xz
	[busybox-static]=/bin/busybox [iproute2]=/usr/bin/ss [procps]=/usr/bin/pgrep [openssh-client]=/usr/bin/ssh-agent
	[gnome-keyring]=/usr/bin/gnome-keyring-daemon [dbus-daemon]=/usr/bin/dbus-daemon [libsecret-tools]=/usr/bin/secret-tool
	[pass]=/usr/bin/pass [gnupg]=/usr/bin/gpg
	[libgl-dev]=/usr/include/GL/gl.h [libx11-dev]=/usr/include/X11/Xlib.h [libxcursor-dev]=/usr/include/X11/Xcursor/Xcursor.h
	[libxrandr-dev]=/usr/include/X11/extensions/Xrandr.h [libxinerama-dev]=/usr/include/X11/extensions/Xinerama.h
	[libxi-dev]=/usr/include/X11/extensions/XInput2.h [libxxf86vm-dev]=/usr/include/X11/extensions/xf86vmode.h
	[libxkbcommon-dev]=/usr/include/xkbcommon/xkbcommon.h [libwayland-dev]=/usr/include/wayland-client.h
	[xvfb]=/usr/bin/Xvfb [xdotool]=/usr/bin/xdotool [imagemagick]=/usr/bin/import [libgl1-mesa-dri]=/usr/share/doc/libgl1-mesa-dri
	[pkg-config]=/usr/bin/pkg-config [libseccomp-dev]=/usr/include/seccomp.h
)
missing=()
for p in "${!want[@]}"; do [ -e "${want[$p]}" ] || missing+=("$p"); done

# QEMU before 8 corrupts the memory of guests under software emulation.
qemu_major() { qemu-system-x86_64 --version 2>/dev/null | sed -n 's/^QEMU emulator version \([0-9]*\).*/\1/p'; }
have=$(qemu_major || true)
qemu=()
if [ "${have:-0}" -lt 8 ] || ! command -v qemu-img >/dev/null; then qemu=(qemu-system-x86 qemu-utils); fi
[ ${#missing[@]} -eq 0 ] && [ ${#qemu[@]} -eq 0 ] && exit 0

command -v apt-get >/dev/null || { echo "This is not a Debian system. Install by hand: QEMU 8 or newer, ${!want[*]}" >&2; exit 1; }
sudo=()
if [ "$(id -u)" != 0 ]; then sudo=(sudo); fi
apt=("${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends)

# Only Debian's own sources are asked: another source that is broken is none of our business.
echo "==> packages missing: ${missing[*]} ${qemu[*]}"
. /etc/os-release
lists() { "${apt[@]}" update -o Dir::Etc::sourcelist="$1" -o Dir::Etc::sourceparts=- -o APT::Get::List-Cleanup=0; }
for f in /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources; do
	if [ -s "$f" ]; then lists "$f"; fi
done
[ ${#missing[@]} -eq 0 ] || "${apt[@]}" install "${missing[@]}"

if [ ${#qemu[@]} -gt 0 ]; then
	target=()
	if ! apt-cache policy qemu-system-x86 | sed -n 's/.*Candidate: \([0-9]*:\)\?\([0-9]*\).*/\2/p' | grep -qE '^([89]|[1-9][0-9])$'; then
		suite=$VERSION_CODENAME-backports
		echo "==> this release's QEMU is too old; taking it from $suite"
		mirror=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' | sed -n "s/^$VERSION_CODENAME //p" | head -n 1)
		file=/etc/apt/sources.list.d/cove-backports.sources
		printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n' "$mirror" "$suite" | "${sudo[@]}" tee "$file" >/dev/null
		lists "$file"
		target=(-t "$suite")
	fi
	"${apt[@]}" install "${target[@]}" "${qemu[@]}"
fi
have=$(qemu_major)
[ "${have:-0}" -ge 8 ] || { echo "QEMU ${have:-is missing}: 8 or newer is needed, and no source of this machine has it." >&2; exit 1; }
echo "==> packages are there; QEMU $have"
