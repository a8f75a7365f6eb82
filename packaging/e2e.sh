#!/usr/bin/env bash
# Runs the tests that boot a real VM, as an ordinary user: root hides what users meet. As root it
# makes a user cove-test for that and lets the user see copies of what was built, nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."
run=${E2E_RUN:-.}
timeout=${E2E_TIMEOUT:-45m}
work=$(mktemp -d /tmp/cove-e2e.XXXXXX) # short: socket paths are limited
# A test binary that crashed leaves its coved behind, which ends its VM in order.
finish() {
	for lock in "$work"/h*/run/coved.lock; do
		pid=$(cat "$lock" 2>/dev/null) || continue
		[ "$(readlink "/proc/$pid/exe" 2>/dev/null)" = "$work/bin/coved" ] || continue
		kill "$pid"
		while [ -e "/proc/$pid" ]; do sleep 0.2; done
	done
	for full in small tight; do mountpoint -q "$work/$full" && umount "$work/$full"; done
	rm -rf "$work"
}
trap finish EXIT

go test -c -tags e2e -o "$work/e2e.test" ./app/e2e
go test -c -tags e2e -o "$work/qemu.test" ./vmhost/qemu
CGO_ENABLED=0 go build -trimpath -o "$work/probe" ./app/e2e/probe
install "$(go -C app/internal/testregistry/distribution tool -n distribution)" "$work/registry" # as the unit tests have it
mkdir "$work/bin"
cp -a --reflink=auto bin/. "$work/bin/"
cp /bin/busybox "$work/busybox"

# as_user runs a command of ours as an ordinary user.
settings=(COVE_E2E="$work" COVE_IMAGE_DIR="$work/bin/image" COVE_ACCELERATOR=tcg COVE_TEST_REGISTRY="$work/registry" SOAK="${SOAK:-}")
as_user() { env "${settings[@]}" "$@"; }
if [ "$(id -u)" = 0 ]; then
	id cove-test >/dev/null 2>&1 || useradd --create-home --shell /bin/bash cove-test
	chown -R cove-test: "$work"
	# File systems that are soon full, for the tests of sharing and for a data disk. They are in the temporary
	# folder, which is shared.
	mkdir "$work/small" && mount -t tmpfs -o "size=4m,mode=0777" cove-e2e "$work/small"
	mkdir "$work/tight" && mount -t tmpfs -o "size=640m,mode=0777" cove-e2e "$work/tight"
	cd "$work"
	as_user() {
		runuser -u cove-test -- env -i HOME=/home/cove-test PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin TMPDIR="$work" "${settings[@]}" "$@"
	}
fi
as_user "$work/e2e.test" -test.v -test.timeout "$timeout" -test.run "$run"
# The contract of a machine on the real QEMU; that accelerators are proven the tests above have shown.
as_user "$work/qemu.test" -test.v -test.timeout 20m -test.run '^TestContract$'
