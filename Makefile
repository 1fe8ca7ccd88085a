# Two commands do everything: `make sweep` runs the main job, `make test` the tests. Both install first.
#   make PYTHON=/path/to/python ...   picks the interpreter      make test ARGS="-k plan"   picks the tests

SHELL := bash
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed
LOG := $(VENV)/install.log
# The lock is made and tested with the first of these. torch has no range here: `make lock TORCH=...` moves it.
PYTHONS := $(or $(PYTHON),python3.11 python3.12 python3.13 python3)
TORCH := 2.13.0
ARGS :=
# Half of what a test takes is waiting for servers to start: two at once, each with whole files.
JOBS := 2
SEEDS := 10

# The stamp holds the folder it was made in: an environment that was moved or copied is made anew.
ifneq ($(CURDIR),$(shell cat $(STAMP) 2>/dev/null))
$(shell rm -f $(STAMP))
endif

.DEFAULT_GOAL := help
.PHONY: help install sweep test gpu faults compat lint types docs lock clean

help: ## list the commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /: /' | awk -F': ' '{ printf "make %-9s %s\n", $$1, $$2 }'

install: $(STAMP) ## create .venv with the exact versions of requirements.lock

sweep: $(STAMP) ## run the main job, the packaged sweep "quickstart"
	@$(RUN) -m sweeps run quickstart

test: $(STAMP) ## run the tests
	@OMP_NUM_THREADS=1 $(RUN) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

gpu: $(STAMP) ## run every check of a GPU within 8 minutes; ARGS="--device cpu --size tiny" tries it without one
	@$(RUN) -m tests.gpu $(ARGS)

faults: $(STAMP) ## kill a sweep's processes in every way, SEEDS times each, and see that nothing is lost
	@OMP_NUM_THREADS=1 $(RUN) -m tests.faults --seeds $(SEEDS) --jobs $(JOBS)

compat: $(STAMP) ## run the tests of what hangs on private parts of Optuna and Ray under the oldest and newest of each
	@OMP_NUM_THREADS=1 $(RUN) -m tests.compat $(ARGS)

lint: $(STAMP) ## check style and format
	@$(RUN) -m ruff check . && $(RUN) -m ruff format --check .

types: $(STAMP) ## check types
	@$(RUN) -m mypy

docs: $(STAMP) ## build the documentation into build/site, warnings as errors; ARGS=serve shows it as you write
	@NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs $(or $(ARGS),build)

lock: ## make requirements.lock anew from the ranges in pyproject.toml
	@$(find_python) && "$$python" -m venv --clear build/lock
	@echo "resolving (minutes)"
	@build/lock/bin/python -m pip install --quiet --upgrade pip setuptools "torch==$(TORCH)" ".[sweeps,data,eval,dataframe,dev,docs]"
	@{ sed -n '/^#/p' requirements.lock; \
	  build/lock/bin/python -m pip freeze --all --exclude tli-sweeps | sed $(portable) | LC_ALL=C sort -f; \
	} > build/lock/requirements.lock && mv build/lock/requirements.lock requirements.lock
	@rm -rf build/lock && git --no-pager diff --stat -- requirements.lock

clean: ## remove what was installed and built; runs/ stays
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The lock names neither a build of torch (+cpu, +cu...) nor what only one of its builds needs.
portable := -E 's/\+.*//; /^(cuda|nvidia|triton)/d'

# Sets the shell variable `python` to the first interpreter that will do.
define find_python
for python in $(PYTHONS) ""; do \
  "$$python" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null \
    && break; \
done; \
if [ -z "$$python" ]; then \
  echo "error: no Python 3.11, 3.12 or 3.13 with its venv module among: $(PYTHONS)" >&2; \
  echo "Install one (Debian, Ubuntu: python3 and python3-venv) or name it: make PYTHON=/path/to/python" >&2; \
  exit 1; \
fi
endef

# The stamp goes first and comes back last, so that an interrupted installation never counts. Without a stamp
# the environment starts empty: half a package can look whole to pip.
$(STAMP): requirements.lock pyproject.toml
	@if [ -f $@ ]; then rm $@; else \
	  $(find_python); \
	  echo "creating $(VENV) with $$("$$python" -V)"; \
	  "$$python" -m venv --clear $(VENV); \
	fi
	@echo "installing $$(grep -c == requirements.lock) packages (about two minutes; log: $(LOG))"
	@set -o pipefail; $(RUN) -m pip install --progress-bar off -r requirements.lock 2>&1 | tee $(LOG) | awk ' \
	  /^(Collecting|Processing|Requirement already satisfied)/ && ++n % 40 == 0 { print "  " n " found" } \
	  /^Installing collected/ { print "  all found, writing them" } \
	  /^ERROR/ { print } { fflush() }' \
	  || { tail -n 15 $(LOG); echo "error: the installation failed; log: $(LOG)" >&2; exit 1; }
	@$(RUN) -m pip install --quiet --no-deps --no-build-isolation --editable . 2>> $(LOG) \
	  || { tail -n 15 $(LOG); exit 1; }
	@echo "$(CURDIR)" > $@
