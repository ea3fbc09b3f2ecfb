# `make test` runs every test, installing what they need; `make lint` runs the checks that need no machine.
SHELL := /bin/bash
CARGO ?= cargo
export DEBIAN_FRONTEND := noninteractive

.PHONY: test lint setup-test codegen

setup-test:
	@./scripts/install test

test: setup-test
	$(CARGO) test --workspace --no-fail-fast

lint:
	@rustup component list --installed 2>/dev/null | grep -q clippy || rustup component add clippy rustfmt
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) run -q -p xtask -- tidy

codegen:
	$(CARGO) run -q -p xtask -- codegen
