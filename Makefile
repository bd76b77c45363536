# Everything runs in .venv, which is made on first use: nothing but Python 3.11-3.13, pip and make is needed.
SHELL := /bin/sh
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# The first of these that runs and is of a version that we support; `make PYTHON=...` names another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	"$$p" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' >/dev/null 2>&1 && echo "$$p" && break; done)

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "deblur_lab needs Python 3.11, 3.12 or 3.13: install one, or name it with 'make PYTHON=/path/to/python3.12'"; exit 5; }
	@echo "Setting up $(VENV) with $(PYTHON) (about two minutes, 6 GB, once)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

# What the site is built with is not needed for anything else, and is added on first use.
DOCS_READY := $(VENV)/.docs-ready

$(DOCS_READY): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	@touch $@

.PHONY: help setup demo test lint docs format clean
help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## install everything into .venv

# Each demo has a folder of its own: runs/demo, runs/demo-2, ...
demo: $(READY) ## train, score and apply a small M2AENet on synthetic scenes (five minutes, two CPU cores)
	@out=runs/demo; n=2; while [ -e "$$out" ]; do out=runs/demo-$$n; n=$$((n + 1)); done; set -e; \
	$(BIN)/python -m deblur_lab.train experiment=demo output="$$out"; \
	$(BIN)/python -m deblur_lab.data.synthesize output="$$out/photos" layout=folder train_scenes=0 test_scenes=3 size=480x320 seed=7; \
	$(BIN)/python -m deblur_lab.predict checkpoint="$$out/checkpoints/last.ckpt" input="$$out/photos/test/blurry" output="$$out/restored" explain=true; \
	$(BIN)/python -m deblur_lab.report runs="$$out"; \
	echo "Open $$out/report.html, $$out/pictures/ and $$out/restored/"

test: $(READY) ## run all tests (ten minutes at most, two CPU cores)
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(READY) ## check style, types and who imports whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Always built anew: Sphinx warns only of pages that it reads again.
docs: $(DOCS_READY) ## build the documentation site; a warning is an error (two minutes)
	@rm -rf site
	$(BIN)/sphinx-build --builder html --fail-on-warning --keep-going --nitpicky --quiet --conf-dir docs/sphinx \
		--doctree-dir site/.doctrees . site
	@echo "Open site/index.html"

format: $(READY) ## rewrite the code in the house's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove what was built (not .venv, not runs)
	rm -rf dist site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
