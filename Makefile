# Only python3, make and pip are assumed; everything else goes into .venv, in the versions of constraints.txt.
#
#   make demo      train a small network, inspect every epoch, write reports/demo.html
#   make test      everything: make check, doctests, tests, the blocks of the README and of docs/
#   make trainers  tests/integrations, with the real trainers and loggers, which the suite does without
#   make check     format, lint, strict types
#   make reports   run the examples; each writes its page to reports/
#   make screens   small pictures of the page in every state, to reports/screens/; needs chromium
#   make docs      the site, to build/site; strict: every link inside it is checked
#   make bench     measure; prints ratios, asserts nothing; other packages are measured where .[bench] is installed
#   make clean     remove what the others made

PYTHON ?= python3
BIN := .venv/bin
# Without --no-compile, pip would byte-compile thousands of files that are never imported, for half a minute.
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --no-compile -q -c constraints.txt

# The tests start some forty interpreters, whose modules are compiled once, even where the environment says never.
suite trainers: export PYTHONDONTWRITEBYTECODE =

# Two workers share two cores: with more than one thread each they wait for each other, for a third of the time.
suite trainers: export OMP_NUM_THREADS = 1

# Thousands of small files are flushed to the disk: where the system has room in memory, they lie there.
suite: export PYTEST_DEBUG_TEMPROOT := $(shell df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 && $$4 > 4e6 {print "/dev/shm"}')

# Here a trainer that is missing is a failure, and elsewhere a skip.
trainers: export TRAINERS_REQUIRED = 1

# And pandas keeps texts as it does where pyarrow is installed, which the suite can't afford.
trainers: export TEXTS = pyarrow

# Each worker begins with one half of the files, so most of what a file's tests share is made once; whoever is
# done first takes from the other, so that both end together.
PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal

.PHONY: demo test trainers check style types suite reports screens docs bench clean

# A fresh clone shows its demo soon: that needs no linter and no browser driver.
demo: .venv/runtime
	$(BIN)/confshift demo --out reports/demo.html

# Types and tests side by side: where one fails, make lets the other end, and fails.
test: style
	$(MAKE) -j 2 types suite

check: style types

style: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/dev
	$(BIN)/mypy

suite: .venv/dev
	$(PYTEST) src tests --ignore=tests/integrations

trainers: .venv/trainers
	$(PYTEST) tests/integrations tests/test_distribution.py::test_the_licence_of_a_trainer_is_that_which_it_states

reports: .venv/examples
	set -e; for script in examples/t*.py; do echo "$$script"; $(BIN)/python "$$script"; done

screens: .venv/dev
	$(BIN)/python tests/screens.py

docs: .venv/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build -q -f docs/site/mkdocs.yml

bench: .venv/dev
	set -e; for script in tests/benchmarks/*.py; do echo "$$script"; $(BIN)/python "$$script"; done

clean:
	rm -rf .venv build/site .hypothesis .mypy_cache .pytest_cache .ruff_cache reports/demo.html
	find src tests examples -name __pycache__ -prune -exec rm -rf {} +

.venv/runtime: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP_INSTALL) -e '.[images]'
	touch $@

.venv/examples: .venv/runtime
	$(PIP_INSTALL) -e '.[examples]'
	touch $@

.venv/dev: .venv/examples
	$(PIP_INSTALL) -e '.[dev]'
	touch $@

# fastai as far as it needs no torchvision, whose builds load only beside one build of torch.
.venv/trainers: .venv/dev
	$(PIP_INSTALL) -e '.[trainers]'
	$(PIP_INSTALL) --no-deps fastai fastcore fastdownload fastprogress fasttransform plum-dispatch beartype
	touch $@

.venv/docs: .venv/runtime
	$(PIP_INSTALL) -e '.[docs]'
	touch $@
