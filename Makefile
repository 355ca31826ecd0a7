# Everything a person does with this project. `make help` lists it.
#
# The environment is .venv, installed from locked and hashed requirements; a stamp in it makes
# every later run instant.

PYTHON ?= $(shell for each in python3 python3.13 python3.12 python3.11; do \
	$$each -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$each && break; \
	done)
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
LOCK := env --unset=PIP_FIND_LINKS --unset=UV_FIND_LINKS PIP_CONFIG_FILE=/dev/null $(BIN)/uv --no-config \
	pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--custom-compile-command "make lock" pyproject.toml --group build
PACKAGES := domain adapters entrypoints settings

.DEFAULT_GOAL := help
.PHONY: help serve test check fix torture bench lock

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

serve: .venv/run ## the service on http://127.0.0.1:8000
	@exec $(BIN)/task-agent serve

test: .venv/develop ## every test that needs nothing outside
	@# Three at once, for many of them wait for other processes.
	$(BIN)/python -m pytest -v --numprocesses 3 --dist loadscope

check: .venv/develop ## format, lint, types, layers, locks, the OpenAPI document
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/architecture
	$(BIN)/task-agent openapi | diff entrypoints/http/openapi.json - \
		|| { echo "write it anew: task-agent openapi > entrypoints/http/openapi.json"; exit 1; }

fix: .venv/develop ## format, and mend what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

torture: .venv/develop ## the long form of the tests: more rounds, more seeds
	$(BIN)/python -m pytest -m torture --timeout 1800

bench: .venv/develop ## measure the service beside its floors
	$(BIN)/python tests/bench

lock: .venv/develop ## resolve the requirements of pyproject.toml anew (--upgrade: make lock UP=--upgrade)
	$(LOCK) $(UP) --output-file requirements.txt
	$(LOCK) $(UP) --group dev --constraint requirements.txt --output-file requirements-dev.txt

.venv/run: requirements.txt pyproject.toml | .venv/bin/python
	$(INSTALL) --require-hashes -r requirements.txt
	$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

.venv/develop: requirements-dev.txt pyproject.toml | .venv/bin/python
	$(INSTALL) --require-hashes -r requirements-dev.txt
	$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@ .venv/run

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; none was found" >&2; exit 1; }
	$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }
