#!/usr/bin/env bash
# Runs the tests that boot a real VM, as an ordinary user: root hides what users meet. As root it
# makes a user cove-test for that and lets the user see copies of what was built, nothing else.
#
# There are two lanes, each with a home and a VM of its own. As root they run side by side, because a VM and its test
# wait for each other much of the time; the second has a network of its own then, so that neither meets the other's
# ports. E2E_RUN picks tests, and then there is one lane.
set -euo pipefail
cd "$(dirname "$0")/.."
timeout=${E2E_TIMEOUT:-45m}
# What the second lane runs, and the first does not: what sleeps, waits and breaks things.
second='^Test(Soak|KilledWhileSuspending|AnIdleEngineSleeps|Memory|Swap|Z)'
work=$(mktemp -d /tmp/cove-e2e.XXXXXX) # short: socket paths are limited
# A test binary that crashed leaves its coved behind, which ends its VM in order.
finish() {
	[ -z "${lane2:-}" ] || kill -- "-$lane2" 2>/dev/null || true
	wait
	for lock in "$work"/*/h*/run/coved.lock; do
		pid=$(cat "$lock" 2>/dev/null) || continue
		case $(readlink "/proc/$pid/exe" 2>/dev/null) in "$work"/*) ;; *) continue ;; esac
		kill "$pid"
		while [ -e "/proc/$pid" ]; do sleep 0.2; done
	done
	for full in "$work"/*/small "$work"/*/tight; do mountpoint -q "$full" && umount "$full"; done
	rm -rf "$work"
}
trap finish EXIT

go test -c -tags e2e -o "$work/e2e.test" ./app/e2e
go test -c -tags e2e -o "$work/qemu.test" ./vmhost/qemu
CGO_ENABLED=0 go build -trimpath -o "$work/probe" ./app/e2e/probe
install "$(go -C app/internal/testregistry/distribution tool -n distribution)" "$work/registry" # as the unit tests have it
mkdir "$work/1" "$work/1/bin"
cp -a --reflink=auto bin/. "$work/1/bin/"
cp "$work/probe" /bin/busybox "$work/1/"
cp -al "$work/1" "$work/2"

# as_user LANE CMD... runs a command of ours as an ordinary user.
settings() { echo COVE_E2E="$work/$1" COVE_IMAGE_DIR="$work/$1/bin/image" COVE_ACCELERATOR=tcg COVE_TEST_REGISTRY="$work/registry" SOAK="${SOAK:-}"; }
as_user() { env $(settings "$1") "${@:2}"; }
beside= # whether the lanes run side by side
if [ "$(id -u)" = 0 ]; then
	id cove-test >/dev/null 2>&1 || useradd --create-home --shell /bin/bash cove-test
	# File systems that are soon full, for the tests of sharing and for a data disk. They are in the temporary
	# folder, which is shared.
	for lane in 1 2; do
		mkdir "$work/$lane/small" && mount -t tmpfs -o "size=4m,mode=0777" cove-e2e "$work/$lane/small"
		mkdir "$work/$lane/tight" && mount -t tmpfs -o "size=640m,mode=0777" cove-e2e "$work/$lane/tight"
	done
	chown -R cove-test: "$work"
	cd "$work"
	beside=yes
	as_user() {
		local apart=()
		[ "$1" = 1 ] || apart=(unshare --net sh -c '/bin/busybox ip link set lo up && exec "$@"' sh)
		"${apart[@]}" runuser -u cove-test -- env -i HOME=/home/cove-test PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin TMPDIR="$work/$1" $(settings "$1") "${@:2}"
	}
fi
e2e() { as_user "$1" "$work/e2e.test" -test.v -test.timeout "$timeout" "${@:2}"; }
if [ -n "${E2E_RUN:-}" ]; then
	e2e 1 -test.run "$E2E_RUN"
	exit
fi
# The second lane's lines are marked, so that both can be followed.
second_lane() { e2e 2 -test.run "$second" 2>&1 | sed -u 's/^/2| /'; }
failed=0
if [ -n "$beside" ]; then
	set -m # a process group of its own, to be ended as one
	second_lane &
	lane2=$!
	set +m
else
	second_lane || failed=1
fi
e2e 1 -test.skip "$second" || failed=1
# The contract of a machine on the real QEMU; that accelerators are proven the tests above have shown.
as_user 1 "$work/qemu.test" -test.v -test.timeout 20m -test.run '^TestContract$' || failed=1
[ -z "$beside" ] || wait "$lane2" || failed=1
exit $failed
