# Two commands do everything: `make demo` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
DEMO   ?= demo
BIN    := $(VENV)/bin
export NO_ET := 1
export NIPYPE_NO_ET := 1

.PHONY: demo test quick lint clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/.installed  ## simulate a small BIDS dataset and run the main job on it
	test -d $(DEMO)/bids || $(BIN)/tau-simulate $(DEMO)/bids --participants 4 --seed 1
	$(BIN)/tau-pipeline $(DEMO)/bids $(DEMO)/derivatives participant --work-dir $(DEMO)/work

test: $(VENV)/.installed  ## every test, the slow ones too
	$(BIN)/python -m pytest

quick: $(VENV)/.installed  ## the tests that take under two minutes together
	$(BIN)/python -m pytest -m "not slow"

lint: $(VENV)/.installed  ## style, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) $(DEMO)
