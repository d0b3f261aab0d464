"""Every command that a page shows, and how it is tested: run, or else why not. A command that is in
no page any more goes from this list too."""

ALONE = "run by tests/unit/test_documented_commands.py"
ON_A_CLUSTER = "run by tests/integration/test_documented_commands.py"

KEY = "not run: it needs a key of the vendor's; tests run it against the simulator"
LONG = "not run: it takes long; .ci/run, or whoever develops, does it"
DOCKER = "not run: it needs a Docker engine; tests/unit/test_compose.py checks the file"
KUBECTL = "not run: it needs a Kubernetes; tests/unit/test_k8s.py checks the manifests"
REGISTRY = "not run: it asks PyPI"
SHELL = "not run: it sets up a shell or a folder"
CTRL_C = "not run as it stands: it goes on until Ctrl-C; tests/integration/test_command_line.py"
CTRL_C_PAGE = "not run as it stands: it goes on until Ctrl-C; tests/page/test_page.py"
RUNNING = "run by tests/integration/test_running_stack.py, with other symbols"
BROKERS = "not run: it needs three brokers; tests/unit/test_topology_plan.py"
STOPPED = "not run: it needs an agent that is stopped; tests/faults/test_failing_records.py"

_CLI = ".venv/bin/infoway-streams"

COMMANDS = {
    "infoway-streams COMMAND --help": ALONE,
    "make run ARGS=--help": ALONE,
    "infoway-streams plan-subscriptions --symbols 00700.HK,AAPL.US": ALONE,
    "infoway-streams simulate --port 8090 --package free --script faults.yaml": ON_A_CLUSTER,
    "infoway-streams record --url ws://127.0.0.1:8090/ws --symbols BTCUSDT --out recorded": (
        ON_A_CLUSTER
    ),
    f"{_CLI} replay recorded/*.jsonl.gz --out out": ON_A_CLUSTER,
    f"{_CLI} replay day.jsonl --out out": ON_A_CLUSTER,
    f"{_CLI} replay day.jsonl.gz --out out": "run by tests/integration/test_replay_truth.py",
    "infoway-streams topology plan": ON_A_CLUSTER,
    "infoway-streams topology apply": ON_A_CLUSTER,
    "infoway-streams dead-letter list": ON_A_CLUSTER,
    "infoway-streams dead-letter redrive --dry-run": ON_A_CLUSTER,
    "infoway-streams dead-letter redrive": ON_A_CLUSTER,
    f"{_CLI} export --topics infoway.bars.1m --csv --out export": ON_A_CLUSTER,
    "infoway-streams export --topics infoway.raw.trade --from 2h --csv --out export": ON_A_CLUSTER,
    "infoway-streams export --topics infoway.bars.1m --out export": ON_A_CLUSTER,
    "infoway-streams export --topics infoway.bars.1m --last --out export": ON_A_CLUSTER,
    f"{_CLI} tail infoway.vwap.1m": CTRL_C,
    f"{_CLI} tail infoway.vwap.1m --max 3 | cat": RUNNING,
    f"{_CLI} tail infoway.bars.1m --since 10m --symbol BTCUSDT": CTRL_C,
    "infoway-streams tail infoway.bars.1m infoway.vwap.1m --symbol BTCUSDT --since 10m "
    "--max 100": CTRL_C,
    f"{_CLI} status": RUNNING,
    f"{_CLI} group": RUNNING,
    f'eval "$({_CLI} env)"': RUNNING,
    f"{_CLI} up --detach": RUNNING,
    f"{_CLI} logs --lines 5": RUNNING,
    f"{_CLI} down": RUNNING,
    f"{_CLI} tail infoway.bars.1m --from-beginning": CTRL_C,
    "infoway-streams tail infoway.bars.1m --from-beginning": CTRL_C,
    "INFOWAY_SLOT=0 infoway-streams worker": CTRL_C,
    "make run": CTRL_C,
    "make run | cat": CTRL_C,
    ".venv/bin/python consume.py": "run by tests/integration/test_foreign_consumer.py",
    "INFOWAY_API_KEY=… make run": KEY,
    'INFOWAY_API_KEY_FILE=/run/secrets/key make run ARGS="--symbols 00700.HK,AAPL.US,BTCUSDT"': KEY,
    "INFOWAY_API_KEY=… infoway-streams plan-subscriptions "
    "--symbols 00700.HK,AAPL.US,BTCUSDT,7203.JP": KEY,
    "INFOWAY_API_KEY=… infoway-streams backfill --symbols BTCUSDT,00700.HK "
    "--from 2026-11-20T01:30Z --to 2026-11-20T08:10Z": KEY,
    f"INFOWAY_API_KEY=… {_CLI} record --symbols BTCUSDT,00700.HK --out recorded": KEY,
    "infoway-streams produce --symbols 00700.HK,AAPL.US": KEY,
    "INFOWAY_REPLICATION=3 INFOWAY_MIN_INSYNC_REPLICAS=2 infoway-streams topology apply": BROKERS,
    "infoway-streams skip --agent vwap --topic infoway.raw.trade --partition 2 --offset 17": (
        STOPPED
    ),
    "infoway-streams skip --agent vwap --topic infoway.raw.trade --partition 2 --offset 17 "
    "--retry": STOPPED,
    "make install": LONG,
    "make install-dev": LONG,
    "make lint": LONG,
    "make docs": "what it writes is compared by tests/unit/test_documentation.py",
    "make docs k8s": "what it writes is compared by tests/unit/test_documentation.py",
    "make k8s": "what it writes is compared by tests/unit/test_k8s.py",
    "infoway-streams dashboard": CTRL_C_PAGE,
    "infoway-streams dashboard --open": CTRL_C_PAGE,
    "openssl rand -hex 16 > page-token": SHELL,
    "INFOWAY_PAGE_TOKEN_FILE=page-token infoway-streams dashboard --host 0.0.0.0 --name "
    "desk.example.com": CTRL_C_PAGE,
    "make test-page": LONG,
    "make browser": LONG,
    "make screenshots": LONG,
    "make test": LONG,
    "make test-unit": LONG,
    "make test-kernels": LONG,
    "make test-interop": LONG,
    "make bench": LONG,
    "make bench-growth": LONG,
    "make bench-latency": LONG,
    'make bench-peers ARGS="--symbols 50"': LONG,
    'make bench-peers ARGS="--symbols 5000"': LONG,
    "make drill": LONG,
    "make drill-check": LONG,
    "make drill-random": LONG,
    "make drill-recovery": LONG,
    "make drill ARGS=\"-k 'kafka and freeze and 45'\"": LONG,
    "export INFOWAY_BOOTSTRAP=kafka-1:9092,kafka-2:9092": SHELL,
    "export INFOWAY_REGISTRY=http://registry:8080/apis/ccompat/v7": SHELL,
    "export INFOWAY_API_KEY_FILE=/run/secrets/infoway-key INFOWAY_SOURCE=live": SHELL,
    '.venv/bin/pip install "confluent-kafka[avro,schemaregistry]"': REGISTRY,
    ".venv/bin/pip install pyarrow": REGISTRY,
    "pip wheel --no-deps --wheel-dir dist .": "run by tests/integration/test_wheel.py",
    "docker build -t infoway-streams:0.1.0 .": DOCKER,
    "docker compose --profile simulated up": DOCKER,
    "INFOWAY_API_KEY=… docker compose --profile live up": DOCKER,
    "docker compose --profile core up": DOCKER,
    "docker compose --profile simulated --profile monitoring up": DOCKER,
    "kubectl -n kafka apply -k infra/deploy/k8s/topics": KUBECTL,
    "kubectl -n kafka delete job infoway-topology --ignore-not-found": KUBECTL,
    "kubectl -n kafka apply -k infra/deploy/k8s/overlays/production": KUBECTL,
}
