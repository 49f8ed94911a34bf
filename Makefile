# make demo: set up and run the first experiment.  make test: lint and every test.  make help: the rest.
PYTHON ?= python3
BIN := .venv/bin

help:  ## this list
	@grep -hE '^[a-z]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 10

setup: .venv/.locked  ## the environment .venv from requirements.lock

.venv/.locked: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "aelab needs Python 3.11, 3.12 or 3.13; name one: make PYTHON=python3.11 setup"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup  ## train a small U-Net to remove noise from Fashion-MNIST
	$(BIN)/aelab task=denoise model=unet_mini

lint: setup  ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

test: lint  ## lint and every test that this machine can run
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder $(PYTEST)

bench: setup  ## side by side with the plain Keras scripts: time, metrics and their ratio
	$(BIN)/python -m bench.denoise
	$(BIN)/python -m bench.anomaly
	$(BIN)/python -m bench.recommend
	$(BIN)/python -m bench.lstm
	$(BIN)/python -m bench.sweep

campaign: setup  ## kills, wrong command lines, broken files and run folders for an hour: MINUTES=60 SEED=1 ONLY=lines,data
	PYTHONPATH=tests $(BIN)/python -m campaign $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED)) \
	  $(if $(ONLY),--only $(ONLY)) $(if $(CASE),--case $(CASE)) $(if $(JOBS),--at-once $(JOBS)) $(if $(KEEP),--keep $(KEEP))

ui: setup  ## the MLflow UI on the runs made here
	$(BIN)/aelab ui

lock:  ## write requirements.lock anew from pyproject.toml
	$(PYTHON) -m venv .venv && $(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url --no-emit-find-links --group dev pyproject.toml --output-file requirements.lock

wheel: setup  ## dist/aelab-*.whl, with conf/ in it
	$(BIN)/python -m hatchling build -t wheel

.PHONY: help setup demo lint test bench campaign ui lock wheel
