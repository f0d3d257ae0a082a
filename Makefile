# PYTHON makes the virtual environment VENV; `make test VENV=.venv312 PYTHON=python3.12` keeps a second one beside it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help study test test-thorough test-learning lint format benchmark gpu-plan notebooks $(sort .venv $(VENV))

help:
	@echo "make .venv           install only (PYTHON=python3.12 VENV=.venv312 for another Python beside it)"
	@echo "make study           PPO against PFO on Breakout-MinAtar: table and figures (options: ARGS=\"--help\")"
	@echo "make test            the tests, but for those of the next two, a process per core (some: ARGS=\"-k NAME\", ARGS=FILE)"
	@echo "make test-thorough   kills, processes, notebooks, what must converge, programs bit for bit"
	@echo "make test-learning   train every algorithm to its threshold"
	@echo "make lint            ruff and mypy"
	@echo "make notebooks       execute the notebooks and store them (some: NOTEBOOKS=\"FILE ...\")"
	@echo "make benchmark       compile time, run time, steps/s and memory (options: ARGS=\"--help\")"
	@echo "make gpu-plan        what programs cost a GPU, compiled for one without having it (options: ARGS=\"--help\")"

$(sort .venv $(VENV)): $(STAMP)

# The stamp is written last: an installation that was interrupted is done again.
$(STAMP): pyproject.toml $(wildcard requirements/*.txt)
	@command -v "$(PYTHON)" >/dev/null || { \
	  echo "error: PYTHON=$(PYTHON) was not found; name one of 3.11 or newer: make PYTHON=python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: $$("$(PYTHON)" --version) is too old: 3.11 or newer is needed; name one: make PYTHON=python3.11" >&2; exit 1; }
	@if [ -x "$(BIN)/python" ] && [ "$$("$(BIN)/python" --version)" != "$$("$(PYTHON)" --version)" ]; then \
	  echo "$(VENV) is of another Python: making it anew"; rm -rf "$(VENV)"; fi
	"$(PYTHON)" -m venv "$(VENV)"
	@version=$$("$(BIN)/python" -c 'import sys; print("py%d%d" % sys.version_info[:2])'); \
	set -e; \
	if [ -f requirements/$$version.txt ]; then \
	  echo "installing requirements/$$version.txt and the project into $(VENV)"; \
	  "$(BIN)/python" -m pip install --disable-pip-version-check -q -r requirements/$$version.txt; \
	  "$(BIN)/python" -m pip install --disable-pip-version-check -q --no-deps -e .; \
	else \
	  echo "no tested version set for this Python: installing what pyproject.toml allows into $(VENV)"; \
	  "$(BIN)/python" -m pip install --disable-pip-version-check -q -e '.[dev]'; \
	fi
	@touch "$@"

study: $(STAMP)
	@"$(BIN)/python" experiments/study.py $(ARGS)

# Files side by side, a process per core. The core of the tests lets XLA compile quickly; what compares bits or reads programs is
# with the thorough ones. Who names tests by ARGS gets those, whatever they are, compiled as users' programs are.
SIDE_BY_SIDE := -n auto --dist loadfile --no-loadscope-reorder
CORE := $(if $(ARGS),-m "not learning",-m "not learning and not thorough and not optimized" --quick)
test: $(STAMP)
	"$(BIN)/python" -m pytest $(CORE) $(SIDE_BY_SIDE) $(ARGS)

test-thorough: $(STAMP)
	"$(BIN)/python" -m pytest -m "(thorough or optimized) and not learning" $(SIDE_BY_SIDE) $(ARGS)

test-learning: $(STAMP)
	"$(BIN)/python" -m pytest -m learning -n auto --dist worksteal $(ARGS)

lint: $(STAMP)
	"$(BIN)/python" -m ruff check .
	"$(BIN)/python" -m ruff format --check .
	"$(BIN)/python" -m mypy

format: $(STAMP)
	"$(BIN)/python" -m ruff check --fix .
	"$(BIN)/python" -m ruff format .

benchmark: $(STAMP)
	@"$(BIN)/python" experiments/benchmark.py $(ARGS)

# An environment of its own, made when first asked for: jax's compiler for NVIDIA cards beside the project (half a GB more), of the
# same version as its jax. It compiles without a card, a driver or CUDA's libraries, so that none of them is installed.
GPU_VENV := .venv-gpu
GPU_STAMP := $(GPU_VENV)/.gpu
$(GPU_STAMP): pyproject.toml $(wildcard requirements/*.txt)
	@$(MAKE) --no-print-directory VENV=$(GPU_VENV) $(GPU_VENV)
	@version=$$("$(GPU_VENV)/bin/python" -c 'import jax; print(jax.__version__)'); \
	"$(GPU_VENV)/bin/python" -m pip install --disable-pip-version-check -q --no-deps \
	  "jax-cuda12-plugin==$$version" "jax-cuda12-pjrt==$$version"
	@touch "$@"

gpu-plan: $(GPU_STAMP)
	@"$(GPU_VENV)/bin/python" experiments/gpu_plan.py $(ARGS)

notebooks: $(STAMP)
	@"$(BIN)/python" notebooks/execute.py $(NOTEBOOKS)
