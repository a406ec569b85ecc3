# `make demo` and `make test` set everything up themselves; a second call installs nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

KILLS ?= 100
# A file's tests stay together: they share what they have run and compiled.
PARALLEL ?= --numprocesses auto --maxprocesses 4 --dist loadfile

.PHONY: demo test test-all torture lint format clean

demo: $(VENV)/.installed
	$(BIN)/fairgrape run experiments/writers.py --out runs/demo

test: $(VENV)/.installed-dev lint
	NPROC=16 $(BIN)/python -m pytest $(PARALLEL)

test-all: $(VENV)/.installed-dev lint
	NPROC=16 $(BIN)/python -m pytest $(PARALLEL) -m "not gpu"

torture: $(VENV)/.installed-dev
	$(BIN)/python tests/torture.py --kills $(KILLS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) runs build *.egg-info .pytest_cache .mypy_cache .ruff_cache
