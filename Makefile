# Two commands on a fresh machine: `make demo` and `make test`. Both set up what they need in .venv first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO_STORE ?= demo_store
ARMS := demo/untuned,demo/original,demo/all_refined,demo/random,demo/perplexity,demo/selective

# Every process that a test starts would compile all of srecycle again.
unexport PYTHONDONTWRITEBYTECODE

# Each worker holds a torch of its own.
SPREAD := -n auto --maxprocesses 4 --dist worksteal

.PHONY: setup demo test test-all check bases clean

setup: $(VENV)/.ready

# Made again when what is to be installed changes. pip, not uv: the constraints pin torch to a build for this platform.
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

# A small ablation on the micro-world: offline, no GPU, no account.
demo: setup
	SRECYCLE_STORE=$(DEMO_STORE) $(BIN)/srecycle -m experiment=$(ARMS)
	@echo "W&B offline runs: $(DEMO_STORE)/runs/*/wandb/offline-run-*"
	@echo "to sync them (after wandb login): $(BIN)/wandb sync $(DEMO_STORE)/runs/*/wandb/offline-run-*"

# Everything but the slow tests and those that need a GPU; prints what was skipped and why.
test: setup
	$(BIN)/python -m pytest -m "not slow and not gpu" $(SPREAD)

test-all: setup
	$(BIN)/python -m pytest -m "not gpu" $(SPREAD)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Rebuild the micro-world's base students (about 25 minutes on one core); compare accuracies with the shipped manifest.
bases: setup
	$(BIN)/python -m srecycle.testbed.pretrain --student weak --out rebuilt_bases
	$(BIN)/python -m srecycle.testbed.pretrain --student strong --out rebuilt_bases

clean:
	rm -rf $(VENV) $(DEMO_STORE) dist build .pytest_cache .mypy_cache .ruff_cache
