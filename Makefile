PYTHON ?= python3
BIN = .venv/bin
WORKERS ?= 2
PYTEST = $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal
APT = test $$(id -u) = 0 && apt-get -qq update > /dev/null && apt-get -qq install -y > /dev/null

.PHONY: demo test test-all test-most browser slurm slurm-test check docs bench kills faults clean

demo: .venv/demo  ## a small sweep on real digits, its table and its figures
	$(BIN)/python run.py -m seed=0,1,2 rewind=init,reinit
	$(BIN)/python -m analysis figures --out figures

test: .venv/test  ## the laws and one sweep from end to end, within 5 minutes on two cores
	$(PYTEST) -m "not slow" --ignore tests/slurm

test-all: test-most slurm-test  ## every test; with make -j2 in 22 minutes on two cores

test-most: .venv/test browser  ## every test but those on SLURM
	$(PYTEST) --ignore tests/slurm

browser:  ## install what the test of the report needs (as root)
	which chromium chromedriver > /dev/null || { $(APT) chromium chromium-driver; } || echo "Chromium cannot be installed: its test is skipped"

slurm: | browser  ## install what the tests on a real SLURM need (as root)
	which slurmctld slurmd munged faketime > /dev/null || { $(APT) slurm-wlm munge faketime; } || echo "SLURM cannot be installed: its tests are skipped"

slurm-test: .venv/test slurm  ## sweeps on a real SLURM, started on this machine (as root)
	$(BIN)/python -m pytest tests/slurm

check: .venv/test  ## format, lint, layers, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy

bench: .venv/demo  ## the cost of an iteration, against a baseline loop
	$(BIN)/python -m benchmarks.speed
	$(BIN)/python -m benchmarks.convolutions

docs: .venv/docs  ## write the documentation to site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "To read it: $(BIN)/python -m http.server --bind 127.0.0.1 --directory site"

kills: .venv/demo  ## a sweep killed 100 times at random moments, against an undisturbed one
	$(BIN)/python -m benchmarks.kills

faults: .venv/demo  ## a run with each of its file operations failing in turn, and run again
	$(BIN)/python -m benchmarks.faults

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv

.venv/demo: .venv/bin/python pyproject.toml
	$(BIN)/pip install --quiet --editable .
	touch $@

.venv/test: .venv/bin/python pyproject.toml
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@ .venv/demo .venv/docs

.venv/docs: .venv/bin/python pyproject.toml
	$(BIN)/pip install --quiet --editable '.[docs]'
	touch $@ .venv/demo

clean:  ## remove the environment and caches; runs and results stay
	rm -rf .venv site *.egg-info .mypy_cache .pytest_cache .ruff_cache
