# The README's two commands. `make demo` shows the library at work, `make test` proves it.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check clean

$(BIN)/headfirst: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -e .
	@touch $@

.venv/.test: $(BIN)/headfirst
	$(BIN)/pip install -e '.[test]'
	@touch $@

.venv/.dev: .venv/.test
	$(BIN)/pip install -e '.[dev]'
	@touch $@

demo: $(BIN)/headfirst
	$(BIN)/headfirst run --out headfirst-run

test: .venv/.test
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile

check: .venv/.dev
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/check

clean:
	rm -rf .venv headfirst-run
