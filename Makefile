# `make demo` and `make test` do all set-up on a fresh machine; a second call finds it done.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
# Without an NVIDIA GPU a pinned torch is installed, so that a newer release with CUDA packages is not pulled in. With
# the CPU index of pytorch.org at hand: make test TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && echo 'torch>=2.9' || echo 'torch==2.13.0')
TORCH_INDEX ?=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# An editable install knows the packages of the moment it was made: a new one needs a new install.
PACKAGES := $(shell find src -name __init__.py | sort | cksum | cut -d' ' -f1)
STAMP := $(VENV)/.windeye-setup-$(PACKAGES)
NATIVE := CMakeLists.txt $(wildcard csrc/*)

.PHONY: setup demo test check quick docs bench tables clean

setup: $(STAMP)

$(STAMP): pyproject.toml $(NATIVE)
	@test -x $(BIN)/python || { echo "creating $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing (the first time takes a few minutes)"
	@$(BIN)/python -c 'import torch' 2>/dev/null || $(PIP) install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) '$(TORCH)'
	@$(PIP) install --quiet 'scikit-build-core>=0.11' 'nanobind>=2.4' cmake ninja
	@$(PIP) install --quiet --no-build-isolation --editable '.[dev]'
	@$(BIN)/python -c 'from windeye.kernels.native import instruction_sets as i; s = i(); print("cpu kernel:", ", ".join(s) if s else "MISSING (no C++ compiler?); everything else works")'
	@rm -f $(VENV)/.windeye-setup*
	@touch $@

demo: setup
	@$(BIN)/windeye demo

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check
	$(BIN)/python -m pytest -n 2 --dist loadfile -q

quick: setup
	$(BIN)/python -m pytest -x -q tests

docs: setup
	$(PIP) install --quiet --editable '.[docs]' --no-build-isolation
	$(BIN)/mkdocs build --strict

bench: setup
	$(BIN)/windeye bench softmax

tables: setup
	$(BIN)/python -m windeye.bench.pages
	$(BIN)/python -m windeye.compare.pages
	$(BIN)/python -m windeye.bench.inspect_pages

clean:
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
