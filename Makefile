# Hydra. `make help` lists the targets.
#
# Every target gets what it lacks from apt (as root); crates come from crates.io by way of cargo.

SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PREFIX  ?= /usr/local
DESTDIR ?=
TIME    ?= 60
SEED    ?= 1

TARGET  := target/x86_64-unknown-linux-gnu/release
BIN     := target/release
IN      := integration/scripts
PROGS   := runtime shim
# An installed cargo that is new enough, else the one that apt has.
CARGO   ?= cargo

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  make install PREFIX=/usr DESTDIR=/tmp/stage      make bench QUICK=1      make test-guest FULL=1"

.PHONY: demo
demo: build ## show a container of ours running under a private Docker (root)
	@$(IN)/setup engine
	@$(IN)/demo

.PHONY: test
test: ## lints, unit tests, the suite here, with older calls alone, in emulated machines, a private Docker (root)
	@$(IN)/test

.PHONY: build
build: setup ## release binaries in target/release
	@$(CARGO) build --quiet --release --workspace --bins
	@mkdir -p $(BIN)
	@for p in $(PROGS); do ln -sfn ../../$(TARGET)/$$p $(BIN)/$$p; done

.PHONY: setup
setup:
	@$(IN)/setup build

.PHONY: lint
lint: setup ## formatting and clippy, warnings are errors
	@$(IN)/setup lint
	@$(CARGO) fmt --all --check
	@$(CARGO) clippy --quiet --workspace --all-targets -- -D warnings
	@$(CARGO) clippy --quiet -p integration --test suite --test faults -- -D warnings

.PHONY: deny
deny: ## licences, advisories and sources of the dependencies (builds cargo-deny once: some minutes)
	@$(CARGO) deny --version >/dev/null 2>&1 || $(CARGO) install --quiet --locked cargo-deny --target-dir target/tools
	@$(CARGO) deny --all-features check

.PHONY: bench
bench: build ## floor program, runtime, runc and crun side by side; QUICK=1 for a short run (root)
	@$(IN)/setup engine
	@$(IN)/bench

.PHONY: figures
figures: build ## the papers' figures with today's programs, to docs/figures: up to 3 hours, goes on where it was; QUICK=1 (root)
	@$(IN)/setup engine net figures
	@$(IN)/figures

.PHONY: bench-net
bench-net: setup ## network limits beside TBF, HTB, nft and clsact, with plots; QUICK=1 for a short run (root)
	@$(IN)/setup net
	@$(IN)/bench-net

.PHONY: storm
storm: build ## TIME=60 SEED=1: random faults put to monitors for so many seconds, with a ledger and a verdict (root)
	@$(IN)/setup engine
	@RUNTIME=$(CURDIR)/$(BIN)/runtime TIME=$(TIME) SEED=$(SEED) $$($(IN)/suite-path faults) storm::storm --nocapture

.PHONY: test-guest
test-guest: build ## the lanes of the emulated machines alone; FULL=1 for all of the suite there (root)
	@$(IN)/setup engine guest
	@$(IN)/test-guest

.PHONY: fuzz
fuzz: ## TIME=60 seconds of cargo-fuzz on every fuzz target (needs a nightly toolchain)
	@SECONDS_OF_FUZZ=$(TIME) $(IN)/fuzz

.PHONY: install
install: build ## PREFIX=/usr/local DESTDIR=: programs, man pages, completions
	@$(IN)/install "$(DESTDIR)" "$(PREFIX)"

.PHONY: uninstall
uninstall: ## take away what install put there
	@$(IN)/install --remove "$(DESTDIR)" "$(PREFIX)"

.PHONY: clean
clean: ## remove target/, the guests' images and the fetched containerd 2
	@$(CARGO) clean --quiet || rm -rf target
	@rm -rf "$${XDG_CACHE_HOME:-$$HOME/.cache}/hydra-guest" "$${XDG_CACHE_HOME:-$$HOME/.cache}/hydra-containerd2"
