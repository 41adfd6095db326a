# Every target sets up what it needs: a Python from 3.11 on and make are enough. `make help` lists them.

.DEFAULT_GOAL := help
.NOTPARALLEL:
SHELL := /bin/bash
MAKEFLAGS += --no-print-directory

# The interpreter: the first that really runs (a version manager's shim may not) and can make environments.
PROBE := import ensurepip, sys, venv; sys.version_info >= (3, 11) or sys.exit(1); print(sys.executable)
ifndef PYTHON
PYTHON := $(shell for name in python3.11 python3.12 python3.13 python3; do \
	$$name -c '$(PROBE)' 2>/dev/null && break; done)
endif

VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check
# How many processes run tests, and what else pytest, the benchmarks or the shop are told:
# make test JOBS=4 ARGS="-k cascade"
JOBS ?= 2
ARGS ?=
# What test-all, bench and constraints look for: make bench VERSIONS=3.13
VERSIONS ?= 3.11 3.12 3.13
# A process that a hanging test took down is not replaced: the distribution by groups would wait for ever.
PYTEST = $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadgroup --max-worker-restart 0 $(ARGS)
SPEEDUPS := src/afresh/graph/_speedups.c

# $(call each_interpreter,command): the command for every version found, with $$version and $$python set.
define each_interpreter
for version in $(VERSIONS); do \
	for name in python$$version $${PYENV_ROOT:-$$HOME/.pyenv}/versions/$$version.*/bin/python; do \
		python=$$($$name -c '$(PROBE)' 2>/dev/null) && break; \
	done; \
	if [ -z "$$python" ]; then echo "Python $$version: not found, left out"; continue; fi; \
	echo "Python $$version: $$python"; \
	$(1) || exit 1; \
done
endef

.PHONY: help demo demo-cluster test test-all bench lint format docs soak constraints clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/.installed $(VENV)/.group-demo extension ## start the order shop, a broker and three services: port 8080
	@$(BIN)/python -m examples.shop $(ARGS)

demo-cluster: $(VENV)/.installed $(VENV)/.group-demo extension ## the same by four workers on PostgreSQL, with RabbitMQ if it is here
	@$(BIN)/python -m examples.shop cluster $(ARGS)

test: $(VENV)/.installed $(VENV)/.group-test extension ## run the tests, with the C extension and with its pure twin
	@if [ -e $(VENV)/.compiled ]; then \
		echo "Tests with the pure twin:" && AFRESH_PURE=1 $(PYTEST) -m "not browser and not servers" && \
		echo "Tests with the C extension:" && $(PYTEST); \
	else \
		echo "Tests with the pure twin only: there is no C extension here." && AFRESH_PURE=1 $(PYTEST); \
	fi

test-all: ## run the tests on every interpreter found, each in its own environment under .venvs
	@$(call each_interpreter,$(MAKE) test VENV=.venvs/$$version PYTHON=$$python) && \
	echo "Tests passed on every Python named above."

soak: $(VENV)/.installed $(VENV)/.group-test extension ## run the property tests much longer, and what takes long
	@AFRESH_SOAK=1 $(PYTEST) -m "hypothesis or soak" -o faulthandler_timeout=7200
	@[ ! -e $(VENV)/.compiled ] || \
		AFRESH_PURE=1 AFRESH_SOAK=1 $(PYTEST) -m "hypothesis or soak" -o faulthandler_timeout=7200

bench: bench-environment ## measure against peers on every interpreter found, write benchmarks/results.json
	@pythons=(); $(call each_interpreter,$(MAKE) bench-environment VENV=.venvs/$$version PYTHON=$$python \
		&& pythons+=(--python .venvs/$$version/bin/python)) && \
	$(BIN)/python -m benchmarks "$${pythons[@]}" $(ARGS)

lint: $(VENV)/.installed $(VENV)/.group-lint ## check format, style, types, typed surface and floors
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/pyright --ignoreexternal --verifytypes afresh
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/pyright tests/typing
	@$(BIN)/python -m pytest --quiet tests/test_floors.py

format: $(VENV)/.installed $(VENV)/.group-lint ## format the code and mend what can be mended
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

docs: $(VENV)/.installed $(VENV)/.group-docs ## build the documentation into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "Documentation: site/index.html"

constraints: ## resolve the newest versions of all dependencies into constraints.txt
	@pythons=(); $(call each_interpreter,pythons+=($$python)) && \
	$(PYTHON) tools/constraints.py "$${pythons[@]}"

clean: ## remove everything that the other targets made
	@rm -rf .venv .venvs build dist site artifacts src/*.egg-info
	@rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find src tests examples benchmarks tools -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
	@find src -name '*.so' -delete

# --- the environment ---------------------------------------------------------

$(VENV)/.base: constraints.txt
	@[ -n "$(PYTHON)" ] || { echo "No Python from 3.11 on with venv found. Install one, or say make PYTHON=/path/to/python"; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --constraint constraints.txt pip
	@$(PIP) install --constraint constraints.txt --group build
	@touch $@

$(VENV)/.group-%: $(VENV)/.base pyproject.toml
	@echo "Installing what $* needs into $(VENV)"
	@$(PIP) install --constraint constraints.txt --group $*
	@touch $@

# The checkout itself, editable. The extension is built apart from it, so that its compiler's words can be seen.
$(VENV)/.installed: $(VENV)/.base pyproject.toml setup.py
	@AFRESH_BUILD_EXTENSION=no $(PIP) install --no-build-isolation --constraint constraints.txt --editable .
	@touch $@

.PHONY: extension bench-environment
bench-environment: $(VENV)/.installed $(VENV)/.group-bench extension

extension: $(VENV)/.installed
	@$(BIN)/python tools/extension.py $(VENV)/.compiled
