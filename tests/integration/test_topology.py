"""`topology plan` and `topology apply` against a real broker and registry, and who starts on a
cluster where nothing was applied."""

import json
import os
import subprocess
import sys
from pathlib import Path

import drill
import pytest
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from evolution import NoHistory, published

from infra.cli import main as cli
from infra.kafka.reader import ValueReader
from infra.topology import applying, cluster
from infra.topology.difference import Allowed
from infra.topology.wanted import wanted
from schemas.clients.registry import Registry
from schemas.topics import Topology, load_example, load_schema
from schemas.wire import compile_encoder

ROOT = Path(__file__).parents[2]


@pytest.fixture
def topology(stack, namespace, monkeypatch, capsys):
    """Run the command in this process: (exit code, output)."""
    monkeypatch.setenv("INFOWAY_BOOTSTRAP", stack.bootstrap)
    monkeypatch.setenv("INFOWAY_REGISTRY", stack.registry_url)

    def run(action, *arguments, partitions=2):
        with pytest.raises(SystemExit) as ended:
            cli.main(
                [
                    "topology",
                    action,
                    "--prefix",
                    namespace,
                    "--partitions",
                    str(partitions),
                    "--intervals",
                    "1m",
                    "--windows",
                    "1m",
                    *arguments,
                ]
            )
        said = capsys.readouterr()
        sys.stderr.write(said.err)  # for whoever looks at a failure
        return ended.value.args[0], said.out

    return run


def alter(stack, topic, **config):
    entries = [
        ConfigEntry(k.replace("_", "."), v, incremental_operation=AlterConfigOpType.SET)
        for k, v in config.items()
    ]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    admin = AdminClient({"bootstrap.servers": stack.bootstrap})
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(60)
    # acknowledged by the controller, not yet read by the broker
    assert drill.wait_until(
        lambda: all(config_of(stack, topic, k.replace("_", ".")) == v for k, v in config.items()),
        60,
    )


def config_of(stack, topic, name):
    admin = AdminClient({"bootstrap.servers": stack.bootstrap})
    [future] = admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]).values()
    return future.result(60)[name].value


def test_apply_does_what_plan_says_once_and_sets_back_what_was_changed(stack, namespace, topology):
    topics = Topology(namespace, ("1m",), ("1m",)).topics()
    both = len(topics) + len([topic for topic in topics if topic.schema])
    drill.create_topics(stack.bootstrap, [drill.NewTopic(f"{namespace}foreign", 1, 1)])
    code, shown = topology("plan", "--detailed-exitcode")
    assert (code, shown.splitlines()[-1]) == (2, f"Plan: {both} to create, 0 to change, 0 refused.")
    assert f"  + topic {namespace}infoway.bars.1m\n      partitions: 2\n" in shown
    code, shown = topology("apply")
    assert (code, shown.splitlines()[-1]) == (0, f"Applied: {both} created, 0 changed.")
    nothing = "Plan: 0 to create, 0 to change, 0 refused.\n"
    assert topology("plan", "--detailed-exitcode") == (0, nothing)
    assert topology("apply") == (0, f"{nothing}Applied: 0 created, 0 changed.\n")

    bars, late = f"{namespace}infoway.bars.1m", f"{namespace}infoway.late-value"
    alter(stack, bars, retention_ms="1000", max_message_bytes="2000000")
    Registry(stack.registry_url)._call("PUT", f"/config/{late}", {"compatibility": "NONE"}, dict)
    code, shown = topology("plan", "--detailed-exitcode")
    assert code == 2
    assert shown.splitlines() == [
        f"  ~ topic {bars}",
        "      retention.ms: 1000 -> 2592000000",
        f"  ~ schema {late}",
        "      compatibility: NONE -> FULL_TRANSITIVE",
        "",
        "Plan: 0 to create, 2 to change, 0 refused.",
    ]
    code, shown = topology("apply", "--json")
    assert (code, json.loads(shown)["applied"], json.loads(shown)["change"]) == (0, True, 2)
    assert [config_of(stack, bars, name) for name in ("retention.ms", "max.message.bytes")] == [
        "2592000000",
        "2000000",
    ]
    assert Registry(stack.registry_url).compatibility(late) == "FULL_TRANSITIVE"
    assert topology("plan", "--detailed-exitcode") == (0, nothing)


def test_apply_on_a_cluster_with_the_schemas_of_the_version_before(stack, namespace, topology):
    """A registry may take two schemas that differ in their docs alone for one, as Apicurio does."""
    try:
        versions = published(ROOT)
    except NoHistory as missing:
        pytest.skip(str(missing))
    registry = Registry(stack.registry_url)
    before = {}
    for topic in Topology(namespace, ("1m",), ("1m",)).topics():
        today = load_schema(topic.schema) if topic.schema else None
        earlier = [each for _, each in versions.get(f"schemas/{topic.schema}.avsc", [])]
        if different := [each for each in earlier if each != today]:
            schema_id = registry.register(topic.subject, different[-1])
            before[topic.schema] = topic.subject, different[-1], schema_id
    assert {"raw_trade", "raw_depth", "raw_kline", "dead_letter"} <= before.keys()
    assert topology("plan", "--detailed-exitcode")[1].endswith(", 0 refused.\n")
    assert topology("apply")[0] == 0
    assert topology("plan", "--detailed-exitcode")[0] == 0
    for schema, (subject, earlier, schema_id) in before.items():
        assert registry.id_of(subject, load_schema(schema)) is not None
        assert registry.id_of(subject, earlier) == schema_id
    # what was written before is read as it was
    _, earlier, schema_id = before["raw_trade"]
    example = load_example("raw_trade")
    value = compile_encoder(earlier, schema_id)(*(example[f["name"]] for f in earlier["fields"]))
    read = ValueReader(registry)(value)[1]
    assert {name: read[name] for name in example} == example


def test_what_would_lose_records_or_their_order_is_refused_and_nothing_else_is_done(
    stack, namespace, topology, monkeypatch
):
    assert topology("apply")[0] == 0
    bars = f"{namespace}infoway.bars.1m"
    alter(stack, bars, retention_ms="-1", compression_type="gzip")
    code, shown = topology("apply")
    assert "nothing was applied" in code
    assert "--allow-shorter-retention" in code
    assert shown.startswith(f"  ! topic {bars}\n")
    assert [config_of(stack, bars, name) for name in ("retention.ms", "compression.type")] == [
        "-1",
        "gzip",
    ]
    monkeypatch.setenv("INFOWAY_RETENTION", "infoway.bars.*=unlimited")
    assert topology("apply")[0] == 0
    assert [config_of(stack, bars, name) for name in ("retention.ms", "compression.type")] == [
        "-1",
        "producer",
    ]

    code, shown = topology("apply", partitions=3)
    assert f"{bars}, " in code
    assert "partitions 2 -> 3, keys would move to other partitions" in code
    assert topology("plan", "--detailed-exitcode") == (
        0,
        "Plan: 0 to create, 0 to change, 0 refused.\n",
    )
    assert topology("apply", "--allow-partition-change", partitions=3)[0] == 0
    assert topology("plan", "--detailed-exitcode", partitions=3)[0] == 0


def test_a_schema_that_breaks_readers_is_refused_before_the_registry_has_to(
    stack, namespace, topology
):
    schema = load_schema("progress")
    other = {**schema, "fields": [*schema["fields"], {"name": "vital", "type": "string"}]}
    Registry(stack.registry_url).register(f"{namespace}infoway.progress-value", other)
    code, shown = topology("apply")
    assert (
        f"  ! schema {namespace}infoway.progress-value\n      schema: version 1 -> "
        "progress.avsc   refused: not FULL_TRANSITIVE" in shown
    )
    assert "nothing was applied" in code
    assert (
        f"{namespace}infoway.progress"
        not in AdminClient({"bootstrap.servers": stack.bootstrap}).list_topics(timeout=10).topics
    )


def test_more_replicas_than_brokers_are_refused_before_anything_is_made(
    stack, namespace, topology, monkeypatch
):
    monkeypatch.setenv("INFOWAY_REPLICATION", "3")
    code, shown = topology("plan", "--detailed-exitcode")
    assert (code, "0 to change" in shown.splitlines()[-1]) == (2, True)
    assert (
        "      replication factor: 3   refused: the cluster says: Unable to replicate the "
        "partition 3 time(s)" in shown
    )
    code, _ = topology("apply")
    assert code.startswith("infoway-streams: nothing was applied, since this is refused: ")
    assert Registry(stack.registry_url).latest_version(f"{namespace}infoway.late-value") is None


def test_two_who_apply_at_the_same_time_both_succeed(stack, namespace):
    registry = Registry(stack.registry_url)

    def race(wants):
        # planned before either has begun
        plans = [
            cluster.plan(stack.bootstrap, registry, wants, Allowed(partition_change=True))
            for _ in range(2)
        ]
        assert plans[0].changes
        first, second = (
            applying.carry_out(stack.bootstrap, registry, wants, planned) for planned in plans
        )
        assert first == second
        assert cluster.plan(stack.bootstrap, registry, wants, Allowed()).changes == ()

    for partitions in (2, 3):
        race(wanted(Topology(namespace, ("1m",), ("1m",), partitions), {}))


def test_a_schema_that_a_lax_level_would_let_through_is_refused_before_any_topic_is_made(
    stack, namespace, topology
):
    schema, subject = load_schema("progress"), f"{namespace}infoway.progress-value"
    registry = Registry(stack.registry_url)
    registry._call("PUT", f"/config/{subject}", {"compatibility": "NONE"}, dict)
    other = {**schema, "fields": [*schema["fields"], {"name": "vital", "type": "string"}]}
    registry._call("POST", f"/subjects/{subject}/versions", {"schema": json.dumps(other)}, dict)
    code, shown = topology("apply")
    assert "      compatibility: NONE -> FULL_TRANSITIVE" in shown
    assert code.startswith(f"infoway-streams: {subject}: progress.avsc is not FULL_TRANSITIVE")
    assert not [
        name
        for name in AdminClient({"bootstrap.servers": stack.bootstrap})
        .list_topics(timeout=10)
        .topics
        if namespace in name
    ]
    assert registry.latest_version(f"{namespace}infoway.late-value") is None
    # the level stands now, and the plan says the same
    code, shown = topology("plan", "--detailed-exitcode")
    assert (code, f"  ! schema {subject}\n" in shown) == (2, True)


@pytest.mark.parametrize(
    "command",
    [
        [
            "-m",
            "infra.cli.main",
            "produce",
            "--symbols",
            "BTCUSDT",
            "--url",
            "ws://127.0.0.1:1/ws",
            "--rest-url",
            "http://127.0.0.1:1",
        ],
        ["-m", "faust", "-A", "processors.app", "worker", "--without-web"],
    ],
    ids=["produce", "worker"],
)
def test_on_an_empty_cluster_one_line_says_what_is_missing_and_what_to_run(
    stack, namespace, command
):
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("INFOWAY_")
    }
    environment |= {
        "INFOWAY_BOOTSTRAP": stack.bootstrap,
        "INFOWAY_REGISTRY": stack.registry_url,
        "INFOWAY_PREFIX": namespace,
    }
    done = subprocess.run(
        [sys.executable, *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    line = done.stderr
    assert f"{namespace}infoway.raw.trade" in line
    assert f"{namespace}infoway.dead-letter-value" in line
    assert "run `infoway-streams topology apply` first" in line
    assert not [
        name
        for name in AdminClient({"bootstrap.servers": stack.bootstrap})
        .list_topics(timeout=10)
        .topics
        if namespace in name
    ]
