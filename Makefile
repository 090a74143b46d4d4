# Everything is made below build/, which git ignores. "make" alone lists the targets.

NAME  ?= blockvol
BASE  ?= debian:bookworm-slim
PKG   ?= ./...
RUN   ?= .
ARCH  :=
VERSION := $(shell git describe --always --dirty --tags 2>/dev/null || echo unknown)

export BASE
export ARCH
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
	@echo "  RUN (which end-to-end tests, a regular expression), DOCKER_HOST (which engine),"
	@echo "  ARCH (build, rootfs and push for another architecture: arm64 or amd64)."

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
build: export GOARCH = $(ARCH)
build: ## the binary, build/blockvol (build/blockvol-ARCH)
	@echo "building build/blockvol$(ARCH:%=-%)" >&2
	@go build -buildvcs=false -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o build/blockvol$(ARCH:%=-%) .

.PHONY: rootfs
rootfs: build ## the managed plugin's folder, build/plugin (build/plugin-ARCH; needs an engine)
	@scripts/plugin rootfs

.PHONY: plugin
plugin: $(if $(ARCH),other-architecture,rootfs) ## make the plugin NAME in the engine, with SETTINGS, and enable it
	@echo "making the plugin $(NAME)" >&2
	@scripts/plugin create $(NAME) $(SETTINGS)

.PHONY: other-architecture
other-architecture:
	@echo "make plugin is for this machine, without ARCH; for $(ARCH): make rootfs ARCH=$(ARCH), or make push ARCH=$(ARCH) REF=..." >&2; exit 2

.PHONY: push
push: named rootfs ## push the plugin to the registry, as REF and its architecture (REF-amd64, REF-arm64)
	@scripts/plugin push $(REF)-$(or $(ARCH),$$(go env GOARCH))

.PHONY: named
named:
	@case "$(notdir $(REF))" in *:?*) ;; *) echo "set REF with a tag, for example: make push REF=registry.example.com/blockvol:1" >&2; exit 2 ;; esac

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
