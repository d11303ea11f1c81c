# Everything needs Python 3.10 or newer, make and a package index; the rest is installed into .venv.
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

.PHONY: test
test: .venv/ready ## run all tests, the end-to-end run on a real Airflow included, and print the coverage
	$(BIN)/python -m pytest --cov --cov-report=term-missing:skip-covered

.venv/bench: .venv/ready
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt --group bench
	touch $@

.PHONY: bench
bench: .venv/bench ## measure what waiting costs, beside Airflow's own HTTP triggers; BENCH=--quick for two minutes
	$(BIN)/python -m benchmarks.waits $(BENCH)

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

.PHONY: constraints
constraints: ## choose new versions of everything that is installed
	test -x $(BIN)/uv || { $(PYTHON) -m venv .venv && $(BIN)/python -m pip install --quiet uv; }
	$(BIN)/uv pip compile --quiet --universal --upgrade --python-version 3.10 --all-extras --group dev --group bench --no-annotate --no-header -o constraints.txt pyproject.toml

.PHONY: clean
clean: ## remove what the targets made
	rm -rf .venv dist .coverage .mypy_cache .pytest_cache .ruff_cache
