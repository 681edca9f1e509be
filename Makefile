# Everything a developer or CI does. `make` alone lists it.
#
# Each recipe runs in tools/environment.sh: one target directory outside the clone and one compiler command, so that a
# machine compiles RocksDB once. tools/bootstrap.sh installs what is missing and is silent when nothing is.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
ENVIRONMENT := . tools/environment.sh &&

# make demo ARGS="--seconds 30 --clients 16"
ARGS ?=
# make test TESTS=wal:: runs the tests whose names contain that.
TESTS ?=
# Cases per property test in `make properties`.
CASES ?= 20000
# make fuzz TARGET=wal_end_of_log SECONDS_EACH=600
TARGET ?=
SECONDS_EACH ?= 60

# On top of the lints in Cargo.toml, for everything that runs outside tests: no function of more than 70 lines.
STRICT := -D clippy::too_many_lines

.PHONY: help demo test check build bin-dir bench soak fuzz properties

help: ## lists these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: build ## a node under load, killed and restarted; ARGS="--seconds N --clients N"
	@$(ENVIRONMENT) "$$CARGO_TARGET_DIR/release/mainstay" demo $(ARGS)

build: ## release binaries
	@tools/bootstrap.sh build
	@$(ENVIRONMENT) cargo build --locked --release --workspace --bins

bin-dir: ## prints the folder that holds the release binaries
	@$(ENVIRONMENT) echo "$$CARGO_TARGET_DIR/release"

test: ## all tests; TESTS=substring runs some
	@tools/bootstrap.sh test
	@tools/run-tests $(TESTS)

check: ## formatting, clippy, docs, file sizes, cargo deny
	@tools/bootstrap.sh check
	@tools/tidy
	@$(ENVIRONMENT) cargo fmt --all --check
	@$(ENVIRONMENT) cargo fmt --manifest-path fuzz/Cargo.toml --check
	@$(ENVIRONMENT) cargo clippy --locked --workspace --all-targets -- -D warnings
	@$(ENVIRONMENT) cargo clippy --locked --workspace --lib --bins -- -D warnings $(STRICT)
	@$(ENVIRONMENT) cargo clippy --locked -p mainstay --no-default-features -- -D warnings
	@$(ENVIRONMENT) RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --quiet
	@tools/check-dependencies

bench: ## benchmarks; BENCH=family runs one
	@tools/bootstrap.sh test
	@tools/run-benches $(BENCH)

soak: ## the long tests, which are marked #[ignore]
	@tools/bootstrap.sh test
	@$(ENVIRONMENT) cargo nextest run --locked --workspace --profile soak --run-ignored ignored-only --no-tests warn

fuzz: ## coverage-guided fuzzing, a minute for each target; TARGET=name runs one, SECONDS_EACH=600 longer
	@tools/bootstrap.sh build
	@SECONDS_EACH=$(SECONDS_EACH) tools/run-fuzz $(TARGET)

properties: ## all tests, property tests with CASES=20000 cases each
	@tools/bootstrap.sh test
	@$(ENVIRONMENT) PROPTEST_CASES=$(CASES) cargo nextest run --locked --workspace --profile soak
