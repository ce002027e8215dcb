# orionbed: `make demo` and `make test` set everything up on a fresh machine; nothing else is needed but Python >= 3.11.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# Without byte-compiling at install time the set-up takes a third of the time; Python compiles on first import.
PIP    := $(BIN)/pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt

.PHONY: demo test check bench clean
.DEFAULT_GOAL := demo

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	$(PIP) --editable '.[dev]' torch==2.13.0
	@touch $@

demo: $(VENV)/.core   ## simulate the complete Orion-100B run and print where the report is
	$(BIN)/orionbed run scenarios/orion-100b.yaml --force

check: $(VENV)/.dev   ## lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: check           ## everything CI runs
	$(BIN)/pytest --numprocesses 2 --dist loadgroup

bench: $(VENV)/.dev   ## speed, as ratios against a named rival in the same run
	$(BIN)/python -m benchmarks

clean:                ## remove what the targets made; runs/ stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
