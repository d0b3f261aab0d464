"""The embedded stack beside another one, and over the folder of one that was killed."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter

import confluent_kafka as ck
import drill
import httpx
import outages
import pytest
from aiokafka.record.memory_records import MemoryRecords
from confluent_kafka.admin import AdminClient, NewTopic

from infra.embedded import kafka
from infra.embedded.artifacts import KAFKA_VERSION, kafka_classpath
from infra.embedded.stack import Stack


def test_a_stack_starts_at_once_over_the_folder_of_one_that_was_killed_beside_another(
    stack, tmp_path
):
    folder = tmp_path / "with spaces, commas; umlauts ü"
    code = (
        "import sys, pathlib\nfrom infra.embedded.stack import Stack\n"
        "stack = Stack(pathlib.Path(sys.argv[1]))\nprint(stack.bootstrap, "
        "flush=True)\nsys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        first = parent.stdout.readline().strip()
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    assert first not in ("", stack.bootstrap)
    with Stack(folder) as second:
        # the folder's ports stay from run to run
        assert second.bootstrap == first
        started = time.monotonic()
    assert time.monotonic() - started < 30


@pytest.mark.heavy
def test_a_server_that_was_killed_is_started_anew_at_its_address(tmp_path):
    with Stack(tmp_path) as stack:
        names = [server.name for server in stack.servers]
        for server in stack.servers:
            os.killpg(server.process_group, signal.SIGKILL)
        assert drill.wait_until(lambda: not any(server.running for server in stack.servers), 60)
        with httpx.Client(trust_env=False) as http:

            def answer():
                stack.look_after()
                return stack._kafka_answers() and stack._registry_answers(http)

            assert drill.wait_until(answer, 180), [server.tail() for server in stack.servers]
        assert [server.name for server in stack.servers] == names
        assert all(server.running for server in stack.servers)
    assert not any(server.running for server in stack.servers)


@pytest.mark.heavy
def test_what_was_committed_as_the_broker_was_killed_is_there_whole(tmp_path):
    # so many partitions that their markers are not all written when the commit is acknowledged;
    # where the broker took them up before it was registered anew, five of six kills lost the lot
    partitions, topic = 400, "committed"
    with Stack(tmp_path) as stack:
        admin = AdminClient({"bootstrap.servers": stack.bootstrap})
        admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(60)

        def transactions():
            producer = ck.Producer(
                {
                    "bootstrap.servers": stack.bootstrap,
                    "transactional.id": topic,
                    "transaction.timeout.ms": 60_000,
                    "log_level": 0,
                }
            )
            producer.init_transactions(60)
            return producer

        def in_each_partition(producer, value):
            producer.begin_transaction()
            for partition in range(partitions):
                producer.produce(topic, value, partition=partition)
            assert producer.flush(60) == 0

        producer = transactions()
        in_each_partition(producer, b"committed")
        producer.commit_transaction(60)
        with outages.stopped(stack, "kafka", kill=True):
            pass
        # the producer's next marker ends whatever was left open
        producer = transactions()
        in_each_partition(producer, b"aborted")
        producer.abort_transaction(60)
        found = drill.read(stack.bootstrap, topic, "read_committed")
    assert [message.value() for log in found.values() for message in log] == [
        b"committed"
    ] * partitions


@pytest.mark.heavy
def test_a_killed_broker_comes_back_although_the_controller_tells_of_its_end_before_it_is_written(
    tmp_path, monkeypatch
):
    # the controller says that the broker is dead before that is in its log: 25 ms, here 2 s
    write = kafka._write
    slow = {"controller.quorum.append.linger.ms": 2_000}
    monkeypatch.setattr(kafka, "_write", lambda path, settings: write(path, {**settings, **slow}))
    with Stack(tmp_path) as stack:
        with outages.stopped(stack, "kafka", kill=True):
            pass
        # a start that failed leaves the mark of an orderly end: without more, no later start can
        # succeed
        broker = next(server for server in stack.servers if server.name == "kafka")
        os.killpg(broker.process_group, signal.SIGKILL)
        assert drill.wait_until(lambda: not broker.running, 60)
        (tmp_path / "kafka" / ".kafka_cleanshutdown").write_text('{"version":0,"brokerEpoch":-1}')
        again = stack.start_again(broker)
        again.wait_ready(stack._kafka_answers, 120)


def test_an_orderly_end_takes_the_leader_from_no_partition(tmp_path):
    # what is committed just then would lose its markers: one of eight such ends beside eight
    # producers, 1,200 partitions, lost an acknowledged commit
    with Stack(tmp_path) as stack:
        admin = AdminClient({"bootstrap.servers": stack.bootstrap})
        admin.create_topics([NewTopic("kept", 3, 1)])["kept"].result(60)
    (log,) = (tmp_path / "kafka" / "__cluster_metadata-0").glob("*.log")
    kinds = Counter(_kinds(log.read_bytes()))
    assert kinds[PARTITION] == 3
    assert kinds[PARTITION_CHANGE] == 0


PARTITION, PARTITION_CHANGE = 3, 5
"""Kinds of records of the metadata log, by the schemas of Kafka's sources."""


def _kinds(log):
    at = 0
    while at + 12 <= len(log) and (length := int.from_bytes(log[at + 8 : at + 12])):
        records = MemoryRecords(log[at : at + 12 + length])
        at += 12 + length
        while records.has_next():
            batch = records.next_batch()
            if not batch.is_control_batch:
                # the version of the frame, then the record's kind
                yield from (record.value[1] for record in batch)


def test_the_broker_is_of_one_version_and_can_log():
    names = {jar.name for jar in kafka_classpath()}
    assert {f"kafka_2.13-{KAFKA_VERSION}.jar", f"kafka-clients-{KAFKA_VERSION}.jar"} <= names
    bound, core = (
        next(name for name in names if name.startswith(start))
        for start in ("log4j-slf4j-impl-", "log4j-core-")
    )
    assert bound.removeprefix("log4j-slf4j-impl-") == core.removeprefix("log4j-core-")
