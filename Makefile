# The two commands a newcomer needs: `make demo` and `make test`. Both set up .venv by themselves.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
DEMO_ROWS ?= 200000

.PHONY: demo test lint format bench bench-serving clean

$(VENV)/.installed: setup.py constraints.txt
	@test -x $(BIN)/python || (echo "Making $(VENV) with $(PYTHON)" && $(PYTHON) -m venv $(VENV))
	@echo "Installing Sluice into $(VENV) (several minutes the first time)"
	@$(PIP) install --constraint constraints.txt --editable '.[serve]'
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	@echo "Installing what the tests need"
	@$(PIP) install --constraint constraints.txt --editable '.[test]'
	@touch $@

demo: $(VENV)/.installed
	@$(BIN)/sluice demo --rows $(DEMO_ROWS) --output demo-output

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest tests

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-test
	$(BIN)/python -m benchmarks.batch

bench-serving: $(VENV)/.installed-test
	$(BIN)/python -m benchmarks.serving

clean:
	rm -rf $(VENV) demo-output build dist *.egg-info
