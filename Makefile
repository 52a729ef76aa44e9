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

.PHONY: setup demo test test-all check audit bases clean

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

# Known vulnerabilities of the pinned packages. A mirror of PyPI answers as if none were known of anything, so a service
# is asked for an old one first: where it doesn't know that, nothing is checked, and that is said.
AUDIT := $(VENV)/audit/bin/pip-audit --no-deps --disable-pip --progress-spinner off
audit:
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check 'pip-audit>=2.10'
	@echo 'requests==2.19.0' > $(VENV)/audit/known.txt
	@if $(AUDIT) -r $(VENV)/audit/known.txt 2>&1 | grep -qE '\<(PYSEC|GHSA|CVE)-[0-9a-z]'; \
	then $(AUDIT) --strict -r constraints.txt; \
	else echo "audit: SKIPPED, no package was checked: no advisory service can be reached from here"; fi

# Rebuild the micro-world's base students (about 25 minutes on one core); compare accuracies with the shipped manifest.
bases: setup
	$(BIN)/python -m srecycle.testbed.pretrain --student weak --out rebuilt_bases
	$(BIN)/python -m srecycle.testbed.pretrain --student strong --out rebuilt_bases

clean:
	rm -rf $(VENV) $(DEMO_STORE) dist build .pytest_cache .mypy_cache .ruff_cache
