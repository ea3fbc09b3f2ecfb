# `make up` makes a cluster on this machine; `make test` runs every test, installing what they need; `make lint` runs
# the checks that need no machine.
SHELL := /bin/bash
CARGO ?= cargo
export DEBIAN_FRONTEND := noninteractive
SUDO := $(shell [ "$$(id -u)" -eq 0 ] || echo sudo)

.PHONY: up down reset build test lint setup-node setup-test codegen

setup-node:
	@./scripts/install node

setup-test:
	@./scripts/install test

build:
	$(CARGO) build --release -p timonel

up: setup-node build
	@$(SUDO) ./target/release/timonel up

down:
	@$(SUDO) ./target/release/timonel down

reset:
	@$(SUDO) ./target/release/timonel reset

test: setup-test
	$(CARGO) build -p timonel -p e2e --bins
	$(CARGO) test --workspace --no-fail-fast

lint:
	@rustup component list --installed 2>/dev/null | grep -q clippy || rustup component add clippy rustfmt
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) run -q -p xtask -- tidy
	@command -v cargo-deny >/dev/null || $(CARGO) install --locked --quiet cargo-deny
	$(CARGO) deny --offline --log-level error check --hide-inclusion-graph bans licenses sources

codegen:
	$(CARGO) run -q -p xtask -- codegen
