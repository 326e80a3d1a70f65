# Everything a contributor or a newcomer types. Needs GNU make and Python 3.11 or newer; the rest is installed into .venv.
.DEFAULT_GOAL := help
SHELL := /bin/sh

VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
CONSTRAINTS := constraints.txt
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
# One more than the two processors of a small machine: now and then a test waits for what it has started.
WORKERS ?= 3
PARALLEL = -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# Without compiled files every process of a test would compile all of our modules again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test test-unit test-integration test-e2e long-files campaign-lid campaign-frontends campaign-sync campaign-colab bench lint format docs clean

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' Makefile

$(STAMPS)/venv:
	@python=$$(sh scripts/find-python.sh) && "$$python" -m venv $(VENV)
	@$(PIP) install --upgrade 'pip>=25.1'
	@mkdir -p $(STAMPS) && touch $@

# The product itself, editable.
$(STAMPS)/setup: $(STAMPS)/venv pyproject.toml $(CONSTRAINTS)
	@echo "installing Colab Bridge into $(VENV) ..."
	@$(PIP) install -c $(CONSTRAINTS) -e .
	@touch $@

$(STAMPS)/examples: $(STAMPS)/setup
	@echo "installing what the examples use ..."
	@$(PIP) install -c $(CONSTRAINTS) -e '.[examples]'
	@touch $@

$(STAMPS)/test: $(STAMPS)/setup
	@echo "installing what the tests use ..."
	@$(PIP) install -c $(CONSTRAINTS) --group test --group ecosystem
	@touch $@

$(STAMPS)/lint: $(STAMPS)/test
	@$(PIP) install -c $(CONSTRAINTS) --group lint
	@touch $@

$(STAMPS)/docs: $(STAMPS)/setup
	@$(PIP) install -c $(CONSTRAINTS) --group docs
	@touch $@

setup: $(STAMPS)/setup ## Make .venv with .venv/bin/colab-bridge in it

demo: $(STAMPS)/examples ## Run examples/sales/analysis.ipynb on the local runtime
	@$(BIN)/colab-bridge run examples/sales/analysis.ipynb

test: $(STAMPS)/test ## Install what the tests need and run all of them
	@sh scripts/install-browser.sh --if-allowed
	@sh scripts/install-google-colab-cli.sh $(VENV)
	$(BIN)/python -m pytest $(PARALLEL)

test-unit: $(STAMPS)/test ## The pure, quick tests
	$(BIN)/python -m pytest -n $(WORKERS) tests/unit

test-integration: $(STAMPS)/test ## Tests with real processes on loopback
	$(BIN)/python -m pytest $(PARALLEL) tests/integration

test-e2e: $(STAMPS)/test ## Tests through the command line, editors and a browser
	@sh scripts/install-browser.sh --if-allowed
	@sh scripts/install-google-colab-cli.sh $(VENV)
	$(BIN)/python -m pytest $(PARALLEL) tests/e2e

long-files: $(STAMPS)/test ## Run all tests and note which files take long: those start first
	$(BIN)/python -m pytest $(PARALLEL) --junitxml=.test-artifacts/times.xml
	$(BIN)/python tests/long_files.py .test-artifacts/times.xml

campaign-lid: $(STAMPS)/test ## The closed lid in real time: a cell of ten minutes, everything killed at one, back at six
	COLAB_BRIDGE_LID_SCALE=1 $(BIN)/python -m pytest -n 4 --timeout 2400 tests/e2e/test_lid.py

campaign-frontends: $(STAMPS)/test ## Every front end through the tunnel, of a Jupyter server and of an isolated runtime
	COLAB_BRIDGE_CAMPAIGN=1 $(BIN)/python -m pytest -n 0 tests/e2e/test_frontends_tunnel.py

campaign-sync: $(STAMPS)/test ## A fault at every file-system call of a sync, thousands of random edits with deaths in between
	COLAB_BRIDGE_CAMPAIGN=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --timeout 14400 \
		tests/integration/sync_rows/test_rows_faults.py tests/integration/sync_rows/test_rows_properties.py \
		tests/integration/sync/test_sync_cut.py tests/integration/sync/test_sync_large.py

campaign-colab: $(STAMPS)/test ## A day on an emulated T4: tokens of an hour, ten idle gaps, twenty failures
	COLAB_BRIDGE_CAMPAIGN=1 $(BIN)/python -m pytest -n 0 tests/integration/colab_stack/test_colab_day.py

bench: $(STAMPS)/test ## Measure side by side with the alternatives and print the table
	@sh scripts/install-rsync.sh
	$(BIN)/python -m benchmarks

lint: $(STAMPS)/lint ## Style, types, layers, dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry src

format: $(STAMPS)/lint ## Put the code into its one format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(STAMPS)/docs ## Build the documentation into docs/_build
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

clean: ## Remove what was built; the state of Colab Bridge itself is not touched
	rm -rf $(VENV) build dist docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis .test-artifacts
