# Every target sets up .venv by itself; the only thing needed is a Python of at least 3.11.
PYTHON ?= python3
EXTRAS ?= dev
VENV := .venv
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check
STAMP := $(VENV)/.installed-$(EXTRAS)
DEMO_STEPS ?= 100000

export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.jax_cache

.PHONY: demo test test-slow check setup clean

demo: setup  ## Trains a GRBM on the checkerboard; pictures, history and checkpoint in runs/.
	$(VENV)/bin/python -m experiments.checkerboard --progress --num-steps $(DEMO_STEPS)

test: setup  ## The test suite, without what is marked slow.
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal -m "not slow"

test-slow: setup  ## What is marked slow.
	$(VENV)/bin/python -m pytest -n 2 -m slow

check: setup  ## Lint, formatting, types.
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

setup: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "needs Python 3.11 or newer: make PYTHON=/path/to/python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	$(PIP) --editable ".[$(EXTRAS)]"
	@touch $@

clean:  ## Removes what the targets built, but no run.
	rm -rf $(VENV) .jax_cache .mypy_cache .ruff_cache .pytest_cache
