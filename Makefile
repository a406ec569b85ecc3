# `make demo` and `make test` set everything up themselves; a second call installs nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

KILLS ?= 100
# A file's tests stay together: they share what they have run and compiled. In conftest.py's order.
PARALLEL ?= --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
ONE_PROCESS := not slow and not multiprocess and not gpu and not plan and not onnx

.PHONY: demo test test-whole test-hosts test-pods test-all test-plan test-onnx plan-check docs torture fuzz mutants audit versions wheel lint format clean

demo: $(VENV)/.installed
	$(BIN)/fairgrape run experiments/demo.py --out runs/demo

test: $(VENV)/.installed-dev lint
	NPROC=16 $(BIN)/python -m pytest $(PARALLEL)

# Whole runs, networks and pages for each row of a table, of which the fast suite has some.
test-whole: $(VENV)/.installed-dev
	NPROC=16 $(BIN)/python -m pytest $(PARALLEL) -m "whole and $(ONE_PROCESS)"

# What takes several processes: hosts that die, runs that are killed, and a stranger who follows the
# README and the tutorials with the installed wheel.
test-hosts: $(VENV)/.installed-dev
	NPROC=16 $(BIN)/python -m pytest $(PARALLEL) -m "multiprocess and not slow and not gpu"

# A run of 16 processes of which some are killed: more than ten CPU minutes.
test-pods: $(VENV)/.installed-dev
	NPROC=16 $(BIN)/python -m pytest -s -m "multiprocess and slow" tests/parallel/test_pods.py

test-all: $(VENV)/.installed-dev lint
	NPROC=16 $(BIN)/python -m pytest $(PARALLEL) -m "not gpu"

# Twenty programs compiled for TPUs and GPUs that are not here, in an environment with their compilers:
# 4.4 CPU minutes. Where these cannot be installed it says so and is passed over.
test-plan: $(VENV)/.installed-dev
	@if $(MAKE) --no-print-directory build/plan/.installed; then \
	  NPROC=16 build/plan/bin/python -m pytest --numprocesses 2 --dist load -m plan tests/plan; \
	else echo "test-plan: skipped, libtpu or the CUDA plugin cannot be installed here"; fi

# The same for the whole grid of models, programs, chips, lifts and precisions: hours.
plan-check: $(VENV)/.installed-dev build/plan/.installed
	build/plan/bin/python -m tools.plan_check

# Programs in ONNX, made by jax2onnx and run by onnxruntime, in an environment of their own; where
# these cannot be installed it says so and is passed over.
test-onnx: $(VENV)/.installed-dev
	@if $(MAKE) --no-print-directory build/onnx/.installed; then \
	  NPROC=16 build/onnx/bin/python -m pytest -m onnx tests/exporters/test_onnx.py; \
	else echo "test-onnx: skipped, jax2onnx or onnxruntime cannot be installed here"; fi

build/onnx/.installed: pyproject.toml
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python build/onnx
	$(BIN)/uv pip install --quiet --python build/onnx/bin/python --editable '.[dev,onnx]'
	touch $@

# The compilers alone: libtpu and NVIDIA's plugin, none of NVIDIA's libraries.
build/plan/.installed: pyproject.toml
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python build/plan
	$(BIN)/uv pip install --quiet --python build/plan/bin/python --editable '.[dev,tpu]'
	version=$$(build/plan/bin/python -c 'import jaxlib; print(jaxlib.__version__)') && \
	  $(BIN)/uv pip install --quiet --python build/plan/bin/python "jax-cuda13-plugin==$$version" "jax-cuda13-pjrt==$$version"
	touch $@

# The site of docs/, in build/site; a warning is an error.
docs: build/docs/.installed
	NO_MKDOCS_2_WARNING=1 JAX_PLATFORMS=cpu build/docs/bin/mkdocs build --quiet
	@echo "docs: build/site/index.html"

build/docs/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m venv build/docs
	build/docs/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	touch $@

torture: $(VENV)/.installed-dev
	$(BIN)/python -m tests.helpers.torture --kills $(KILLS)

# Bad input: CASES new cases (2400) of all kinds, and how many of each ended how.
fuzz: $(VENV)/.installed-dev
	NPROC=16 CASES=$(or $(CASES),2400) $(BIN)/python -m pytest -m slow tests/cli/test_fuzz.py -k new_cases

# How many small changes of the source the tests notice; MUTANTS="--only masks" for a part of it.
mutants: $(VENV)/.installed-dev
	$(BIN)/python -m tools.mutants $(MUTANTS)

# Known vulnerabilities of what is installed; says so where the service cannot be reached.
audit: $(VENV)/.installed-dev
	$(BIN)/python tools/audit.py $(AUDIT)

# The fast suite and the whole runs, or TESTS of them, with the oldest versions that pyproject.toml
# allows, and the newest.
versions: versions-lowest-direct versions-highest

versions-%: $(VENV)/.installed-dev
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python build/$*
	$(BIN)/uv pip install --quiet --python build/$*/bin/python --resolution $* --upgrade --editable '.[dev]'
	$(BIN)/uv pip list --quiet --python build/$*/bin/python
	NPROC=16 build/$*/bin/python -m pytest $(PARALLEL) -m "$(ONE_PROCESS)" $(TESTS)

# Wheel and sdist, what is in them, and the fast suite and the whole runs, or TESTS of them, on the
# wheel: the tests are copied to where the source is not.
wheel: $(VENV)/.installed-dev
	rm -rf build/wheel
	$(BIN)/uv build --quiet --out-dir build/wheel/dist
	$(BIN)/python tools/wheel.py build/wheel/dist
	$(BIN)/uv venv --quiet --python $(BIN)/python build/wheel/venv
	$(BIN)/uv pip install --quiet --python build/wheel/venv/bin/python "$$(ls build/wheel/dist/*.whl)[dev]"
	mkdir build/wheel/tree
	cp -r tests tools experiments docs README.md Makefile pyproject.toml build/wheel/tree
	cd build/wheel/tree && ../venv/bin/python -c 'import fairgrape_jax as f; print(f.__file__); assert "site-packages" in f.__file__'
	cd build/wheel/tree && NPROC=16 FAIRGRAPE_SHARED=$${FAIRGRAPE_SHARED:-$(abspath ../shared)} ../venv/bin/python -m pytest $(PARALLEL) -m "$(ONE_PROCESS)" $(or $(TESTS),tests --pyargs fairgrape_jax)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

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
