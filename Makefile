# make demo: set up in .venv and run the main job once, into demo/
# make test: set up, then lint, formatter's check, type checker and the whole test suite
# make docs: build the documentation site into site/
# make results: write the tables of the documents from docs/results/*.json
PYTHON ?= python3.11
PYTHON := $(shell command -v $(PYTHON) || command -v python3)
BIN := .venv/bin
# Tests run in two processes of one thread each.
WORKERS ?= 2

.PHONY: demo test docs results clean

demo: .venv/ready
	$(BIN)/hyperdiffusion demo demo

test: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n $(WORKERS) --dist worksteal

docs: .venv/ready
	$(BIN)/mkdocs build --strict

results: .venv/ready
	$(BIN)/python benchmarks/write_results.py

# torch goes first and alone: packages that need it then keep the version that is there.
.venv/ready: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q $$(grep '^torch==' constraints.txt)
	$(BIN)/pip install -q -c constraints.txt -e '.[test]'
	touch $@

clean:
	rm -rf .venv demo build site *.egg-info
