# What a newcomer, a maintainer and the checks run. `make help` lists it.
# A machine with Python and pip is enough: everything else goes into .venv.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= $(BIN)/python examples/demo.py --output demo-output
PYTEST ?= tests

# The tests run in parts side by side, each in a process of its own: most of the time they wait for
# processes that start. What is named nowhere else is in `programs` or in `units`. Those that take
# longest come first.
JOBS ?= $(shell expr `getconf _NPROCESSORS_ONLN` + 1)
PARTS := commands units services faults programs documents wire processes exchanges
slow = $(patsubst %,tests/integration/test_%.py,$(1))
faults := $(call slow,wire_chaos wire_endings wire_faults wire_floods)
wire := $(filter-out $(faults),$(wildcard $(call slow,wire_*)))
processes := $(wildcard $(call slow,process_*))
commands := $(call slow,command)
services := $(call slow,crawler service)
exchanges := $(call slow,exchange taskpool)
documents := tests/test_documents.py tests/test_examples.py tests/test_house.py
programs := tests/integration \
	$(addprefix --ignore=,$(faults) $(wire) $(processes) $(commands) $(services) $(exchanges))
units := tests --ignore=tests/integration $(addprefix --ignore=,$(documents))

step = @printf '\n=== %s\n' "$(1)"

# What one of several that run side by side says, line by line with its name, and as a whole in
# build/NAME.txt; its status is in build/NAME.status.
beside = { $(2); echo $$? >build/$(1).status; } 2>&1 | tee build/$(1).txt | \
	while IFS= read -r line; do printf '%-9s | %s\n' $(1) "$$line"; done; \
	exit `cat build/$(1).status`

.PHONY: help demo test lint format types layers unit integration coverage soak docs api \
	bench news dist venv clean .parts $(PARTS:%=.tests-%) $(CHECKS:%=.check-%)

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-12s %s\n", $$1, $$2}' Makefile
	@echo "PYTHON=... chooses the interpreter (3.11 or newer), now $(PYTHON)"

demo: $(VENV)/.demo  ## every module of the standard library goes through the queue
	$(DEMO)

# What is quick comes first, and nothing begins any more when a step has failed.
test:  ## every check there is
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory coverage CHECKS='layers types docs'
	$(call step,all checks passed)

lint: $(VENV)/.dev  ## ruff: rules and format
	$(call step,ruff check)
	$(BIN)/ruff check .
	$(call step,ruff format --check)
	$(BIN)/ruff format --check .

format: $(VENV)/.dev  ## let ruff write the format, and what it can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: $(VENV)/.dev  ## mypy, strict
	$(call step,mypy)
	$(BIN)/mypy

layers: $(VENV)/.dev  ## import-linter: who may import whom
	$(call step,lint-imports)
	$(BIN)/lint-imports --no-logo

unit: $(VENV)/.dev  ## the tests without the slow ones: no processes, no sockets
	$(BIN)/python -m pytest tests --ignore=tests/integration \
		--ignore=tests/test_documents.py --ignore=tests/test_house.py

integration: $(VENV)/.dev  ## real processes, sockets, signals, and the documents' programs
	$(BIN)/python -m pytest tests/integration tests/test_documents.py tests/test_house.py

coverage: $(VENV)/.dev  ## all tests, and how much of the code they ran (PYTEST=... chooses)
	$(call step,$(strip $(CHECKS) tests) under coverage)
# Where PYTHONDONTWRITEBYTECODE is set, each process that a test starts would compile it.
	@$(BIN)/python -m compileall -q asynqueue tests examples
	@$(BIN)/python -m coverage erase
ifeq ($(PYTEST),tests)
	@mkdir -p build && rm -f build/*.status
	@$(MAKE) --no-print-directory -j$(JOBS) $(CHECKS:%=.check-%) $(PARTS:%=.tests-%) || { \
		for status in build/*.status; do \
			[ "`cat $$status`" = 0 ] && continue; name=`basename $$status .status`; \
			printf '\n%s failed; build/%s.txt has all of it:\n' $$name $$name; \
			grep -E '^(FAILED|ERROR) ' build/$$name.txt || tail -n 20 build/$$name.txt; \
		done >&2; exit 1; }
else
	$(BIN)/python -m coverage run -m pytest $(PYTEST)
endif
	$(call step,coverage report)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

$(PARTS:%=.tests-%): .tests-%:
	@$(call beside,$*,$(BIN)/python -m coverage run -m pytest $($*))

# A line for each part: its name, and what pytest is told.
.parts:
	@$(foreach part,$(PARTS),echo $(part) $($(part));)

$(CHECKS:%=.check-%): .check-%:
	@$(call beside,$*,$(MAKE) --no-print-directory $*)

soak: $(VENV)/.dev  ## random tests, 2,000 runs of each state machine: minutes, not in `make test`
	$(call step,pytest -m 'model or random')
	HYPOTHESIS_PROFILE=soak $(BIN)/python -m pytest -m 'model or random' tests

docs: api  ## the manual in docs/_build/html, the API pages in docs/_build/api
	$(call step,sphinx)
	$(BIN)/python -m sphinx -W --keep-going -n -q -b html docs docs/_build/html

api: $(VENV)/.dev
	$(call step,pydoctor)
	$(BIN)/pydoctor -q -W

bench: $(VENV)/.dev  ## the figures of docs/benchmarks.rst, peers side by side
	$(BIN)/python -m benchmarks

news: $(VENV)/.dev  ## what newsfragments/ would say in a release
	$(BIN)/towncrier build --draft --version next

dist: $(VENV)/.dev  ## a wheel in dist/
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

venv: $(VENV)/.dev  ## only set up .venv

clean:  ## what was made here, .venv too
	rm -rf $(VENV) build dist htmlcov docs/_build demo-output *.egg-info
	rm -rf .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -rf .import_linter_cache _trial_temp* .tox
	rm -f twisted/plugins/dropin.cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: made when the extras are installed, old when setup.cfg is newer.

$(VENV)/.demo: setup.cfg $(BIN)/python
	$(call step,installing AsynQueue and what the demo needs into $(VENV))
	$(BIN)/python -m pip install -qq -e '.[demo]'
	@touch $@

$(VENV)/.dev: setup.cfg $(BIN)/python
	$(call step,installing AsynQueue and all tools into $(VENV): a few minutes)
	$(BIN)/python -m pip install -qq -e '.[dev]'
	@touch $@ $(VENV)/.demo

# Some systems have venv without ensurepip: pip can then come in from outside.
$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || \
		{ echo "There is no $(PYTHON). Say: make PYTHON=/path/to/python3.11 (or newer)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "AsynQueue needs Python 3.11 or newer; $(PYTHON) is" \
			"`$(PYTHON) -V 2>&1`. Say: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(call step,making $(VENV) with $(PYTHON))
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || { \
		rm -rf $(VENV); \
		$(PYTHON) -m venv --without-pip $(VENV) && \
		{ $(PYTHON) -m pip --python $(BIN)/python install -qq pip || \
			{ rm -rf $(VENV); exit 1; }; }; }
