# The two commands of the README are `make demo` and `make test`; CONTRIBUTING.md explains the others.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet
REPORT := demo-report.html

.PHONY: demo test test-runtimes test-gpu test-vm check native wheel clean bench help
help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# --- environments --------------------------------------------------------------------------------------------------
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: socbench needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V). Set PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "make: could not make $(VENV); on Debian: apt install python3-venv"; exit 1; }

# A stamp is a hash of what was asked for, so a change of pyproject.toml installs again and nothing else does.
$(STAMP).local: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing socbench and three runtimes into $(VENV) (about 250 MB, once) ..."
	@$(PIP) -c constraints.txt -e '.[local]'
	@touch $@

$(STAMP).dev: $(STAMP).local
	@echo "Installing what the tests need into $(VENV) ..."
	@$(PIP) -c constraints.txt -e '.[local,dev]'
	@touch $@

# --- for users -----------------------------------------------------------------------------------------------------
demo: $(STAMP).local ## benchmark this machine and write a report
	@$(BIN)/socbench run --suite quick --label demo
	@$(BIN)/socbench report latest -o $(REPORT)
	@echo "Report: $(CURDIR)/$(REPORT)"

# --- for developers ------------------------------------------------------------------------------------------------
check: $(STAMP).dev ## ruff, mypy, import contract, Python 3.8 for the agent
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/vermin --quiet --no-tips --target=3.8- --violations device_agents/python

.venv-native/.stamp: device_agents/native/requirements.txt
	@echo "Fetching the compiler of the native agent (about 90 MB, once) ..."
	@$(PYTHON) -m venv .venv-native && .venv-native/bin/python -m pip install --disable-pip-version-check --quiet -r $<
	@touch $@

NATIVE := device_agents/native
$(NATIVE)/build/.stamp: .venv-native/.stamp $(NATIVE)/build.py $(wildcard $(NATIVE)/src/* $(NATIVE)/android/*)
	@.venv-native/bin/python $(NATIVE)/build.py && touch $@

test-runtimes: $(STAMP).dev ## make every environment (about 2 GB) and test all delegates in them
	@$(BIN)/socbench runtimes install all
	@$(BIN)/python -m pytest -q --timeout 900 -m runtimes

test-gpu: $(STAMP).dev ## on a machine with an NVIDIA GPU: TensorRT and the CUDA provider
	@$(BIN)/socbench runtimes install tensorrt-rtx
	@$(BIN)/socbench runtimes install onnxruntime-gpu
	@$(BIN)/socbench runtimes install tensorrt || echo "test-gpu: without TensorRT itself: its libraries could not be had"
	@$(BIN)/python -m pytest -m gpu

test-vm: $(STAMP).dev ## USB devices and an arm64 board in QEMU virtual machines (minutes; fetches 200 MB once)
	@PYTHON=$(BIN)/python tests/system-packages && tests/system-packages-vm
	@$(BIN)/python -m pytest -m vm tests/vm

native: $(NATIVE)/build/.stamp ## cross-compile the native agent for six targets (needs no NDK)

test: $(STAMP).dev check native ## every check and every test that this kind of machine can run
	@PYTHON=$(BIN)/python tests/system-packages
	@$(BIN)/python -m pytest -q -n 3 --dist loadfile --timeout 400 -m "not runtimes and not gpu and not vm and not alone"
	@$(BIN)/python -m pytest -q --timeout 400 -m alone

wheel: $(STAMP).dev native ## build dist/socbench-VERSION-py3-none-any.whl
	@rm -rf dist && $(BIN)/python -m build --wheel --outdir dist . >/dev/null && ls -l dist

bench: $(STAMP).dev ## the figures of docs/benchmarks.md (takes long, wants a quiet machine)
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean: ## remove what make made
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache $(REPORT)
