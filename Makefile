# Two commands do everything: `make demo` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
DEMO   ?= demo
BIN    := $(VENV)/bin
export NO_ET := 1
export NIPYPE_NO_ET := 1

.PHONY: demo test quick lint docs clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,docs]'
	touch $@

# Three scans are from three manufacturers, too few to tell manufacturers apart: the group level pools them.
demo: $(VENV)/.installed  ## simulate a small BIDS dataset, run the main job on it, make the cohort's tables and page
	test -d $(DEMO)/bids || $(BIN)/tau-simulate $(DEMO)/bids --participants 3 --voxel-size 2 --seed 1
	$(BIN)/tau-pipeline $(DEMO)/bids $(DEMO)/derivatives participant --work-dir $(DEMO)/work
	$(BIN)/tau-pipeline $(DEMO)/bids $(DEMO)/derivatives group --unknown-manufacturer pooled

# Most tests keep one core busy; the tests of a file share what it has made, so they stay together. tests/conftest.py puts
# the longest files first.
PARALLEL := --numprocesses 2 --dist loadfile --no-loadscope-reorder
test: $(VENV)/.installed  ## every test, the slow ones too
	$(BIN)/python -m pytest $(PARALLEL)

quick: $(VENV)/.installed  ## the tests that take less than a second each, in about two minutes
	$(BIN)/python -m pytest -m "not slow" $(PARALLEL)

lint: $(VENV)/.installed  ## style, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.installed  ## the pages that are made from the code, then the site in build/site
	$(BIN)/python docs/generate.py
	$(BIN)/mkdocs build

clean:
	rm -rf $(VENV) $(DEMO)
