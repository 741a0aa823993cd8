# make serve | build | lint | test | test-long. What is missing is installed first.

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/haypile
# One target directory for all checkouts: RocksDB takes minutes to build, and there is one profile.
export CARGO_TARGET_DIR ?= $(CACHE)/target
export HAYPILE_PYTHON ?= $(CACHE)/venv/bin/python
export PATH := $(PATH):$(HOME)/.cargo/bin

BUILD_PACKAGES := g++ libclang-dev
TEST_PACKAGES := redis-server redis-tools nutcracker etcd-server prometheus python3-venv
REDIS_PY := redis==8.1.0
NEXTEST := cargo nextest run --cargo-profile release --workspace

.PHONY: serve build lint test test-long build-tools test-tools

build: build-tools
	@cargo build --release
	@echo $(CARGO_TARGET_DIR)/release/haypile

# Further arguments: make serve ARGS="--port 6379".
serve: build-tools
	@cargo run --release -- server $(ARGS)

lint: build-tools
	@cargo fmt --all --check
	@cargo clippy --release --workspace --all-targets -- -D warnings

test: build-tools test-tools
	@$(NEXTEST)

# The tests that take minutes each.
test-long: build-tools test-tools
	@$(NEXTEST) --profile long --run-ignored only -E 'kind(test)'

build-tools:
	@.ci/packages $(BUILD_PACKAGES)

test-tools:
	@.ci/packages $(TEST_PACKAGES)
	@command -v cargo-nextest >/dev/null || env -u CARGO_TARGET_DIR cargo install cargo-nextest --locked --quiet
	@$(CACHE)/venv/bin/pip freeze 2>/dev/null | grep -qx '$(REDIS_PY)' || { \
		python3 -m venv $(CACHE)/venv && $(CACHE)/venv/bin/pip install --quiet '$(REDIS_PY)'; }
