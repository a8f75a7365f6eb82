GUEST_ARCH ?= $(shell go env GOARCH)
MKIMAGE = go run ./guestd/image/cmd/mkimage -arch $(GUEST_ARCH) -bin $(BIN)

.PHONY: image image-release image-lock image-repro
image: ## The guest image: bin/image
	@$(MKIMAGE) image

image-release: ## The guest image from the locked packages and nothing else
	@$(MKIMAGE) -release image

image-lock: ## Lock the guest's packages to the archive's current versions
	@$(MKIMAGE) lock

image-repro: ## Make the guest image twice and compare
	@$(MKIMAGE) repro
