.PHONY: deps
deps: ## Install what is missing from the distribution's packages
	@packaging/deps/install.sh
