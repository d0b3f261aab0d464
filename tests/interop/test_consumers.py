"""Services in Node, Go, Java and Python read bars, VWAP and imbalance: each prints what
golden.ndjson holds, decimals to the last digit.

Each example is run in a copy of its folder by the commands that its head gives; where its toolchain
is missing its test is skipped by name.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from datetime import date
from pathlib import Path

import confluent_kafka as ck
import pytest

from infra import topology
from processors.engine.outputs import Outputs
from producers.delivery.client import open_producer
from schemas.clients.registry import Registry
from schemas.decimals import to_units
from schemas.partition import partition_of
from schemas.topics import Topology, load_example, load_schema
from schemas.wire import logical_type

EXAMPLES = Path(__file__).parents[2] / "examples"
GOLDEN = Path(__file__).parent / "golden.ndjson"
TOPICS = {
    "infoway.bars.1m": "bar",
    "infoway.vwap.1m": "vwap",
    "infoway.depth.imbalance": "depth_imbalance",
}
EXTREMES = (
    "99999999999999999999.999999999999999999",
    "-99999999999999999999.999999999999999999",
    "-0.000000000000000001",
    "0",
)


def physical(schema, record):
    """An example payload as the encoders take it."""

    def of(field):
        value = record[field["name"]]
        if value is None:
            return None
        logical = logical_type(field["type"])
        return (
            to_units(value)
            if logical == "decimal"
            else (date.fromisoformat(value) - date(1970, 1, 1)).days
            if logical == "date"
            else value
        )

    return [of(field) for field in schema["fields"]]


def records():
    """Each schema's example, and examples with the greatest and least numbers, without what may be
    null, and with other letters."""
    for topic, name in TOPICS.items():
        schema, example = load_schema(name), load_example(name)
        yield topic, schema, example
        for number in EXTREMES:
            changed = {
                field["name"]: number
                for field in schema["fields"]
                if logical_type(field["type"]) == "decimal"
            }
            dated = {
                field["name"]: "1969-12-31"
                for field in schema["fields"]
                if field["name"] == "trade_date"
            }
            yield topic, schema, example | changed | dated | {"symbol": "ÄÖ株.HK"}
        nullable = {
            field["name"]: None for field in schema["fields"] if isinstance(field["type"], list)
        }
        yield topic, schema, example | nullable


@pytest.fixture(scope="module")
def environment(stack):
    """The topics with fixed records: committed in lz4 as the processors do, after some of a worker
    that did not commit."""
    # not one for all: a worker of pytest may come back to this module, and makes the topics anew
    prefix = f"interop-{uuid.uuid4().hex[:8]}."
    names = Topology(prefix, partitions=3)
    outputs = Outputs.of(
        names, topology.apply(stack.bootstrap, Registry(stack.registry_url), names, {})
    )
    settings = {
        "bootstrap.servers": stack.bootstrap,
        "transactional.id": prefix,
        "compression.type": "lz4",
    }
    producer = ck.Producer(settings)
    producer.init_transactions(60)
    for commit in (False, True):
        producer.begin_transaction()
        for topic, schema, record in records():
            fields = tuple(physical(schema, record if commit else record | {"symbol": "NEVER.HK"}))
            name, partition, key, value = outputs.encode(
                topic, 1, record["symbol"], fields, "infoway.raw.trade"
            )
            producer.produce(name, value, key, partition)
        assert producer.flush(60) == 0
        producer.commit_transaction(60) if commit else producer.abort_transaction(60)
    # a list, as of a cluster of several brokers
    bootstrap = f"{stack.bootstrap},{stack.bootstrap}"
    variables = {
        "INFOWAY_BOOTSTRAP": bootstrap,
        "INFOWAY_REGISTRY": stack.registry_url,
        "INFOWAY_PREFIX": prefix,
    }
    return {**os.environ, **variables}


def golden():
    return [json.loads(line) for line in GOLDEN.read_text().splitlines()]


def tool(name, what):
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} here: the {what} example cannot be built")
    return found


class TooSlow(AssertionError):
    """A command has not ended in time; with all that it printed."""


def run(command, folder, environment, text=None, timeout=120):
    pipes = {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    }
    with subprocess.Popen(
        command, cwd=folder, env=environment, start_new_session=True, **pipes
    ) as process:
        try:
            printed, said = process.communicate(text, timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            printed, said = process.communicate()
            raise TooSlow(
                f"{command} has not ended within {timeout} s\nstdout: {printed}\nstderr: {said}"
            ) from None
        except BaseException:
            # what a tool has started goes with it
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert process.returncode == 0, f"{command[0]}: {said[-2000:]}{printed[-500:]}"
    return printed


def commands(file):
    """The commands that an example's head tells its reader to type, the one that runs it last."""
    return [
        line.partition("$ ")[2]
        for line in file.read_text().splitlines()
        if line.lstrip("/ \t").startswith("$ ")
    ]


def typed(command, folder, environment, text=None, timeout=280):
    """What a command prints that is typed into a shell."""
    return run(["bash", "-c", command], folder, environment, text, timeout)


def copy_of(language, folder):
    for file in (EXAMPLES / language).iterdir():
        shutil.copy(file, folder)
    return folder


def ends(environment):
    """Where the topics' partitions end, as a reader of what is committed and one of all see it."""
    found = []
    for isolation in ("read_committed", "read_uncommitted"):
        consumer = ck.Consumer(
            {
                "bootstrap.servers": environment["INFOWAY_BOOTSTRAP"],
                "group.id": f"{environment['INFOWAY_PREFIX']}ends",
                "isolation.level": isolation,
            }
        )
        for topic in TOPICS:
            for partition in range(3):
                name = f"{environment['INFOWAY_PREFIX']}{topic}"
                try:
                    where = consumer.get_watermark_offsets(
                        ck.TopicPartition(name, partition), timeout=10
                    )
                except ck.KafkaException as error:
                    where = error
                found.append(f"{name} {partition} {isolation}: {where}")
        consumer.close()
    return "\n".join(found)


def reads_the_golden_file(command, folder, environment):
    assert command.endswith(" 10")
    try:
        printed = typed(f"{command.removesuffix(' 10')} {len(golden())}", folder, environment)
    except TooSlow as slow:
        raise AssertionError(f"{slow}\n{ends(environment)}") from None
    found = [json.loads(line) for line in printed.splitlines()]
    ours = [
        record | {"topic": record["topic"].removeprefix(environment["INFOWAY_PREFIX"])}
        for record in found
    ]
    # of several topics nobody promises an order, of one partition everybody does
    for topic in TOPICS:
        assert [each for each in ours if each["topic"] == topic] == [
            each for each in golden() if each["topic"] == topic
        ]
    assert len(ours) == len(golden())


@pytest.fixture(scope="module")
def java(tmp_path_factory):
    """A copy of the Java examples, with their class path."""
    for name in ("mvn", "java"):
        tool(name, "Java")
    folder = copy_of("java", tmp_path_factory.mktemp("java"))
    [prepare, _] = commands(folder / "Consume.java")
    assert commands(folder / "Partition.java")[0] == prepare
    typed(prepare, folder, None)
    return folder


def test_python(environment):
    # the first command installs what the tests have
    [_, command] = commands(EXAMPLES / "python" / "consume.py")
    path = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    reads_the_golden_file(command, EXAMPLES / "python", {**environment, "PATH": path})


def test_node(environment, tmp_path):
    for name in ("node", "npm"):
        tool(name, "Node")
    [install, command] = commands(copy_of("node", tmp_path) / "consume.mjs")
    typed(f"{install} --prefer-offline --ignore-scripts --no-audit --no-fund", tmp_path, None)
    reads_the_golden_file(command, tmp_path, environment)


@pytest.mark.heavy
def test_go(environment, tmp_path):
    tool("go", "Go")
    [command] = commands(copy_of("go", tmp_path) / "main.go")
    # not optimized: it is compiled, with all that it needs, for this test alone
    reads_the_golden_file(command, tmp_path, environment | {"GOFLAGS": "-gcflags=all=-N"})


@pytest.mark.heavy
def test_java(environment, java):
    reads_the_golden_file(commands(java / "Consume.java")[-1], java, environment)


def test_a_java_producer_of_default_settings_puts_keys_where_ours_do(environment, java):
    keys = [f"{number:05d}.HK" for number in range(300)] + [
        "BTCUSDT",
        "USDJPY",
        "ÄÖ株.HK",
        "600519.SH",
        "weird symbol",
        "x" * 300,
    ]
    command = commands(java / "Partition.java")[-1].replace(
        "TOPIC", f"{environment['INFOWAY_PREFIX']}infoway.raw.kline"
    )
    printed = typed(command, java, environment, text="\n".join(keys))
    theirs = [int(line) for line in printed.split()]
    ours = []
    producer = open_producer(environment["INFOWAY_BOOTSTRAP"])
    for key in keys:
        producer.produce(
            f"{environment['INFOWAY_PREFIX']}infoway.raw.trade",
            b"",
            key.encode(),
            on_delivery=lambda error, sent: ours.append((sent.key(), sent.partition())),
        )
    assert producer.flush(60) == 0
    assert (
        [dict(ours)[key.encode()] for key in keys]
        == theirs
        == [partition_of(key.encode(), 3) for key in keys]
    )
    assert set(theirs) == {0, 1, 2}


def test_the_golden_file_is_what_the_records_say():
    def shown(schema, record):
        scaled = {}
        for field, value in zip(schema["fields"], physical(schema, record), strict=True):
            decimal = logical_type(field["type"]) == "decimal" and value is not None
            scaled[field["name"]] = (
                f"{'-' * (value < 0)}{abs(value) // 10**18}.{abs(value) % 10**18:018d}"
                if decimal
                else value
            )
        return scaled

    assert golden() == [
        {"topic": topic, "key": record["symbol"], **shown(schema, record)}
        for topic, schema, record in records()
    ]
