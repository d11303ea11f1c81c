# Everything needs Python 3.10 or newer, make and a package index; the rest is installed into .venv. `make distributed` needs
# PostgreSQL and Redis as well, and `make matrix` the Pythons it names, which uv fetches where they are missing.
PYTHON ?= python3
BIN := .venv/bin
# Without compiled bytecode every Airflow process compiles all of Airflow again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | awk -F'\t' '{printf "%-14s %s\n", $$1, $$2}'

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or newer is needed: make PYTHON=/path/to/python3") if sys.version_info < (3, 10) else None'
	test -x $(BIN)/uv || { $(PYTHON) -m venv .venv && $(BIN)/python -m pip install --quiet uv; }
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt -e '.[emulator,parquet]' --group dev
	touch $@

.PHONY: install
install: .venv/ready ## install everything into .venv

.PHONY: demo
demo: .venv/ready ## run the example DAGs on a real Airflow and the emulator, and check what they did
	$(BIN)/python -m tests.live.demo

.PHONY: demo-ui
demo-ui: .venv/ready ## the same, then leave Airflow and the emulator running until Ctrl-C
	$(BIN)/python -m tests.live.demo --ui

# Two processes more than the two cores of a small machine, because tests also wait; an idle one takes tests from others.
PROCESSES ?= 4
PARALLEL := --numprocesses=$(PROCESSES) --dist=worksteal
QUICK := not slow and not live and not browser and not e2e
PYTEST := -m pytest $(PARALLEL) $(TESTS)

.PHONY: test
test: .venv/ready ## run the unit, emulator and integration tests, then one end-to-end run on a real Airflow
	MAX_PROCESSOR_SECONDS=5 $(BIN)/python $(PYTEST) -m '$(QUICK)'
	$(BIN)/python -m pytest -m e2e

.PHONY: test-all
test-all: .venv/browser ## run every test: all sizes, every live run, the browser
	HYPOTHESIS_PROFILE=thorough $(BIN)/python $(PYTEST) -m 'not live and not browser and not e2e'
	$(MAKE) test-live

.PHONY: test-live
test-live: .venv/browser ## run the tests on a real Airflow and in a browser; PostgreSQL and a browser are installed where they are missing
	$(BIN)/python -m pytest -m 'live or browser or e2e'

.PHONY: coverage
coverage: .venv/ready ## run the quick tests with coverage of lines and branches, and fail below what pyproject.toml demands
	$(BIN)/python $(PYTEST) -m '$(QUICK)' --cov --cov-report=term-missing:skip-covered

# The Airflow versions that the matrix runs, each with the Python it is meant for and, where it breaks on newer
# libraries, the day whose libraries it takes.
AIRFLOW_3.0 := 3.0.6
PYTHON_3.0 ?= 3.10
LIBRARIES_3.0 := --exclude-newer 2025-09-05 --exclude-newer-package apache-airflow-providers-common-compat=2026-06-01
AIRFLOW_3.1 := 3.1.8
PYTHON_3.1 ?= 3.11
LIBRARIES_3.1 := --exclude-newer 2026-03-25 --exclude-newer-package apache-airflow-providers-common-compat=2026-06-01
AIRFLOW_3.2 := 3.2.2
PYTHON_3.2 ?= 3.12
LIBRARIES_3.2 := --exclude-newer 2026-06-10
AIRFLOW_3.3 := 3.3.2
PYTHON_3.3 ?= 3.13
LIBRARIES_3.3 := -c constraints.txt

MATRIX := matrix-3.0 matrix-3.1 matrix-3.2 matrix-3.3

.PHONY: matrix compat $(MATRIX)
matrix: $(MATRIX) ## run the quick tests on each minor version of Airflow; PYTHON_3.0=/path/to/python3.10 and the like

compat: ## run the tests that meet Airflow where its versions differ, on the lowest version
	$(MAKE) matrix-3.0 MATRIX_MARKS='compat and $(QUICK)'

MATRIX_MARKS ?= $(QUICK)

# A Python that is neither here nor to be had is replaced by the one that runs the rest, if that Airflow takes it; pytest
# says which it is.
$(MATRIX): matrix-%: .venv/ready
	$(BIN)/uv venv --quiet --clear --python $(PYTHON_$*) .venv/$* || $(BIN)/uv venv --quiet --clear --python $(PYTHON) .venv/$*
	$(BIN)/uv pip install --quiet --compile-bytecode --python .venv/$*/bin/python $(LIBRARIES_$*) apache-airflow==$(AIRFLOW_$*) -e '.[emulator,parquet]' --group dev
	.venv/$*/bin/python $(PYTEST) -m '$(MATRIX_MARKS)'

.PHONY: faults
faults: .venv/ready ## kill, suspend and refuse every action at each of its requests and notes, and print what became of it
	$(BIN)/python -m tests.robustness.faults

.PHONY: kills
kills: .venv/ready ## kill triggerer and scheduler of a real Airflow while 100 tasks and an event trigger wait
	$(BIN)/python -m tests.live.kills

.PHONY: load
load: .venv/ready ## let 200 tasks act at once on a real Airflow, within Procore's rate limit
	$(BIN)/python -m tests.robustness.load

.venv/distributed: .venv/ready
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv/engines
	$(BIN)/uv pip install --quiet --compile-bytecode --python .venv/engines/bin/python -c constraints.txt -e '.[emulator]' --group distributed
	touch $@

.PHONY: distributed
distributed: .venv/distributed ## kill workers, triggerers and the scheduler of an Airflow with Celery, PostgreSQL and Redis while 500 tasks wait, and stop a triggerer
	.venv/engines/bin/python -m tests.live.distributed

.venv/bench: .venv/ready
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt --group bench
	touch $@

.PHONY: bench
bench: .venv/bench ## measure what waiting costs, beside Airflow's own HTTP triggers; BENCH=--quick for three minutes
	$(BIN)/python -m benchmarks.waits $(BENCH)

.PHONY: audit
audit: .venv/ready ## ask the package index whether a version that was tested has a known vulnerability
	$(BIN)/uv tool run --quiet pip-audit==2.10.1 --requirement constraints.txt --no-deps --disable-pip --strict --progress-spinner off || { echo "Not proved: either a vulnerability is named above, or the index's vulnerability service did not answer for a package." >&2; exit 1; }

.venv/docs: .venv/ready
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt --group docs
	touch $@

.PHONY: generate
generate: .venv/ready ## write the tables of the documentation that are made from data
	$(BIN)/python -m docs.generate

.PHONY: docs
docs: .venv/docs ## build the documentation site in dist/docs; a warning is an error
	$(BIN)/python -m sphinx --quiet --fail-on-warning -b html docs dist/docs

# The browser is the one of this machine, or Debian's, or the one that Playwright fetches.
.venv/browser: .venv/ready
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt --group browser
	command -v chromium || command -v chromium-browser || command -v google-chrome || apt-get install --yes --quiet chromium || { apt-get update --quiet && apt-get install --yes --quiet chromium; } || $(BIN)/playwright install chromium
	touch $@

.PHONY: browser
browser: .venv/browser ## look at Airflow's pages and the emulator's in a real browser; SCREENSHOTS=1 renews the pictures in the documentation
	$(BIN)/python -m pytest tests/browser

.PHONY: wheel
wheel: .venv/ready ## build what is released in dist, and refuse a wrong version or content; TAG=v1.2.3
	rm -rf dist/*.whl dist/*.tar.gz
	$(BIN)/python -m tests.support.release dist --tag '$(TAG)'

.PHONY: lint
lint: .venv/ready ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: typecheck
typecheck: .venv/ready ## check types
	$(BIN)/mypy

.PHONY: format
format: .venv/ready ## put the code into its format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: hooks
hooks: .venv/ready ## check style and types before every commit
	$(BIN)/pre-commit install

.PHONY: constraints
constraints: ## choose new versions of everything that is installed
	test -x $(BIN)/uv || { $(PYTHON) -m venv .venv && $(BIN)/python -m pip install --quiet uv; }
	$(BIN)/uv pip compile --quiet --universal --upgrade --python-version 3.10 --all-extras --group dev --group bench --group browser --group distributed --group docs --no-annotate --no-header -o constraints.txt pyproject.toml

.PHONY: clean
clean: ## remove what the targets made
	rm -rf .venv dist .coverage .mypy_cache .pytest_cache .ruff_cache
