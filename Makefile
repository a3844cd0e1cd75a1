# `make demo` and `make test` do all the set-up on a fresh machine, once.

PYTHON ?= python3
VENV ?= .venv
READY := $(VENV)/.ready

.PHONY: demo test

demo: $(READY)
	$(VENV)/bin/python -m bayesdual fit --config configs/split_digits.yaml

test: $(READY)
	$(VENV)/bin/python -m pytest

# Only when the dependencies change is there something to set up again.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "$(PYTHON) is missing or older than 3.10: install Python, or run make PYTHON=/path/to/python3." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null \
		|| { echo "$(PYTHON) has no venv module: install it (Debian: apt install python3-venv), or run make PYTHON=/path/to/python3." >&2; exit 1; }
	@echo "Setting up $(VENV): this happens once, takes some minutes, and needs about 6 GB of disk (most of it is PyTorch)."
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --disable-pip-version-check --quiet --editable '.[test]'
	@touch $(READY)
	@echo "Set up."
