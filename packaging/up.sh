#!/usr/bin/env bash
# The end of `make up`: boots the VM and runs a first container through the forwarded socket, with an
# image made on the spot, so that it works with no registry in reach.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$PWD/bin
home=${COVE_HOME:-$HOME/.cove}

echo "==> cove start"
"$bin/cove" start

echo "==> a container through $home/run/docker.sock"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$work/hello" ./packaging/hello
docker=("$bin/docker" --host "unix://$home/run/docker.sock")
tar -C "$work" -c hello | "${docker[@]}" import --change 'ENTRYPOINT ["/hello"]' - cove/hello:latest >/dev/null
"${docker[@]}" run --rm cove/hello:latest
echo
echo "The engine runs. Use it with $bin/docker --context cove, or any docker CLI with"
echo "    export DOCKER_HOST=unix://$home/run/docker.sock"
echo "Stop it with $bin/cove stop."
