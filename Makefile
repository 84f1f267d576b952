# Everything runs on a bare checkout with only Python 3.10+ and make: the first target that needs
# .venv builds it, later ones find it ready. Nothing has to be activated.
#
#   make test PYTHON=python3.12                 another interpreter for .venv
#   make test PIP_FLAGS="--index-url URL"       another package index
#   make test PYTEST="-x tests/examples"        a part of the suite
#   make demo ARGS="--epochs 2"                 options for the demo or the benchmark

PYTHON ?= python3
PIP_FLAGS ?=
PYTEST ?=
ARGS ?=
DRAWS ?= 5000
CASES ?= 10000

VENV := .venv
READY := $(VENV)/.ready
TRAINERS := .venv-integrations
RUN := $(VENV)/bin/python

# A checkout has its own .venv; what the calling shell has set up must not leak into it.
unexport PYTHONHOME PYTHONPATH VIRTUAL_ENV
export PYTHONNOUSERSITE := 1

.DEFAULT_GOAL := help
.PHONY: help demo test lint types format fuzz faults bench parity zoo integrations docs clean
.DELETE_ON_ERROR:

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: $(READY) ## train on handwritten digits: one process, 2 DDP processes, data_parallel
	@$(RUN) examples/digits_demo.py $(ARGS)

test: lint types ## lint, types, then the whole test suite (trainers: make integrations)
	@$(RUN) -m pytest -q -n auto --maxprocesses 4 --dist loadgroup --ignore=tests/integrations $(PYTEST)

lint: $(READY) ## ruff: rules and format
	@$(RUN) -m ruff check --quiet .
	@$(RUN) -m ruff format --check --quiet .
	@echo "lint: ok"

types: $(READY) ## mypy --strict on the package and the benchmarks
	@$(RUN) -m mypy --no-error-summary autopar benchmarks
	@echo "types: ok"

format: $(READY) ## rewrite the files in the house format
	@$(RUN) -m ruff check --fix --quiet .
	@$(RUN) -m ruff format .

fuzz: $(READY) ## 10,000 plans, graphs, pipelines and command lines (CASES=n), 5,000 modules against eager (DRAWS=n)
	@AUTOPAR_FUZZ_CASES=$(CASES) AUTOPAR_FUZZ_DRAWS=$(DRAWS) $(RUN) -m pytest -q tests/fuzz $(PYTEST)

faults: $(READY) ## kill, hang, disconnect a rank of three, kill saves and runs; what comes of it (ARGS="--kills 5")
	@$(RUN) -m tests.faults $(ARGS)

bench: $(READY) ## steps against the plain module and torch's DDP, 2 ranks; draws docs/pictures/benchmarks.svg
	@mkdir -p build
	@$(RUN) -m benchmarks --json build/bench.json --chart docs/pictures/benchmarks.svg $(ARGS)

parity: $(READY) ## torch's own DDP tests on the drop-in, 2 and 3 ranks; writes docs/parity.md
	@$(RUN) -W ignore -m tests.parity $(ARGS)

zoo: $(READY) ## all models of other libraries against eager and DDP; writes docs/coverage.md
	@$(RUN) -W ignore -m tests.zoo $(ARGS)

integrations: $(TRAINERS)/.ready ## trainers of other libraries on the drop-in, bit for bit against DDP
	@$(TRAINERS)/bin/python -m pytest -q tests/integrations $(PYTEST)

docs: $(READY) ## what pages show of the tool's output, and their pictures, made anew by the tool itself
	@for name in gpt resnet; do \
	  $(RUN) -m autopar transform examples/$$name.py --world-size 4 -o build/docs/$$name >/dev/null && \
	  cp build/docs/$$name/plan.svg docs/pictures/$$name-plan.svg && \
	  cp build/docs/$$name/graph.svg docs/pictures/$$name-graph.svg || exit 1; done
	@$(RUN) docs/generate.py docs/tutorial.md docs/how-it-works.md
	@echo "docs/pictures: $$(ls docs/pictures | tr '\n' ' ')"

clean: ## remove .venv, caches and build output
	rm -rf $(VENV) $(TRAINERS) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is written last, so an interrupted installation starts again. `python -m` everywhere
# instead of .venv/bin/NAME: those scripts break when the checkout is moved.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "autopar needs Python 3.10 or newer, and $(PYTHON) is %s: run make with PYTHON=/path/to/python3.10." % sys.version.split()[0])'
	@$(RUN) -c '' 2>/dev/null || { echo "Creating $(VENV)"; $(PYTHON) -m venv --clear $(VENV); }
	@echo "Installing autopar and its tools into $(VENV) (torch takes a few minutes the first time)"
	@$(RUN) -m pip install --quiet --disable-pip-version-check --no-input $(PIP_FLAGS) -c constraints.txt -e '.[dev,examples,zoo]' </dev/null
	@touch $@

# Of their own: the trainers import torchvision where it is installed, which fails beside a torch without CUDA.
$(TRAINERS)/.ready: pyproject.toml constraints.txt $(READY)
	@$(TRAINERS)/bin/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear $(TRAINERS)
	@echo "Installing autopar and the trainers into $(TRAINERS)"
	@$(TRAINERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-input $(PIP_FLAGS) -c constraints.txt -e '.[dev,integrations]' </dev/null
	@touch $@
