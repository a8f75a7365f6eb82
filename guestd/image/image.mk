GUEST_ARCH ?= $(shell go env GOARCH)
MKIMAGE = go run ./guestd/image/cmd/mkimage -arch $(GUEST_ARCH) -bin $(BIN)

.PHONY: image image-lock image-repro image-pack programs
image: ## The guest image: bin/image
	@$(MKIMAGE) image

programs: ## The engine's programs, into the cache
	@$(MKIMAGE) programs

image-pack: ## The guest image as it is distributed: bin/cove-guest-ARCH.tar.zst
	@$(MKIMAGE) pack

image-lock: ## Lock the guest's packages to the archive's current versions
	@$(MKIMAGE) lock

image-repro: ## Make the guest image twice and compare
	@$(MKIMAGE) repro
