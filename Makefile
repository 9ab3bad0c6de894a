# The two commands: `make run` and `make test`. Both set up everything they need in .venv/ first.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Set in many images. The install leaves byte code out (it takes as long as the packages); without it each `medvec` that
# the tests start would compile its thousands of modules again.
export PYTHONDONTWRITEBYTECODE :=
QUESTION ?= contrast enhanced CT of the liver

.PHONY: run test unit integration e2e serve servers bench lint format setup clean

run: $(STAMP)  ## the main job on the embedded default, then one real question
	$(BIN)/medvec run
	$(BIN)/medvec search "$(QUESTION)" --limit 5

serve: $(STAMP)  ## Dagster UI, daemon and query service on this machine
	$(BIN)/medvec serve

test: $(STAMP)  ## lint, unit, integration and end-to-end tests on real servers they start themselves
	$(MAKE) lint
	$(BIN)/python -m pytest tests/unit -n 2
	$(MAKE) servers
	$(BIN)/python -m pytest tests/e2e tests/integration -n 3 --dist loadfile --no-loadscope-reorder

unit: $(STAMP)
	$(BIN)/python -m pytest tests/unit -n 2

integration: servers
	$(BIN)/python -m pytest tests/integration

e2e: $(STAMP)
	$(BIN)/python -m pytest tests/e2e

servers: $(STAMP)  ## the pinned real servers of the tests and benchmarks (some from Debian: needs root once)
	$(BIN)/python -m tests.services

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)  ## ratios to the bare model, client and write; results go to docs/benchmarks.md by hand
	$(BIN)/python -m bench

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt setuptools
	$(BIN)/python -m pip install --quiet --no-compile --no-build-isolation --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) .venv-servers .medvec build *.egg-info
