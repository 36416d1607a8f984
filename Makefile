PYTHON ?= python3
BIN = .venv/bin

.PHONY: demo test browser slurm-test check bench kills clean

demo: .venv/demo  ## a small sweep on real digits, its table and its figures
	$(BIN)/python run.py -m seed=0,1,2 rewind=init,reinit
	$(BIN)/python -m analysis figures --out figures

test: .venv/test  ## the whole test suite
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --ignore tests/slurm

browser:  ## what the test of the report needs (as root)
	which chromium chromedriver > /dev/null || { apt-get -qq update && apt-get -qq install -y chromium chromium-driver > /dev/null; } || echo "no Chromium to be had: its test will be skipped"

slurm-test: .venv/test  ## sweeps on a real SLURM, which is installed and started on this machine (as root)
	which slurmctld slurmd munged faketime > /dev/null || { apt-get -qq update && apt-get -qq install -y slurm-wlm munge faketime > /dev/null; } || echo "no SLURM to be had: its tests will be skipped"
	$(BIN)/python -m pytest tests/slurm

check: .venv/test  ## format, lint, layers, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy

bench: .venv/demo  ## what an iteration costs, against a baseline loop
	$(BIN)/python -m benchmarks.speed

kills: .venv/demo  ## a sweep killed 100 times at random moments, against an undisturbed one
	$(BIN)/python -m benchmarks.kills

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
