"""The embedded broker and registry: what survives a restart, what is refused, and that nothing is
left behind."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import confluent_kafka as ck
import drill
import pytest

from infra import topology
from infra.embedded.stack import FolderInUse, PortInUse, Stack
from infra.kafka.reader import read_to_end
from schemas.clients.registry import Registry, RegistryError
from schemas.partition import partition_of
from schemas.topics import Topology, load_schema

NAMES = Topology(prefix="kept.", partitions=3)


def group_members(group: int) -> list[str]:
    return subprocess.run(
        ["pgrep", "-g", str(group)], capture_output=True, text=True, check=False
    ).stdout.split()


@pytest.mark.heavy
def test_records_and_schema_ids_survive_a_restart_over_the_same_folder(tmp_path):
    with Stack(tmp_path) as stack:
        ids = topology.apply(stack.bootstrap, Registry(stack.registry_url), NAMES)
        producer = ck.Producer(
            {"bootstrap.servers": stack.bootstrap, "partitioner": "murmur2_random"}
        )
        producer.produce("kept.infoway.raw.trade", b"value", b"00700.HK")
        assert producer.flush(20) == 0
        groups = [server.process_group for server in stack.servers]
        with pytest.raises(FolderInUse, match="another embedded stack"):
            Stack(tmp_path)
    assert drill.wait_until(lambda: not any(map(group_members, groups)), 30)
    with Stack(tmp_path) as stack:
        assert topology.apply(stack.bootstrap, Registry(stack.registry_url), NAMES) == ids
        [message] = read_to_end(stack.bootstrap, "kept.infoway.raw.trade")
        assert (message.key(), message.value()) == (b"00700.HK", b"value")
        assert message.partition() == partition_of(b"00700.HK", 3)


def test_a_port_that_is_taken_is_named(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=f"port {port} on 127.0.0.1 is in use"):
            Stack(tmp_path, kafka_port=port)


def test_servers_end_with_a_process_that_is_killed(tmp_path):
    code = (
        "import sys, pathlib\nfrom infra.embedded.stack import Stack\n"
        "stack = Stack(pathlib.Path(sys.argv[1]))\nprint(*[server.process_group for server in "
        "stack.servers], flush=True)\nsys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    groups = [int(group) for group in parent.stdout.readline().split()]
    assert len(groups) == 2
    assert all(map(group_members, groups))
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdin.close()
    parent.stdout.close()
    assert drill.wait_until(lambda: not any(map(group_members, groups)), 60)


def test_keys_land_where_every_murmur2_client_puts_them(stack, namespace):
    topic = f"{namespace}keys"
    drill.create_topics(stack.bootstrap, [drill.NewTopic(topic, 7, 1)])
    producer = ck.Producer({"bootstrap.servers": stack.bootstrap, "partitioner": "murmur2_random"})
    keys = [f"{number:05d}.HK".encode() for number in range(200)] + [b"BTCUSDT", "日本".encode()]
    for key in keys:
        producer.produce(topic, b"", key)
    assert producer.flush(20) == 0
    placed = {message.key(): message.partition() for message in read_to_end(stack.bootstrap, topic)}
    assert placed == {key: partition_of(key, 7) for key in keys}


def test_an_incompatible_schema_is_refused(stack, namespace):
    registry = Registry(stack.registry_url)
    subject = f"{namespace}infoway.progress-value"
    schema = load_schema("progress")
    schema_id = registry.register(subject, schema)
    assert registry.id_of(subject, schema) == schema_id
    assert registry.schema(schema_id)["name"] == "Progress"
    narrower = {**schema, "fields": [*schema["fields"][:-1], {"name": "new", "type": "string"}]}
    with pytest.raises(RegistryError, match="incompatible"):
        registry.register(subject, narrower)
    wider = {
        **schema,
        "fields": [
            *schema["fields"],
            {"name": "note", "type": ["null", "string"], "default": None},
        ],
    }
    assert registry.register(subject, wider) != schema_id


def test_a_topology_with_another_number_of_partitions_is_refused(stack, namespace):
    registry = Registry(stack.registry_url)
    topology.apply(stack.bootstrap, registry, Topology(namespace, partitions=2))
    with pytest.raises(topology.TopologyError, match="partitions 2 -> 3, keys would move"):
        topology.apply(stack.bootstrap, registry, Topology(namespace, partitions=3))


def test_servers_out_of_reach_are_named():
    with pytest.raises(
        topology.TopologyError, match=r"no answer from the broker at 127\.0\.0\.1:1"
    ):
        topology.apply("127.0.0.1:1", Registry("http://127.0.0.1:1"), Topology())
    with pytest.raises(
        RegistryError, match=r"no answer from the schema registry at http://127\.0\.0\.1:1"
    ):
        Registry("http://127.0.0.1:1/apis/ccompat/v7").schema(1)


def test_the_recordings_folder_is_not_part_of_the_project():
    tracked = subprocess.run(
        ["git", "ls-files"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    ).stdout
    assert not [
        name for name in tracked.splitlines() if name.endswith((".jsonl", ".jsonl.gz", ".csv"))
    ]
