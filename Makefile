# Everything is made below build/, which git ignores. "make" alone lists the targets.

NAME  ?= blockvol
BASE  ?= debian:bookworm-slim
PKG   ?= ./...
RUN   ?= .
VERSION := $(shell git describe --always --dirty --tags 2>/dev/null || echo unknown)

export BASE
export CGO_ENABLED := 0
export PATH := $(CURDIR)/build/go/bin:$(PATH)
.DELETE_ON_ERROR:

.PHONY: help
help: ## this list
	@echo "blockvol: networked block storage as Docker volumes"
	@echo
	@awk -F':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "Variables: NAME (the plugin's name, $(NAME)), REF (where push pushes to, e.g. registry.example.com/blockvol:1),"
	@echo "  SETTINGS (e.g. \"BACKEND=sim\"), BASE (the image the plugin's tools come from, $(BASE)),"
	@echo "  RUN (which end-to-end tests, a regular expression), DOCKER_HOST (which engine)."

.PHONY: demo
demo: deps build ## try it: a simulated cloud, a real engine, a real PostgreSQL; no account needed
	@scripts/demo
	@scripts/demo-swarm

.PHONY: test
test: deps ## all tests: unit, root and end to end, on engines of their own
	@scripts/deps machine
	@RUN='$(RUN)' scripts/test

.PHONY: race
race: deps ## the unit tests and the tests on loop devices, with the race detector
	@scripts/test race

.PHONY: soak
soak: deps ## a long random day of three hosts: BLOCKVOL_SOAK operations (50000), repeated with BLOCKVOL_SEED
	@BLOCKVOL_SOAK=$${BLOCKVOL_SOAK:-50000} go test -buildvcs=false -count=1 -timeout 12h -v -run TestARandomDay ./driver

.PHONY: deps
deps: ## install what building and testing need (apt-get)
	@scripts/deps

.PHONY: build
build: ## the binary, build/blockvol
	@echo "building build/blockvol" >&2
	@go build -buildvcs=false -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o build/blockvol .

.PHONY: rootfs
rootfs: build ## the managed plugin's folder, build/plugin (needs an engine)
	@scripts/plugin rootfs

.PHONY: plugin
plugin: rootfs ## make the plugin NAME in the engine, with SETTINGS, and enable it
	@echo "making the plugin $(NAME)" >&2
	@scripts/plugin create $(NAME) $(SETTINGS)

.PHONY: push
push: rootfs ## push the plugin to the registry, as REF
	@test -n "$(REF)" || { echo "set REF, for example: make push REF=registry.example.com/blockvol:1" >&2; exit 2; }
	@scripts/plugin push $(REF)

.PHONY: install-cli
install-cli: build ## install docker blockvol: for everybody as root, else for yourself
	@build/blockvol install-cli

.PHONY: bench
bench: deps ## count and time what the plugin does; writes bench.json
	@scripts/bench

.PHONY: lint
lint: ## gofmt, go vet, shellcheck
	@scripts/lint

.PHONY: clean
clean: ## stop engines that tests left behind, remove build/
	@scripts/clean
