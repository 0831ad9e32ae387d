# mcp-broker. `make` alone says what there is. Python >= 3.11 is all that is needed; Node.js >= 20 widens the tests.

SHELL := /bin/sh
.DEFAULT_GOAL := help

HOST ?= 127.0.0.1
PORT ?= 8787
CONFIG ?= servers.yaml
# How long `make soak` takes.
SECONDS ?= 600
# How long `make fuzz` and `make fuzz-guided` take.
EXAMPLES ?= 5000
MINUTES ?= 1
# Passed on to pytest (make test) or to the benchmarks (make bench).
ARGS ?=
# The Python that the environments are made from; empty: the first of CANDIDATES that is new enough and works.
PYTHON ?=
CANDIDATES := python3.13 python3.12 python3.11 python3.14 python3

VENV := .venv
SDK1 := .venv-sdk1
PEERS := .venv-peers
FUZZ := .venv-fuzz
ATHERIS := atheris==3.0.0
NODE := tests/node
PIP := -m pip --quiet --disable-pip-version-check --no-input

export PYTHON HOST PORT CONFIG
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

# find_python: sets $$python, or says what is missing and fails.
define find_python
	fits='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))'; \
	python=; halved=; \
	for candidate in "$${PYTHON:-}" $(if $(PYTHON),,$(CANDIDATES)); do \
		[ -n "$$candidate" ] || continue; \
		"$$candidate" -c "$$fits" >/dev/null 2>&1 </dev/null || continue; \
		if "$$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then python=$$candidate; break; fi; \
		halved=$${halved:-$$candidate}; \
	done; \
	if [ -z "$$python" ] && [ -n "$$halved" ]; then \
		echo "$$halved cannot make virtual environments: its ensurepip module is missing." >&2; \
		echo "On Debian and Ubuntu: apt-get install python3-venv (or python3.X-venv for another version)." >&2; \
		exit 1; \
	elif [ -z "$$python" ]; then \
		echo "No Python 3.11 to 3.14 found (looked for: $${PYTHON:-$(CANDIDATES)})." >&2; \
		echo "Install one, or name it: make PYTHON=/path/to/python3" >&2; \
		exit 1; \
	fi
endef

# environment DIRECTORY, PIP ARGUMENTS, FILES: makes or renews a virtual environment when the files it was made from
# changed, when the tree was moved, or when its Python went away. The stamp holds a checksum of all of that, since
# times of files say little after a checkout.
define environment
	wanted="$$(pwd) $(2) $$(cat $(3) | cksum)"; \
	if [ "$$(cat $(1)/.stamp 2>/dev/null)" != "$$wanted" ] || ! $(1)/bin/python -c '' >/dev/null 2>&1; then \
		case "$$(cat $(1)/.stamp 2>/dev/null)" in "" | "$$(pwd) "*) ;; *) rm -rf $(1) ;; esac; \
		if ! $(1)/bin/python -c 'import pip' >/dev/null 2>&1; then \
			$(find_python); \
			rm -rf $(1); \
			echo "creating $(1) with $$("$$python" --version)"; \
			"$$python" -m venv $(1); \
		fi; \
		echo "installing $(1): pip install $(2)"; \
		$(1)/bin/python $(PIP) install $(2); \
		printf '%s' "$$wanted" > $(1)/.stamp; \
	fi
endef

.PHONY: help
help: ## Say what there is
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo '  PORT=$(PORT) CONFIG=$(CONFIG) change what is served; ARGS goes to pytest or the benchmarks:'
	@echo '  make test ARGS="-k names -x"'

.PHONY: serve
serve: ## Serve servers.yaml on http://127.0.0.1:8787/mcp
	@set -e; $(call serving)
	@exec $(VENV)/bin/mcp-broker serve --config "$$CONFIG" --host "$$HOST" --port "$$PORT"

.PHONY: test
test: dev sdk1 node ## Run the tests
	@$(VENV)/bin/python -m pytest $(ARGS)

.PHONY: lint
lint: dev ## Check style and types
	@$(VENV)/bin/ruff check
	@$(VENV)/bin/ruff format --check
	@$(VENV)/bin/pyright

.PHONY: bench
bench: dev peers ## Run the benchmarks
	@$(VENV)/bin/python -m bench $(ARGS)

.PHONY: soak
soak: dev ## Mixed traffic while everything around fails, SECONDS in all (600)
	@$(VENV)/bin/python -m tests.soak --seconds $(SECONDS) $(ARGS)

# The properties of every edge where bytes come in, with many more examples than in the tests.
.PHONY: fuzz
fuzz: dev ## Try EXAMPLES (5000) inputs on each edge
	@BROKER_EXAMPLES=$(EXAMPLES) $(VENV)/bin/python -m pytest -m hypothesis tests/fuzz tests/downstream tests/config \
		$(foreach edge,wire eventstream framing headers mirroring cursor seal,tests/core/test_$(edge).py) $(ARGS)

# Optional: atheris has wheels for Linux only.
.PHONY: fuzz-guided
fuzz-guided: ## Fuzz each edge for MINUTES (1), guided by coverage
	@set -e; $(call environment,$(FUZZ),-c requirements.lock -e '.[dev]' $(ATHERIS),pyproject.toml requirements.lock)
	@set -e; for edge in json events lines header answer configuration; do \
		echo "== $$edge"; \
		$(FUZZ)/bin/python -m tests.fuzz.guided $$edge -max_total_time=$$(( $(MINUTES) * 60 )) $(ARGS); \
	done

.PHONY: lock
lock: ## Renew requirements.lock, the pins of SDK 1 and of the peers, package-lock.json
	@$(find_python); "$$python" .ci/lock.py

.PHONY: clean
clean: ## Remove the environments and caches
	rm -rf $(VENV) $(SDK1) $(PEERS) $(FUZZ) $(NODE)/node_modules build dist .pytest_cache .ruff_cache .hypothesis .coverage htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What `serve` needs; an environment that `dev` made has all of it.
serving = case "$$(cat $(VENV)/.stamp 2>/dev/null)" in *'.[dev]'*) $(MAKE) --no-print-directory dev ;; \
	*) $(call environment,$(VENV),-c requirements.lock -e '.[examples]',pyproject.toml requirements.lock) ;; esac

.PHONY: dev
dev:
	@set -e; $(call environment,$(VENV),-c requirements.lock -e '.[dev]',pyproject.toml requirements.lock)

.PHONY: sdk1
sdk1:
	@set -e; $(call environment,$(SDK1),-r tests/sdk1/requirements.txt,tests/sdk1/requirements.txt)

# Optional: the benchmarks leave out, and say so, what cannot be installed.
.PHONY: peers peers-environment
peers:
	@$(MAKE) --no-print-directory peers-environment || echo "FastMCP cannot be installed: the benchmarks leave it out" >&2

peers-environment:
	@set -e; $(call environment,$(PEERS),-r bench/peers/requirements.txt,bench/peers/requirements.txt)

# Optional: without Node.js the tests that need it are skipped, unless BROKER_REQUIRE_NODE=1.
.PHONY: node
node:
	@set -e; \
	absent() { \
		echo "$$1: the tests with Node.js peers are skipped" >&2; \
		[ "$${BROKER_REQUIRE_NODE:-}" != 1 ] || exit 1; exit 0; \
	}; \
	command -v node >/dev/null 2>&1 && command -v npm >/dev/null 2>&1 || absent "node or npm is missing"; \
	node -e 'process.exit(parseInt(process.versions.node) >= 20 ? 0 : 1)' || absent "node is older than 20"; \
	wanted="$$(cat $(NODE)/package.json $(NODE)/package-lock.json | cksum) $$(node --version)"; \
	if [ "$$(cat $(NODE)/node_modules/.stamp 2>/dev/null)" != "$$wanted" ]; then \
		echo "installing $(NODE): npm ci"; \
		(cd $(NODE) && npm ci --no-audit --no-fund --loglevel=error </dev/null) || absent "npm ci failed"; \
		printf '%s' "$$wanted" > $(NODE)/node_modules/.stamp; \
	fi
