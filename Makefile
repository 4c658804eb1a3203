# `make help` lists the targets. VENV=FOLDER: another environment, such as VENV=$VIRTUAL_ENV for the active one.
# PYTHON=...: the Python that makes .venv. pip's own settings (find-links, index, proxy) hold as they are.

VENV ?= .venv
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do $$p -c "$(NEW_ENOUGH)" 2>/dev/null && echo $$p && break; done)
WORKERS ?= 2

NEW_ENOUGH = import sys; sys.exit(sys.version_info < (3, 11))
BIN = $(VENV)/bin
STAMP = $(VENV)/.hngtv-installed
CODE = src tests notebooks

.PHONY: help install demo test check format clean

help:
	@echo "make install   create $(VENV) with the tested set of packages and the hngtv command"
	@echo "make demo      walk the whole line on an embedded phantom cohort"
	@echo "make test      run all tests ($(WORKERS) at a time; WORKERS=n changes it)"
	@echo "make check     formatting, lint and types"
	@echo "make format    format the code and mend what lint can mend"
	@echo "make clean     remove .venv and caches; data and runs stay"

install: $(STAMP)

# A torch that is already in the environment (a CUDA build, say) stays: it leaves the constraints, and pip keeps it
# if it is in the range of pyproject.toml. The stamp comes last, so that an interrupted install is done again.
$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "hngtv needs Python 3.11 or newer; name one with: make install PYTHON=/path/to/python"; exit 2; }
	@$(PYTHON) -c "$(NEW_ENOUGH)" || { echo "hngtv needs Python 3.11 or newer, and $(PYTHON) is older or absent"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv --without-pip $(VENV)
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip --default-pip
	if $(BIN)/python -m pip show -q torch 2>/dev/null; then own=torch; fi; \
		grep -v "^$${own:-none}==" constraints.txt > $(VENV)/constraints.txt
	$(BIN)/python -m pip install -q -c $(VENV)/constraints.txt -e ".[dev]"
	@touch $@

demo: install
	$(BIN)/hngtv demo

# One thread a worker: more would only wait for each other.
test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

check: install
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright --pythonpath $(BIN)/python

format: install
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
