# Each target does the set-up that it needs on a fresh machine, once.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin/python
READY := $(VENV)/.ready
READY_TO_CHECK := $(VENV)/.ready-to-check
PROCESSES ?= 2

.PHONY: demo test browser check format lint types wheel docs mutants

demo: $(READY)  ## learns Split Digits
	$(BIN) -m bayesdual fit --config configs/split_digits.yaml

test: $(READY)  ## runs the tests
	$(BIN) -m pytest -n $(PROCESSES)

browser: $(READY)  ## looks at TensorBoard and at the page of inspect in Chromium, and leaves screenshots/
	$(BIN) -m pip install --disable-pip-version-check --quiet --editable '.[browser]'
	$(BIN) -m pytest -m browser tests/browser

check: lint types test wheel docs  ## all that has to hold before a change is merged

format: $(READY_TO_CHECK)  ## puts the code into the format that lint asks for
	$(BIN) -m ruff format .
	$(BIN) -m ruff check --fix .

lint: $(READY_TO_CHECK)
	$(BIN) -m ruff format --check .
	$(BIN) -m ruff check .

types: $(READY_TO_CHECK)
	$(BIN) -m mypy
	$(BIN) -m pyright --pythonpath $(BIN)

wheel: $(READY)
	rm -rf build  # what an earlier build left there would be built in
	$(BIN) -m pip wheel --disable-pip-version-check --quiet --no-deps --no-build-isolation --wheel-dir dist .

docs: $(READY_TO_CHECK)  ## builds the site into site/; a link or a name that leads nowhere is an error
	NO_MKDOCS_2_WARNING=1 $(BIN) -m mkdocs build --strict

mutants: $(READY)  ## breaks the code in ways that the tests have to notice
	$(BIN) -m tests.mutants.run

# Only when the dependencies change is there something to set up again.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "$(PYTHON) is missing or older than 3.10: install Python, or run make PYTHON=/path/to/python3." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null \
		|| { echo "$(PYTHON) has no venv module: install it (Debian: apt install python3-venv), or run make PYTHON=/path/to/python3." >&2; exit 1; }
	@echo "Setting up $(VENV): this happens once, takes some minutes, and needs about 6 GB of disk (most of it is PyTorch)."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN) -m pip install --disable-pip-version-check --quiet --editable '.[test]'
	@touch $(READY)
	@echo "Set up."

$(READY_TO_CHECK): $(READY)
	@$(BIN) -m pip install --disable-pip-version-check --quiet --editable '.[dev]'
	@touch $(READY_TO_CHECK)
