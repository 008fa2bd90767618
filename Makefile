# `make demo` and `make test` set up all they need: a virtual environment in .venv, the package and what it depends on.
# Only Python 3.11 or later, make and git have to be there. uv is used where it is installed.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN_STAMP := $(VENV)/.installed
TEST_STAMP := $(VENV)/.installed-test

# What the tests with models need, apart: torch and its company take gigabytes.
MODELS_VENV := .venv-models
MODELS_STAMP := $(MODELS_VENV)/.installed
# What pip is asked for: a release of which pip is set up with a CPU build, where there is one (TORCH='torch==2.13.0').
TORCH ?= torch

.PHONY: demo test test-quick test-models crash explore lint format bench clean help

help:
	@echo "make demo    make a small sample library, export it, report"
	@echo "make test    the whole test suite (TESTS=tests/test_naming.py: a part of it)"
	@echo "make test-models    the tests with models, in an environment of their own with torch (TORCH=torch==…)"
	@echo "make lint    ruff, mypy --strict, import-linter"
	@echo "make crash   long campaigns: kills at random (CRASHES=200), power cuts (CUTS=500 a command), failing calls (FAILURES=1000)"
	@echo "make explore  each test with inputs of chance once more, with others (ROUNDS=10)"
	@echo "make bench   the benchmarks, by hand; nothing is asserted"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed; $(PYTHON) is older. Say PYTHON=python3.12 or so."; exit 1; }
# A new environment's own pip may be too old: 24.2, which Python 3.13.0 brings, fails over a dependency's marker on the
# release of some Linux kernels.
	@if command -v uv >/dev/null 2>&1; then uv venv -q --seed --python $(PYTHON) $(VENV); \
	  else $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install -q --disable-pip-version-check --upgrade pip; fi

$(RUN_STAMP): pyproject.toml | $(BIN)/python
	@echo "Installing skicyclerun into $(VENV) …"
	@if command -v uv >/dev/null 2>&1; then uv pip install -q --python $(BIN)/python -e .; \
	  else $(BIN)/python -m pip install -q --disable-pip-version-check -e .; fi
	@touch $@

$(TEST_STAMP): pyproject.toml | $(BIN)/python
	@echo "Installing skicyclerun with its test and lint tools into $(VENV) …"
	@if command -v uv >/dev/null 2>&1; then uv pip install -q --python $(BIN)/python -e '.[test,lint,raw]'; \
	  else $(BIN)/python -m pip install -q --disable-pip-version-check -e '.[test,lint,raw]'; fi
	@touch $@ $(RUN_STAMP)

demo: $(RUN_STAMP)
	@$(BIN)/skicyclerun demo --to demo

# An installed program has its bytecode; without it, each of the suite's hundreds of processes compiles what it imports.
unexport PYTHONDONTWRITEBYTECODE

# Test modules are shared out over one process more than there are cores, the longest first (tests/conftest.py); a module stays on one. Their folders
# lie in memory if there is room (tests/folders_in_memory.py), otherwise, or with TMPDIR=/tmp, on the disk.
# TESTS=tests/test_naming.py runs only those named.
PYTEST = $(BIN)/python -m pytest -p tests.folders_in_memory -n auto --dist loadfile --no-loadscope-reorder

test: $(TEST_STAMP)
	$(PYTEST) $(TESTS)

# Without the campaigns of kills and the modules of many whole runs, for a second Python.
test-quick: $(TEST_STAMP)
	$(PYTEST) -m "not crash and not long" $(TESTS)

# With pip, not uv: only pip reads the settings of pip that may name a build for the CPU.
$(MODELS_STAMP): pyproject.toml
	@echo "Installing skicyclerun with torch and diffusers into $(MODELS_VENV) …"
	@test -x $(MODELS_VENV)/bin/python || $(PYTHON) -m venv $(MODELS_VENV)
	@$(MODELS_VENV)/bin/python -m pip install -q --disable-pip-version-check '$(TORCH)'
	@$(MODELS_VENV)/bin/python -m pip install -q --disable-pip-version-check -e '.[test,raw,llm,lora,ray]'
	@touch $@

test-models: $(MODELS_STAMP)
	$(MODELS_VENV)/bin/python -m pytest --timeout 900 tests_models || \
	  { echo "Once more, those that failed: a cluster on a busy machine may have been late."; \
	    $(MODELS_VENV)/bin/python -m pytest --timeout 900 --last-failed tests_models; }

crash: $(TEST_STAMP)
	SKICYCLERUN_CRASHES=$(or $(CRASHES),200) SKICYCLERUN_CUTS=$(or $(CUTS),500) SKICYCLERUN_FAILURES=$(or $(FAILURES),1000) \
	  $(BIN)/python -m pytest -n auto --dist loadfile -m crash --timeout 3600
	SKICYCLERUN_HOSTILE=$(or $(HOSTILE),3000) $(BIN)/python -m pytest -s tests/test_hostile_input.py

# The suite tries the same inputs every time. What this finds becomes a case with a name.
explore: $(TEST_STAMP)
	for round in $$(seq $(or $(ROUNDS),10)); do \
	  $(BIN)/python -m pytest -q -n auto --dist loadfile --hypothesis-profile explore --hypothesis-seed $$RANDOM$$round \
	    $$(grep -l '^@given\|^    @given\|RuleBasedStateMachine' tests/test_*.py) || exit 1; \
	done

lint: $(TEST_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(TEST_STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Minutes, and some gigabytes below SCRATCH.
SCRATCH ?= $(or $(TMPDIR),/tmp)
bench: $(TEST_STAMP)
	$(BIN)/python -m bench.export --photos 1000 --update-photos 10000 --scratch $(SCRATCH)
	$(BIN)/python -m bench.render --scratch $(SCRATCH)
	$(BIN)/python -m bench.size --photos 1000 10000 --scratch $(SCRATCH)
	$(BIN)/python -m bench.albums
	$(BIN)/python -m bench.heic_to_jpeg
	$(BIN)/python -m bench.archive $(SCRATCH)
	$(BIN)/python -m bench.places
	$(BIN)/python -m bench.stages --photos 1000 5000 --scratch $(SCRATCH)
	$(BIN)/python -m bench.preprocessing --photos 200
	$(BIN)/python -m bench.llm
	$(BIN)/python -m bench.report --photos 2000 --albums 10 --scratch $(SCRATCH)
	@echo "bench.s3 needs awscli: python -m bench.s3 --aws PATH"

clean:
	rm -rf $(VENV) .venv-newest $(MODELS_VENV) demo .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
