# Two commands are enough: `make demo` and `make test`. They need python3, make and git, and make their own .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# Tests that `make minimums` and `make sdist-test` run: without the browser, damaged files and clusters that are disturbed.
PART ?= tests/calibration tests/engine tests/formats tests/picking tests/simulation tests/project tests/stages tests/stores $(wildcard tests/test_*.py)

.DEFAULT_GOAL := environment
.PHONY: help demo test nightly coverage bench fuzz docs environment system lint wheel pythons minimums sdist-test clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/\1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 14

environment: $(VENV)/.ready  ## .venv with pickcal, editable, and all that tests and linters need (the default)

$(VENV)/.ready: pyproject.toml constraints.txt
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) \
	  || { echo "python3 cannot make virtual environments; as root: apt-get install python3-venv"; exit 1; }
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: environment  ## simulated micrographs through the whole job: figures, plots, report
	rm -rf demo
	$(BIN)/pickcal run jobs/demo.toml

# What some tests run beside pickcal, each as PROGRAM:PACKAGE. Packages are installed one by one, so that one that cannot
# be had keeps none of the others away; tests of what is then still missing skip and say so.
BESIDE := relion_autopick:relion chromium:chromium shellcheck:shellcheck sbatch:slurm-wlm munged:munge ip:iproute2 \
	docker-compose:docker-compose openssl:openssl
absent = for each in $(BESIDE); do command -v "$${each%%:*}" >/dev/null || echo "$${each\#*:}"; done

system:  ## Debian's RELION, Chromium, ShellCheck, SLURM, Compose and iproute2, where this may install them
	@absent=$$($(absent)); \
	if [ -z "$$absent" ]; then exit 0; fi; \
	if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  apt-get update -qq || true; \
	  for package in $$absent; do \
	    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$$package" >/dev/null || true; \
	  done; \
	  why="could not be installed"; \
	else why="not root to install them"; fi; \
	absent=$$($(absent)); \
	if [ -n "$$absent" ]; then echo "missing, $$why: $$(echo $$absent); their tests will be skipped"; fi

# Bytecode of an editable package is written once, as pip does for others: hundreds of processes would each compile it
# where PYTHONDONTWRITEBYTECODE is set, as it is in many containers.
test: environment system  ## all tests, but what is marked nightly
	$(BIN)/python -m compileall -q pickcal
	$(BIN)/python -m pytest
	@echo "not run: what is marked nightly (make nightly):"; $(BIN)/python -m pytest -m nightly --collect-only -qq -n 0

nightly: environment system  ## whole journeys in the browser, whose parts other tests hold
	$(BIN)/python -m pytest -m nightly

# Slower than the tests alone. What is left of an interrupted run is added to: TESTS=tests/formats measures a part.
coverage: environment system  ## which branches the tests take, in all processes; TESTS=tests/... adds a part to what was measured
	$(if $(TESTS),,$(BIN)/coverage erase)
	$(BIN)/coverage run -m pytest $(TESTS)
	$(BIN)/coverage combine --append --quiet
	$(BIN)/coverage report

# Nightly: 100,000 damaged inputs for every reader of foreign files (the suite has 2,000); hours on two cores.
fuzz: environment  ## 100,000 damaged files for every reader: hours
	PICKCAL_FUZZ_INPUTS=$${PICKCAL_FUZZ_INPUTS:-100000} $(BIN)/python -m pytest --numprocesses 2 --dist load tests/fuzz -k damaged

# What picking costs and how well it picks, beside RELION and, where it is on the PATH, Topaz: docs/benchmarks.md.
# BENCH=--full adds the long runs; python -m tests.benchmarks.pickers --help tells the rest.
bench: environment system  ## what picking costs, and how well it picks
	$(BIN)/python -m tests.benchmarks.pickers $(BENCH)

lint: environment  ## ruff, mypy and, where it is installed, ShellCheck
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@if command -v shellcheck >/dev/null; then shellcheck $(wildcard .ci/run) deploy/slurm/*.sh; \
	else echo "shellcheck is not installed: scripts not checked"; fi

# NO_MKDOCS_2_WARNING: else the theme tells of a version that pyproject.toml excludes.
docs: environment  ## the site of docs/, into build/site; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --config-file docs/site/mkdocs.yml

wheel: environment  ## source distribution, and the wheel built from it alone, into dist/
	rm -rf dist
	$(BIN)/python -m build --outdir dist

pythons: wheel  ## the wheel in a fresh environment of every supported Python that is here, with a job
	$(BIN)/python tools/try_wheel.py $(PYTHONS)

minimums:  ## the lowest versions that pyproject.toml allows, with a job and a part of the tests
	rm -rf .venv-minimums
	$(PYTHON) -m venv .venv-minimums
	$(PYTHON) tools/minimums.py >.venv-minimums/constraints.txt
	.venv-minimums/bin/pip install --quiet --constraint .venv-minimums/constraints.txt --editable '.[test]'
	cd .venv-minimums && rm -rf smoke && bin/pickcal run ../jobs/smoke.toml
	@# old versions of other packages use one another in ways that are deprecated since
	.venv-minimums/bin/python -m pytest -W ignore::DeprecationWarning $(PART)

sdist-test: wheel  ## unpack the source distribution elsewhere, and run a part of the tests there
	@set -e; there=$$(mktemp -d); trap 'rm -rf "$$there"' EXIT; \
	tar -xzf dist/pickcal-*.tar.gz -C "$$there" --strip-components 1; \
	$(MAKE) --no-print-directory -C "$$there" environment; \
	cd "$$there"; PICKCAL_TEST_DATA=$${PICKCAL_TEST_DATA:-$(abspath ../shared/data)} .venv/bin/python -m pytest $(PART)

clean:  ## remove what these targets made, but .venv
	rm -rf demo bench dist build .venv-minimums .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis
