# `make help` lists the targets. Bash and Python 3.11+ with pip are all that is needed; `make test` adds Debian packages.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

DEMO_SECONDS ?= 30
SUITES := tests/unit tests/contract tests/integration
ONLY ?=
ROWS ?=

VENV := .venv
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.runtime-ready
DEV := $(VENV)/.dev-ready

# What the tests use besides Python: judges (ffmpeg), a real browser with fonts, network namespaces, packet filters, a database.
APT_PACKAGES := chromium ffmpeg fonts-dejavu-core iproute2 nftables postgresql

# A name on PATH may be a version manager's shim that fails, so each candidate is run.
FIND_PYTHON = for python in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
	if "$$python" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then echo "$$python"; exit; fi; done

PIP_OPTIONS := --disable-pip-version-check --quiet
PIP_COMPILE = CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile pyproject.toml --quiet --allow-unsafe --strip-extras --generate-hashes \
	--no-emit-options --no-emit-index-url --no-emit-find-links --no-emit-trusted-host

.PHONY: help setup demo run unit test check format bench chaos fuzz soak lock clean system-packages

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1|\2/' | while IFS='|' read -r name text; do printf '  %-8s %s\n' "$$name" "$$text"; done

setup: $(DEV) ## create .venv with everything that development needs (no root)

demo: $(RUNTIME) ## record a real channel through the public API and check the files (DEMO_SECONDS=30); needs Python 3.11+ and pip alone
	@$(BIN)/cloud-recorder demo --seconds $(DEMO_SECONDS)

run: $(RUNTIME) ## run the whole service on this machine (Ctrl-C ends it)
	@$(BIN)/cloud-recorder serve

unit: $(DEV) ## unit tests (seconds)
	@$(BIN)/python -m pytest -q tests/unit

check: $(DEV) ## ruff, format, mypy --strict, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(DEV) ## let ruff fix and format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

test: system-packages ## everything: Debian packages (as root), checks and all tests (22 minutes on two processors)
	@$(MAKE) check
	@$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not alone' $(SUITES)
	@$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not alone' tests/e2e
	@$(BIN)/python -m pytest -m alone $(SUITES) tests/e2e

bench: $(DEV) ## benchmarks (ONLY=name); one JSON object per line, also in build/bench.json
	@$(BIN)/python -m tests.bench.run $(if $(ONLY),--only $(ONLY))

chaos: $(DEV) ## the full fault matrix, all seeds and counts (ROWS=N1,N9: some rows); report in build/chaos.json
	@$(BIN)/python -m pytest -n 2 --dist worksteal tests/chaos $(if $(ROWS),--rows $(ROWS))

fuzz: $(DEV) ## a million mutated packets, 20,000 calls made from the API's description, calls in any order (FUZZ_PACKETS, FUZZ_SEED, FUZZ_EXAMPLES, FUZZ_CASES)
	@$(BIN)/python -m pytest -s tests/fuzz

soak: $(DEV) ## long runs, figures in build/soak.json (SOAK_CYCLES=200 SOAK_MINUTES=30)
	@$(BIN)/python -m pytest tests/soak

lock: $(DEV) ## resolve the dependencies of pyproject.toml again into the two lock files
	@$(PIP_COMPILE) --upgrade --output-file requirements.txt
	@$(PIP_COMPILE) --upgrade --extra dev --constraint requirements.txt --output-file requirements-dev.txt

clean: ## remove what these targets made
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +

# Debian's Python may come without ensurepip (package python3-venv): then the environment borrows the system's pip.
$(BIN)/python:
	@python=$$($(FIND_PYTHON)); \
	if [ -z "$$python" ]; then echo 'no Python 3.11 or newer found; name one: make PYTHON=/path/to/python3' >&2; exit 1; fi; \
	echo "creating $(VENV) with $$($$python --version)"; \
	if "$$python" -c 'import ensurepip' >/dev/null 2>&1; then "$$python" -m venv $(VENV); \
	else "$$python" -m venv --without-pip $(VENV) && "$$python" -m pip --python $(VENV) install $(PIP_OPTIONS) pip; fi

$(RUNTIME): requirements.txt pyproject.toml | $(BIN)/python
	@echo 'installing the locked dependencies (the first time takes a minute)'
	@$(BIN)/python -m pip install $(PIP_OPTIONS) --require-hashes -r requirements.txt
	@$(BIN)/python -m pip install $(PIP_OPTIONS) --no-deps --editable .
	@touch $@

$(DEV): requirements-dev.txt requirements.txt pyproject.toml | $(BIN)/python
	@echo 'installing the locked dependencies for development (the first time takes minutes)'
	@$(BIN)/python -m pip install $(PIP_OPTIONS) --require-hashes -r requirements-dev.txt
	@$(BIN)/python -m pip install $(PIP_OPTIONS) --no-deps --editable .
	@touch $(RUNTIME) $@

system-packages:
	@if ! command -v dpkg-query >/dev/null; then echo 'not Debian: the tests need $(APT_PACKAGES)' >&2; exit; fi; \
	missing=; installed() { [ "$$(dpkg-query -W -f='$${db:Status-Status}' "$$1" 2>/dev/null)" = installed ]; }; \
	for package in $(APT_PACKAGES); do installed "$$package" || missing+=" $$package"; done; \
	if [ ! -x $(BIN)/python ] && ! $$($(FIND_PYTHON)) -c 'import ensurepip' >/dev/null 2>&1; then missing+=' python3-venv'; fi; \
	if [ -z "$$missing" ]; then exit; fi; \
	if [ "$$(id -u)" != 0 ]; then echo "missing Debian packages; as root: apt-get install$$missing" >&2; exit 1; fi; \
	export DEBIAN_FRONTEND=noninteractive; \
	apt-get -o DPkg::Lock::Timeout=900 -qq update; \
	apt-get -o DPkg::Lock::Timeout=900 -qq install --yes --no-install-recommends $$missing
