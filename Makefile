# Everything a newcomer needs: `make demo` shows it working, `make test` proves it. Each sets itself up first.
# PYTHON chooses the interpreter (3.11 to 3.13). TORCH_ARGS goes to the one pip call that installs torch, for
# example an --index-url with builds for your accelerator. PYTEST_ARGS goes to pytest, which has two processes of one
# thread each.

PYTHON ?= python3
TORCH_ARGS ?=
PYTEST_ARGS ?=
PYTEST = -m pytest -n 2 --dist loadfile $(PYTEST_ARGS)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help setup demo test quick lint clean

help:
	@echo "make demo   train a tiny model by self-play on the CPU, then show what search adds"
	@echo "make test   run every test"
	@echo "make quick  run the fast tests, stop at the first failure"
	@echo "make lint   check style, format and types"
	@echo "make clean  remove the virtual environment and caches (runs/ stays)"

setup: $(STAMP)

# torch goes first and alone, so that no other requirement can pull in another build of it.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "tokenzero needs Python 3.11 to 3.13; try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt $(TORCH_ARGS) torch
	$(BIN)/python -m pip install --quiet -c constraints.txt --editable ".[dev]"
	@touch $@

demo: $(STAMP)
	$(BIN)/python -m tokenzero.demo --out runs/demo

test quick: export OMP_NUM_THREADS = 1

test: $(STAMP)
	$(BIN)/python $(PYTEST)

quick: $(STAMP)
	$(BIN)/python $(PYTEST) -x -m "not slow"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
