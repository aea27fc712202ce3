# The two commands a newcomer needs: `make demo` and `make test`. Both set up .venv by themselves.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
DEMO_ROWS ?= 200000
SOAK_MINUTES ?= 10
# Processes that run tests. Each needs up to 2 GB, and starts the emulators that its files need.
TEST_WORKERS ?= $(shell $(PYTHON) -c 'import os; print(min(4, os.cpu_count()))')
# Python writes its caches, whatever the shell says: without them every worker compiles the asserts of all tests anew.
PYTEST = PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest tests --numprocesses=$(TEST_WORKERS) --dist=loadfile --no-loadscope-reorder
# The BigQuery emulator that tests run has an environment of its own, because it needs another Python.
BIGQUERY := .venv-bigquery
PYTHON_BIGQUERY ?= $(shell command -v python3.13) $(wildcard $(HOME)/.pyenv/versions/3.13*/bin/python3.13) \
	$(wildcard $(shell pyenv root 2>/dev/null)/versions/3.13*/bin/python3.13)

.PHONY: demo demo-streaming test test-fast test-engines lint format bench bench-batch bench-compare bench-lock bench-serving bench-streaming bench-bigquery soak sanitize clean

$(VENV)/.installed: setup.py constraints.txt
	@test -x $(BIN)/python || (echo "Making $(VENV) with $(PYTHON)" && $(PYTHON) -m venv $(VENV))
	@echo "Installing Sluice into $(VENV) (several minutes the first time)"
	@$(PIP) install --constraint constraints.txt --editable '.[report]'
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	@echo "Installing what the tests need"
	@$(PIP) install --constraint constraints.txt --editable '.[report,test]'
	@touch $@

# A `python3.13` that is on PATH may be a shim that runs nothing, so each is tried. Without any, tests skip (or fail,
# where REQUIRE_SERVERS=1). HOME is where DuckDB keeps its extensions; tests/support/servers.py runs the emulator with the same.
$(BIGQUERY)/.installed: constraints-bigquery.txt
	@for python in $(PYTHON_BIGQUERY); do \
		"$$python" -c '' 2>/dev/null || continue; \
		echo "Installing the BigQuery emulator into $(BIGQUERY) with $$python (half a minute)"; \
		"$$python" -m venv --clear $(BIGQUERY) && \
		$(BIGQUERY)/bin/python -m pip --disable-pip-version-check --quiet install --requirement $< && \
		HOME=$(CURDIR)/$(BIGQUERY) $(BIGQUERY)/bin/python -c "$$IMPORT_EXTENSIONS" && \
		touch $@ && exit 0 || exit 1; \
	done; \
	echo "No Python 3.13 is found (PYTHON_BIGQUERY=PATH names one): tests do without the BigQuery emulator"

define IMPORT_EXTENSIONS
from duckdb_extensions import import_extension
for name in ("icu", "ducklake", "avro", "httpfs", "spatial"):
    import_extension(name)
endef
export IMPORT_EXTENSIONS

demo: $(VENV)/.installed
	@$(BIN)/sluice demo --rows $(DEMO_ROWS) --output demo-output

demo-streaming: $(VENV)/.installed
	@$(BIN)/sluice demo-streaming --output demo-output

test: $(VENV)/.installed-test $(BIGQUERY)/.installed
	$(PYTEST)

# What needs no server, no Python TensorFlow and no other process of Python, builds no pipeline and runs no whole job, on a
# quarter of the hypothesis examples. The first run builds the models of the tests, which are kept in .pytest_cache.
test-fast: $(VENV)/.installed-test
	FAST=1 $(PYTEST) -m "not slow"

# Whole jobs on real engines, which are not part of `make test`. PRISM_BIN names Prism, if it is not on PATH, and
# FLINK_JOB_SERVER_JAR a job server of Beam for Flink; what is not there is skipped, and says how to have it.
test-engines: $(VENV)/.installed-test
	ENGINES=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest tests/engines

# The tests of the C API, whose memory is shared with Python, under AddressSanitizer; libstdc++ comes with it because
# Python has none, and the sanitizer looks for its throw at the start. Leaks of Python and TensorFlow at exit are theirs.
SANITIZER := $(shell gcc -print-file-name=libasan.so) $(shell gcc -print-file-name=libstdc++.so)
sanitize: $(VENV)/.installed-test
	LD_PRELOAD="$(SANITIZER)" ASAN_OPTIONS=detect_leaks=0 $(BIN)/python -X faulthandler -m pytest \
		tests/models/saved_model/native/test_strings.py tests/models/saved_model/native/test_session.py \
		tests/models/saved_model/native/test_quantized.py \
		-k "not fork and not memory"

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# All tables in README and docs, from one machine in one go: some two hours, in which nothing else may run.
bench: $(VENV)/.installed-test $(BIGQUERY)/.installed
	$(PIP) install --constraint constraints.txt --editable ".[bench]"
	$(BIN)/python -m benchmarks

bench-batch: $(VENV)/.installed-test
	$(BIN)/python -m benchmarks.batch

bench-compare: $(VENV)/.installed-test
	$(BIN)/python -m benchmarks.compare

bench-lock: $(VENV)/.installed-test
	$(PIP) install --constraint constraints.txt --editable ".[bench]"
	$(BIN)/python -m benchmarks.lock

bench-serving: $(VENV)/.installed-test
	$(BIN)/python -m benchmarks.serving

bench-streaming: $(VENV)/.installed-test
	$(BIN)/python -m benchmarks.streaming

bench-bigquery: $(VENV)/.installed-test $(BIGQUERY)/.installed
	$(BIN)/python -m benchmarks.bigquery

# Tests at their full sizes, those that measure time by themselves, real files of packages, then a streaming job for as
# long as is asked. Nothing else may run on the machine.
soak: $(VENV)/.installed-test $(BIGQUERY)/.installed
	$(PIP) install --constraint constraints.txt --editable ".[bench,test]"
	SOAK=1 $(PYTEST) -m "soak and not quiet"
	SOAK=1 $(PYTEST) --numprocesses=0 -m "soak and quiet"
	$(BIN)/python -m benchmarks.real_files
	$(BIN)/python -m benchmarks.soak --minutes $(SOAK_MINUTES)

clean:
	rm -rf $(VENV) $(BIGQUERY) .pytest_cache demo-output build dist *.egg-info
