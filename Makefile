# All targets need Python 3.10 or newer, make and a package index, and install the rest into .venv. `make distributed` also
# needs PostgreSQL and Redis, and `make matrix` the Python versions that it names; uv downloads those that are missing.
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
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt -e '.[emulator,parquet,report]' --group dev
	touch $@

.PHONY: install
install: .venv/ready ## install everything into .venv

.PHONY: demo
demo: .venv/ready ## run the example DAGs on a real Airflow and the emulator, and check what they did
	$(BIN)/python -m tests.live.demo

.PHONY: demo-ui
demo-ui: .venv/ready ## run the demo, then open waits for the Approvals page and leave Airflow and the emulator running until Ctrl-C
	$(BIN)/python -m tests.live.demo --ui

# One more process than there are cores, because tests also wait; an idle process takes tests from others.
PROCESSES ?= $(shell $(PYTHON) -c 'import os; print(min(8, os.cpu_count() + 1))')
PARALLEL := --numprocesses=$(PROCESSES) --dist=worksteal
QUICK := not slow and not live and not browser and not e2e
PYTEST := -m pytest $(PARALLEL) $(TESTS)

.PHONY: test
test: .venv/ready ## run the quick tests and one end-to-end run on a real Airflow; TESTS=tests/unit/rules for a part
	MAX_PROCESSOR_SECONDS=5 $(BIN)/python $(PYTEST) -m '$(QUICK) or e2e'

.PHONY: test-all
test-all: .venv/browser ## run every test: all sizes, every live run, the browser
	HYPOTHESIS_PROFILE=thorough $(BIN)/python $(PYTEST) -m 'not live and not browser and not e2e'
	$(MAKE) test-live

.PHONY: test-live
test-live: .venv/browser ## run the tests on a real Airflow and in a browser; installs PostgreSQL and a browser if they are missing
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadscope --no-loadscope-reorder -m 'live or browser or e2e'

.PHONY: coverage
coverage: .venv/ready ## run the quick tests with coverage of lines and branches; fail below the limit in pyproject.toml
	$(BIN)/python $(PYTEST) -m '$(QUICK)' --cov --cov-report=term-missing:skip-covered

# The Airflow versions of the matrix, each with its Python version and, if newer libraries break it, the date of the
# newest libraries that it may use. The last one is the newest release of its minor version, or pre-release if there is no
# release yet.
AIRFLOW_3.0 := apache-airflow==3.0.6
PYTHON_3.0 ?= 3.10
LIBRARIES_3.0 := --exclude-newer 2025-09-05 --exclude-newer-package apache-airflow-providers-common-compat=2026-06-01 --exclude-newer-package hatchling=2026-06-01
AIRFLOW_3.1 := apache-airflow==3.1.8
PYTHON_3.1 ?= 3.11
LIBRARIES_3.1 := --exclude-newer 2026-03-25 --exclude-newer-package apache-airflow-providers-common-compat=2026-06-01
AIRFLOW_3.2 := apache-airflow==3.2.2
PYTHON_3.2 ?= 3.12
LIBRARIES_3.2 := --exclude-newer 2026-06-10
AIRFLOW_3.3 := apache-airflow==3.3.2
PYTHON_3.3 ?= 3.13
LIBRARIES_3.3 := -c constraints.txt
# uv takes a pre-release only of packages whose version names one.
AIRFLOW_3.4 := apache-airflow~=3.4.0b2 apache-airflow-core~=3.4.0b2 apache-airflow-task-sdk~=1.4.0b2
PYTHON_3.4 ?= 3.14

MATRIX := matrix-3.0 matrix-3.1 matrix-3.2 matrix-3.3 matrix-3.4

.PHONY: matrix compat $(MATRIX)
matrix: $(MATRIX) ## run the quick tests on each minor version of Airflow; PYTHON_3.0=/path/to/python3.10 selects a Python

compat: ## run the tests of what differs between Airflow versions, on the lowest version
	$(MAKE) matrix-3.0 MATRIX_MARKS='compat and $(QUICK)'

MATRIX_MARKS ?= $(QUICK)

# A Python version that is not available is replaced by the one of .venv, if that Airflow supports it; pytest's header says
# which one runs.
$(MATRIX): matrix-%: .venv/ready
	$(BIN)/uv venv --quiet --clear --python $(PYTHON_$*) .venv/$* || $(BIN)/uv venv --quiet --clear --python $(PYTHON) .venv/$*
	$(BIN)/uv pip install --quiet --compile-bytecode --python .venv/$*/bin/python $(LIBRARIES_$*) $(AIRFLOW_$*) -e '.[emulator,parquet,report]' --group dev
	.venv/$*/bin/python $(PYTEST) -m '$(MATRIX_MARKS)'

.PHONY: faults
faults: .venv/ready ## kill, suspend and reject every action at each of its requests and stored states, and check the result
	$(BIN)/python -m tests.robustness.faults

.PHONY: kills
kills: .venv/ready ## kill triggerer and scheduler of a real Airflow while 100 tasks and an event trigger wait
	$(BIN)/python -m tests.live.kills

.PHONY: load
load: .venv/ready ## run 200 tasks with side effects at once on a real Airflow, within Procore's rate limit
	$(BIN)/python -m tests.robustness.load

.venv/distributed: .venv/ready
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv/engines
	$(BIN)/uv pip install --quiet --compile-bytecode --python .venv/engines/bin/python -c constraints.txt -e '.[emulator]' --group distributed
	touch $@

.PHONY: distributed
distributed: .venv/distributed ## kill workers, triggerers and the scheduler of an Airflow with Celery, PostgreSQL and Redis while 500 tasks wait
	.venv/engines/bin/python -m tests.live.distributed

.venv/bench: .venv/ready
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt --group bench
	touch $@

.PHONY: bench
bench: .venv/bench ## measure what waiting costs, compared with Airflow's HTTP triggers; BENCH=--quick takes three minutes
	$(BIN)/python -m benchmarks.waits $(BENCH)

.PHONY: bench-report
bench-report: .venv/ready ## measure the cycle-time report of a million step rows; fail above 60 s or 1 GB
	$(BIN)/python -m benchmarks.cycle_times

.PHONY: backtest
backtest: .venv/ready ## print how often the report's forecasts hold on histories that the emulator plays
	$(BIN)/python -m benchmarks.forecasts

.PHONY: audit
audit: .venv/ready ## check the tested dependencies for known vulnerabilities
	$(BIN)/uv tool run --quiet pip-audit==2.10.1 --requirement constraints.txt --no-deps --disable-pip --strict --progress-spinner off || { echo "Not proven: either a vulnerability is listed above, or the index's vulnerability service did not respond for a package." >&2; exit 1; }

.venv/docs: .venv/ready
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt --group docs
	touch $@

.PHONY: generate
generate: .venv/ready ## write the parts of the documentation that are made from code and data
	$(BIN)/python -m docs.generate

.PHONY: docs
docs: .venv/docs ## build the documentation site in dist/docs; a warning is an error
	$(BIN)/python -m sphinx --quiet --fail-on-warning -b html docs dist/docs

# Use the browser of this machine, or Debian's, or the one that Playwright downloads. PostgreSQL is installed before the
# tests, because two processes cannot install it at once.
.venv/browser: .venv/ready
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt --group browser
	command -v chromium || command -v chromium-browser || command -v google-chrome || apt-get install --yes --quiet chromium || { apt-get update --quiet && apt-get install --yes --quiet chromium; } || $(BIN)/playwright install chromium
	$(BIN)/python -m tests.support.engines
	touch $@

.PHONY: browser
browser: .venv/browser ## test Airflow's pages and the emulator's page in a real browser; SCREENSHOTS=1 updates the documentation's pictures
	$(BIN)/python -m pytest tests/browser

.PHONY: wheel
wheel: .venv/ready ## build the release in dist, and fail on a wrong version or content; TAG=v1.2.3
	rm -rf dist/*.whl dist/*.tar.gz dist/*.cdx.json
	$(BIN)/python -m tests.support.release dist --tag '$(TAG)'

.PHONY: release-check
release-check: .venv/ready ## run everything that a release must pass, and print the checklist; TAG=v1.2.3, CHECKS="wheel docs" for a part
	$(BIN)/python -m tests.support.release_check $(CHECKS)

.PHONY: lint
lint: .venv/ready ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: typecheck
typecheck: .venv/ready ## check types
	$(BIN)/mypy

.PHONY: format
format: .venv/ready ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: hooks
hooks: .venv/ready ## install the pre-commit hooks: style and types before every commit
	$(BIN)/pre-commit install

.PHONY: constraints
constraints: ## choose new versions of all dependencies
	test -x $(BIN)/uv || { $(PYTHON) -m venv .venv && $(BIN)/python -m pip install --quiet uv; }
	$(BIN)/uv pip compile --quiet --universal --upgrade --python-version 3.10 --all-extras --group dev --group bench --group browser --group distributed --group docs --no-annotate --no-header -o constraints.txt pyproject.toml
	$(MAKE) sbom

.PHONY: sbom
sbom: .venv/ready ## write sbom.cdx.json, the bill of materials that the wheel carries, from pyproject.toml and constraints.txt
	$(BIN)/python -m tests.support.sbom

.PHONY: clean
clean: ## remove everything that the targets created
	rm -rf .venv dist .coverage .mypy_cache .pytest_cache .ruff_cache
