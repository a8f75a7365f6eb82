.PHONY: tools
tools: ## docker, docker-buildx and docker-compose, into bin/
	@go run ./guestd/image/cmd/mkimage -bin $(BIN) tools
