# Every target does its own set-up: on a fresh machine, Python >= 3.10 and make are enough.
PYTHON ?= python3
DEMO_ARGS ?=
BENCH_ARGS ?=
ZOO_ARGS ?=
RIVALS_ARGS ?=
PAPER_ARGS ?= all
GPU_ARGS ?=
TEST_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
ZOO := .venv-zoo
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet

.PHONY: help demo docs test test-zoo zoo rivals paper gpu lint format types imports wheel-test bench clean
.DEFAULT_GOAL := help

help:
	@echo 'make demo         train, prune, shrink and reload LeNet-5 (DEMO_ARGS="--help" for its options)'
	@echo 'make docs         the site, into docs/build/html (its tutorials are run)'
	@echo 'make test         the whole test-suite, doctests included'
	@echo 'make test-zoo     surgery on architectures of torchvision, timm and transformers'
	@echo 'make zoo          the record of what can be pruned of all of them (hours; goes on where it was stopped)'
	@echo 'make rivals       BMRS beside what people would pick instead (days; goes on where it was stopped; RIVALS_ARGS)'
	@echo 'make paper        the tables and figures of the paper, made again (days; goes on where it was stopped; PAPER_ARGS)'
	@echo 'make lint         ruff, format and rules;  make format applies them'
	@echo 'make types        mypy, strict'
	@echo 'make imports      the import contract'
	@echo 'make wheel-test   the tests against the built wheel, in a clean environment'
	@echo 'make bench        the array functions and kernels against their rivals'
	@echo 'make gpu          the CUDA tests and benchmarks, under 20 minutes, into the folder gpu-results (GPU_ARGS)'
	@echo 'make clean        remove the environment, caches and builds'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit( \
	  "bmrs-pruning needs Python 3.10 or newer; %s is %s. Name another: make PYTHON=python3.12 ..." \
	  % (sys.executable, sys.version.split()[0]))'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "No virtual environment could be made; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@$(INSTALL) 'pip>=23.1'

# $(call install,EXTRA): this checkout, editable, with its EXTRA at the pinned versions.
define install
@echo "Installing bmrs-pruning[$(1)] into $(VENV) (torch is large: this may take some minutes)"
@$(INSTALL) -c constraints.txt -e '.[$(1)]' || { \
  echo "Installing bmrs-pruning[$(1)] failed on $$($(BIN)/python --version), $$(uname -sm); pip's reason is above."; \
  echo "If a pinned version does not exist here: constraints.txt is for Python 3.10 to 3.13 on x86-64 Linux. Either"; \
  echo "    make clean && make PYTHON=python3.12 ...            takes such a Python, or"; \
  echo "    $(BIN)/python -m pip install -e '.[$(1)]' && touch $@    takes the newest versions."; \
  exit 1; } >&2
endef

$(VENV)/.demo-ready: pyproject.toml constraints.txt | $(BIN)/python
	$(call install,demo)
	@touch $@

$(VENV)/.docs-ready: pyproject.toml constraints.txt | $(BIN)/python
	$(call install,docs)
	@touch $@ $(VENV)/.demo-ready

$(VENV)/.paper-ready: pyproject.toml constraints.txt | $(BIN)/python
	$(call install,paper)
	@touch $@

$(VENV)/.dev-ready: pyproject.toml constraints.txt .ci/triton.txt | $(BIN)/python
	$(call install,dev)
	@$(BIN)/python -c 'import importlib.util as u; raise SystemExit(u.find_spec("triton") is None)' \
	  || $(INSTALL) -r .ci/triton.txt
	@touch $@ $(VENV)/.demo-ready

# Beside the environment of the tests, whose packages it sees, so that no model zoo disturbs these.
$(ZOO)/.ready: constraints-zoo.txt $(VENV)/.dev-ready
	@echo "Installing the model zoos into $(ZOO)"
	@$(BIN)/python -m venv $(ZOO)
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	  > "$$($(ZOO)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/tests.pth"
	@$(ZOO)/bin/python -m pip install --disable-pip-version-check --quiet --no-deps -r constraints-zoo.txt
	@touch $@

demo: $(VENV)/.demo-ready
	$(BIN)/python -m benchmarks.demo $(DEMO_ARGS)

docs: $(VENV)/.docs-ready
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -E -W --keep-going -q -b html docs docs/build/html
	@echo 'The site is docs/build/html/index.html'

test: $(VENV)/.dev-ready
	$(BIN)/python -m pytest $(TEST_ARGS)

test-zoo: $(ZOO)/.ready
	OMP_NUM_THREADS=1 $(ZOO)/bin/python -m pytest tests/zoo

zoo: $(ZOO)/.ready
	PYTHONPATH=.:kernels:bindings OMP_NUM_THREADS=1 $(ZOO)/bin/python -m benchmarks.zoo $(ZOO_ARGS)

rivals: $(ZOO)/.ready
	PYTHONPATH=.:kernels:bindings OMP_NUM_THREADS=1 $(ZOO)/bin/python -m benchmarks.rivals $(RIVALS_ARGS)

paper: $(VENV)/.paper-ready
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.paper $(PAPER_ARGS)

lint: $(VENV)/.dev-ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: $(VENV)/.dev-ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.dev-ready
	$(BIN)/mypy

imports: $(VENV)/.dev-ready
	$(BIN)/lint-imports

wheel-test: $(VENV)/.dev-ready
	.ci/wheel-test

bench: $(VENV)/.dev-ready
	$(BIN)/python -m pytest benchmarks --benchmark-enable --benchmark-only $(BENCH_ARGS)

gpu: $(VENV)/.dev-ready
	$(BIN)/python -m benchmarks.gpu $(GPU_ARGS)

clean:
	rm -rf $(VENV) $(ZOO) dist build docs/build docs/auto_tutorials docs/reference/generated docs/reference/*.rst docs/sg_execution_times.rst .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
