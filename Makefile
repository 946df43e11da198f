# Two commands are enough: `make demo` and `make test`. They need python3, make and git, and make their own .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test nightly bench fuzz environment system lint wheel clean

environment: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) \
	  || { echo "python3 cannot make virtual environments; as root: apt-get install python3-venv"; exit 1; }
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: environment
	rm -rf demo
	$(BIN)/pickcal run jobs/demo.toml

# RELION and Chromium are compared with and driven by some tests; where they cannot be installed, those tests skip
# and say so.
system:
	@if command -v relion_autopick >/dev/null && command -v chromium >/dev/null; then :; \
	elif command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends relion chromium \
	    >/dev/null || echo "relion or chromium could not be installed: their tests will be skipped"; \
	else echo "no relion or chromium, and not root to install them: their tests will be skipped"; fi

test: environment system
	$(BIN)/python -m pytest
	@echo "not run: what is marked nightly (make nightly):"; $(BIN)/python -m pytest -m nightly --collect-only -qq -n 0

nightly: environment system
	$(BIN)/python -m pytest -m nightly

# Nightly: 100,000 damaged inputs for every reader of foreign files (the suite has 2,000); hours on two cores.
fuzz: environment
	PICKCAL_FUZZ_INPUTS=$${PICKCAL_FUZZ_INPUTS:-100000} $(BIN)/python -m pytest --numprocesses 2 --dist load tests/fuzz -k damaged

# What picking costs and how well it picks, beside RELION and, where it is on the PATH, Topaz: docs/benchmarks.md.
# BENCH=--full adds the long runs; python -m tests.benchmarks.pickers --help tells the rest.
bench: environment system
	$(BIN)/python -m tests.benchmarks.pickers $(BENCH)

lint: environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

wheel: environment
	rm -rf dist
	$(BIN)/python -m build --outdir dist

clean:
	rm -rf demo bench dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
