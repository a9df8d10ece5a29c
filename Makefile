# The two commands: `make demo` does the main job from nothing, `make test` passes the tests from nothing.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint bench samples serve wheel clean help

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

# The project is installed as a path: the finder that setuptools prefers is imported by every interpreter that starts,
# which takes more than all else that it does then (24 of 39 ms).
# pip would compile what it installs on one core, which takes half of its time; a few templates are no Python. The tests
# that packages bring along, a quarter of all, are imported by nobody. The packages of this project are compiled with
# the others, or each process of the tests would compile them. Once: to look at what is compiled takes seconds, too.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
PIP_WHEEL := $(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation
COMPILE := $(BIN)/python -m compileall -qq -j 0 -x '/tests?/' .venv/lib catalog recommender runner tierserver >/dev/null || true

.venv/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Tierwise needs Python >= 3.11, got $$($(PYTHON) --version). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@$(PYTHON) -m venv .venv
	@echo "Installing the locked packages into .venv ..."
	@$(PIP) --constraint requirements.lock --config-settings editable_mode=compat --editable '.[postgres]'
	@$(if $(filter demo serve,$(MAKECMDGOALS)),$(COMPILE))
	@touch $@

.venv/.ready: .venv/.installed
	@echo "Installing what the tests and checks need beside them ..."
	@$(PIP) --requirement requirements.lock
	@$(COMPILE)
	@touch $@

demo: .venv/.installed  ## fill the catalog, print the leaderboard, ask the recommender
	@$(BIN)/python -m runner.demo

# Six processes share two cores, since many tests wait; then what measures has the machine to itself. The tests start
# hundreds of Python processes: without bytecode each would compile all that it imports.
test: export PYTHONDONTWRITEBYTECODE =
# The threads of numpy's OpenBLAS wait busily: where six processes share two cores, what they gain others lose thrice.
test: export OPENBLAS_NUM_THREADS = 1
test: .venv/.ready  ## run the tests
	@$(BIN)/python -m pytest --processes 6

lint: .venv/.ready  ## ruff, mypy, import rules, names
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/test_names.py

bench: .venv/.ready  ## print the benchmarks' ratios (minutes; Docker for the transport)
	$(BIN)/python -m benchmarks.start
	$(BIN)/python -m benchmarks.statistics
	$(BIN)/python -m benchmarks.operators
	$(BIN)/python -m benchmarks.operators_growth
	$(BIN)/python -m benchmarks.exchange
	$(BIN)/python -m benchmarks.quantization
	$(BIN)/python -m benchmarks.coverage
	$(BIN)/python -m benchmarks.transport
	$(BIN)/python -m benchmarks.whatif
	$(BIN)/python -m benchmarks.recommend

samples: .venv/.ready  ## renew what README and docs show of commands
	$(BIN)/python -m tests.doc_samples
	$(BIN)/python -m tests.recommender.test_example

serve: .venv/.installed  ## serve the recommender on loopback
	@$(BIN)/recommender

wheel: .venv/.ready  ## build the wheel of the tier server, for a phone or a board, into dist/
	@$(PIP_WHEEL) --wheel-dir dist ./packaging/tierserver && ls dist

clean:  ## remove what the build and the demo made here (the database stays)
	rm -rf .venv .tierwise build dist *.egg-info packaging/tierserver/build packaging/tierserver/*.egg-info
