# Cove. `make up` sets the machine up, builds everything, boots the VM and runs a container in it;
# `make test` runs all tests. Both can be repeated: what is built is kept by the hash of its inputs.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
BIN ?= bin
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
PLATFORMS := linux/amd64 linux/arm64 windows/amd64 windows/arm64

include packaging/deps/deps.mk      # deps: what the machine needs, by the distribution's packages
include packaging/tools/tools.mk    # tools: docker, docker-buildx, docker-compose
include guestd/image/image.mk       # image, image-lock, image-repro: the guest

.PHONY: help
help: ## This list
	@awk -F':.*## ' '/^[a-z][a-z0-9-]*:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: up
up: deps build image ## Install what is missing, build, boot the VM, run a container
	@packaging/up.sh

.PHONY: build
build: deps programs-host window tools ## Every binary, into bin/

.PHONY: programs-host
programs-host:
	@echo "==> cove, coved, docker-credential-cove"
	@CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X github.com/covedesk/cove/app/internal/build.Version=$(VERSION) -X github.com/docker/docker-credential-helpers/credentials.Version=$(VERSION)" \
		-o $(BIN)/ ./app/cmd/... ./credhelper/cmd/...

# With cgo for the display. One set of flags for everybody: a second one would compile Fyne's C a second time, minutes.
.PHONY: window
window: ## bin/cove-desktop
	@echo "==> cove-desktop"
	@CGO_ENABLED=1 go build -trimpath -tags desktop -ldflags "-s -w" -o $(BIN)/ ./ui/cmd/cove-desktop

.PHONY: test
test: deps build image test-unit test-e2e ## All tests, the ones that boot a VM included

.PHONY: test-unit
test-unit: ## The tests that boot nothing
	@echo "==> vet"
	@go vet -trimpath ./...
	@echo "==> tests that boot nothing"
	@go test ./...

.PHONY: test-race
test-race: ## The same with the race detector, for the packages where goroutines meet
	@CGO_ENABLED=1 go test -race ./ui/... ./proxy/... ./app/... ./credhelper/keystore ./vmhost/fakevm/... ./vmhost/qemu/... ./vmhost/netstack/... ./vmhost/share/... ./guestd/internal/supervise/... ./guestd/internal/mounts

.PHONY: test-e2e
test-e2e: ## The tests that boot a real VM, run as an ordinary user
	@echo "==> tests on a real VM"
	@packaging/e2e.sh

SOAK ?= 1000
.PHONY: soak
soak: deps build image ## The engine sleeps and wakes SOAK times under an application and a client
	@SOAK=$(SOAK) E2E_RUN='^TestSoak$$' E2E_TIMEOUT=10h packaging/e2e.sh

# With -trimpath a clone in another folder finds in Go's cache what this one has built.
.PHONY: cross
cross: ## Build for every platform without cgo, and type-check macOS with cgo
	@for p in $(PLATFORMS); do echo "==> $$p"; \
		GOOS=$${p%/*} GOARCH=$${p#*/} CGO_ENABLED=0 go build -trimpath -o /dev/null ./... ; done
	@echo "==> darwin/arm64, cgo files included (types only)"
	@go run ./packaging/typecheck darwin/arm64 ./...

BENCH ?= .
.PHONY: bench
bench: deps build image ## Boot for real and print docs/performance.md's table; BENCH=REGEXP picks parts
	@go run ./app/internal/bench -bin $(BIN) -only '$(BENCH)'

.PHONY: ci-full
ci-full: test cross test-race image-repro fuzz ## What CI does and what does not fit in it

FUZZTIME ?= 30s
.PHONY: fuzz
fuzz: ## Every fuzz target for FUZZTIME
	@for p in $$(grep -rl '^func Fuzz' --include=*_test.go . | xargs -n1 dirname | sort -u); do \
		for f in $$(grep -ho '^func Fuzz[A-Za-z0-9_]*' $$p/*_test.go | sed 's/func //'); do \
			echo "==> $$p $$f"; go test $$p -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME); done; done

.PHONY: clean
clean: ## Remove bin/ and build/; the cache of built things stays
	@rm -rf $(BIN) build
