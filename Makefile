# The verbs of the project; `make help` lists them.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help env demo test check style types layers unit integration bench crash soak deb lock clean

help:  ## what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

env: .venv/ready  ## the environment in .venv, with pinned dependencies

.venv/ready: requirements-dev.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "aiologs needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: env  ## the main job on sample logs, into an embedded store
	@$(BIN)/python -m bench.demo

test: env check unit integration  ## all tests; in CI (CI=true) none may be skipped

check: style types layers  ## style, types and layers

style: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: env
	$(BIN)/mypy

layers: env
	$(BIN)/lint-imports

unit: env
	$(BIN)/pytest tests --ignore tests/integration --ignore tests/crash --numprocesses auto --dist worksteal

integration: env
	tests/services/with-services $(BIN)/pytest tests/integration tests/crash --numprocesses 3 --dist loadfile

bench: env  ## the reference job, measured beside the handwritten yardstick; then the other inputs
	$(BIN)/python -m bench.run
	$(BIN)/python -m bench.inputs

crash: env  ## the crash tests in full length
	AIOLOGS_CRASH=long tests/services/with-services $(BIN)/pytest tests/crash tests/integration/test_kafka.py

soak: env  ## an hour of rotation, outages, kills and a clock that jumps (AIOLOGS_SOAK_MINUTES, AIOLOGS_SOAK_RATE)
	AIOLOGS_SOAK_MINUTES=$${AIOLOGS_SOAK_MINUTES:-60} $(BIN)/pytest tests/crash/test_soak.py

deb: env  ## the Debian package, in dist
	deploy/debian/build

lock: env  ## pin the dependencies again
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --output-file requirements.txt pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --group dev --output-file requirements-dev.txt pyproject.toml

clean:
	rm -rf .venv var dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
