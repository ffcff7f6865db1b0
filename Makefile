# onestage: `make demo` and `make test` need Python 3.11 or later with venv, and make; all else they install into .venv.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2

BIN = $(VENV)/bin
RUN = env -u PYTHONPATH OMP_NUM_THREADS=1
PIP = env -u PYTHONPATH $(BIN)/python -m pip --disable-pip-version-check
TORCH = $(shell sed -n 's/^\(torch==[0-9.]*\).*/\1/p' constraints.txt)
PINS = pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint format tables docs bench clean

help: ## say what there is
	@awk -F ': .*## ' '/^[a-z]+:.*## /{printf "make %-8s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/.train ## train on the default data set, judge, write the report: about ten minutes on two cores
	env -u PYTHONPATH $(BIN)/onestage demo

test: $(VENV)/.dev lint ## all checks and all tests
	$(RUN) $(BIN)/python -m pytest -n $(WORKERS)

lint: $(VENV)/.dev ## style, types, and which room may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(RUN) $(BIN)/mypy
	$(RUN) $(BIN)/lint-imports

format: $(VENV)/.dev ## put the code into the one style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

tables: $(VENV)/.dev ## rewrite the tree and the tables of README.md and docs/ that are made from the code
	$(RUN) $(BIN)/python docs/tables.py

docs: $(VENV)/.dev ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(RUN) $(BIN)/python -m mkdocs build --strict --quiet
	@echo "the documentation is in site/index.html"

bench: $(VENV)/.dev ## speed beside named peers: loader, judge, training step (some minutes)
	$(RUN) $(BIN)/python benchmarks/loader.py
	$(RUN) $(BIN)/python benchmarks/evaluation.py
	$(RUN) $(BIN)/python benchmarks/ssd_step.py
	$(RUN) $(BIN)/python benchmarks/recorder.py

clean: ## remove what was built; runs/ and fetched data stay
	rm -rf $(VENV) build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A file in .venv says what is installed there; it is older than the pins when they changed, and the step is done again.

$(VENV)/.train: $(BIN)/python $(PINS)
	$(PIP) install --quiet -c constraints.txt "$(TORCH)"
	$(PIP) install --quiet -c constraints.txt -e ".[train]"
	@touch $@

$(VENV)/.dev: $(VENV)/.train
	$(PIP) install --quiet -c constraints.txt -e ".[dev]"
	@touch $@

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "make: no '$(PYTHON)' here. Install Python 3.11 or later, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: onestage needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "make: name another one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "make: this Python has no venv. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
