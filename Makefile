# `make audit` and `make test` need nothing but Python >= 3.11 and make; both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup audit test test-all soak lint bench mutation docs clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "microtome needs Python >= 3.11, got " + sys.version.split()[0])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

audit: setup
	$(BIN)/microtome audit examples/creatures-random.yaml
	$(BIN)/microtome audit examples/creatures.yaml
	$(BIN)/microtome compare creatures-random creatures --workspace examples/.microtome

TOGETHER := --numprocesses logical --dist loadfile --no-loadscope-reorder

test: setup
	$(BIN)/python -m pytest $(TOGETHER) -m "not slow"

test-all: setup
	$(BIN)/python -m pytest $(TOGETHER)

soak: setup
	MICROTOME_SOAK=1 $(BIN)/python -m pytest -m soak -o faulthandler_timeout=3600

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	$(BIN)/python benchmarks/dissection.py | tee benchmarks/results/dissection.jsonl
	$(BIN)/python benchmarks/dissection.py --memory | tee benchmarks/results/memory.jsonl

mutation: setup
	$(BIN)/python benchmarks/mutation.py > benchmarks/results/mutation.md

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) .microtome examples/.microtome site
