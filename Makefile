PYTHON ?= python3
BIN = .venv/bin

.PHONY: demo test check bench clean

demo: .venv/demo  ## a small sweep on real digits, its table and its figures
	$(BIN)/python run.py -m seed=0,1,2 rewind=init,reinit
	$(BIN)/python -m analysis figures --out figures

test: .venv/test  ## the whole test suite
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

check: .venv/test  ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/demo  ## what an iteration costs, against the usual loop
	$(BIN)/python -m benchmarks.step

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv

.venv/demo: .venv/bin/python pyproject.toml
	$(BIN)/pip install --quiet --editable .
	touch $@

.venv/test: .venv/bin/python pyproject.toml
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@ .venv/demo

clean:  ## remove the environment and caches; runs and results stay
	rm -rf .venv *.egg-info .mypy_cache .pytest_cache .ruff_cache
