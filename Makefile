# Every target sets up .venv by itself; the only thing needed is a Python of at least 3.11.
PYTHON ?= python3
EXTRAS ?= dev
VENV := .venv
TESTS :=
# Of `test-newest`: a newer Python takes a newer JAX.
PYTHON_NEWEST ?= python3.12
VENV_NEWEST := .venv-newest
TESTS_NEWEST := $(wildcard $(addprefix tests/test_, \
	hypergradient*.py methods.py golden*.py fit.py optimizers*.py moving_latents*.py resume.py \
	damaged_checkpoints.py interruption.py))
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check
STAMP := $(VENV)/.installed-$(EXTRAS)
DEMO_STEPS ?= 100000

export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.jax_cache

.PHONY: demo test test-slow test-newest check setup clean

demo: setup  ## Trains a GRBM on the checkerboard; pictures, history and checkpoint in runs/.
	$(VENV)/bin/python -m experiments.checkerboard --progress --num-steps $(DEMO_STEPS)

test: setup  ## The test suite, without what is marked slow.
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal -m "not slow" $(TESTS)

test-slow: setup  ## What is marked slow.
	$(VENV)/bin/python -m pytest -n 2 -m slow

test-newest:  ## The core of the test suite in .venv-newest, on a second Python with the newest JAX.
	$(MAKE) test VENV=$(VENV_NEWEST) PYTHON=$(PYTHON_NEWEST) TESTS="$(TESTS_NEWEST)"

check: setup  ## Lint, formatting, types.
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

setup: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "needs Python 3.11 or newer, which '$(PYTHON)' is not: set PYTHON=/path/to/python3.12" \
			"(PYTHON_NEWEST for test-newest)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	$(PIP) --editable ".[$(EXTRAS)]"
	@touch $@

clean:  ## Removes what the targets built, but no run.
	rm -rf $(VENV) $(VENV_NEWEST) .jax_cache .mypy_cache .ruff_cache .pytest_cache
