# make demo: set up in .venv and run the main job once, into demo/    make test: set up and run the whole suite
PYTHON ?= python3.11
PYTHON := $(shell command -v $(PYTHON) || command -v python3)
BIN := .venv/bin

.PHONY: demo test clean

demo: .venv/ready
	$(BIN)/hyperdiffusion demo demo

test: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/pytest

# torch goes first and alone: what needs it then takes the version that is there.
.venv/ready: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q $$(grep '^torch==' constraints.txt)
	$(BIN)/pip install -q -c constraints.txt -e '.[test]'
	touch $@

clean:
	rm -rf .venv demo build *.egg-info
