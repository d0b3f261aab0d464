"""A transaction that nobody ends: what is said of it, and of brokers that let one happen."""

import re
import socket
import struct
import time
from contextlib import contextmanager

import drill
import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from infra.cli.main import main
from infra.kafka.lag import Lag
from infra.kafka.reader import HeldBack, read_to_end
from processors.engine.state import StateNotReadable, load_states
from processors.engine.transactions import hanging
from producers.delivery.client import open_producer

VERIFICATION = "transaction.partition.verification.enable"


@contextmanager
def unverified(bootstrap):
    """The broker takes records of transactions that their coordinator does not know, as Kafka did
    before 3.6."""

    def verify(value):
        entry = ConfigEntry(VERIFICATION, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.BROKER, "1", incremental_configs=[entry])
        for future in admin.incremental_alter_configs([resource]).values():
            future.result(60)
        shown = ConfigResource(ResourceType.BROKER, "1")
        assert drill.wait_until(
            lambda: admin.describe_configs([shown])[shown].result(60)[VERIFICATION].value == value,
            60,
        )

    admin = AdminClient({"bootstrap.servers": bootstrap})
    verify("false")
    try:
        yield
    finally:
        verify("true")


def hang(bootstrap, topic, written_ms):
    """Write a record of a transaction that no coordinator knows (Produce, version 3)."""
    batch = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=1,
        producer_id=123_456,
        producer_epoch=0,
        base_sequence=0,
        batch_size=10_000,
    )
    batch.append(0, timestamp=written_ms, key=b"k", value=b"v", headers=[])
    records = bytes(batch.build())

    def text(value):
        return struct.pack(">h", len(value)) + value.encode()

    body = (
        text("forgotten")
        + struct.pack(">hii", -1, 10_000, 1)
        + text(topic)
        + struct.pack(">iii", 1, 0, len(records))
        + records
    )
    request = struct.pack(">hhi", 0, 3, 1) + text("hang") + body
    host, port = bootstrap.split(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        answer = connection.recv(1000)
    assert struct.unpack(">h", answer[8 + 4 + 2 + len(topic) + 8 :][:2]) == (0,), answer


def test_a_hanging_transaction_is_named_with_the_command_that_ends_it(stack, namespace):
    topic = f"{namespace}state"
    drill.create_topics(stack.bootstrap, [NewTopic(topic, 2, 1)])
    with unverified(stack.bootstrap):
        hang(stack.bootstrap, topic, int(time.time() * 1000) - 500_000)
    with pytest.raises(StateNotReadable) as refused:
        load_states(stack.bootstrap, [(topic, 0), (topic, 1)], timeout=2)
    text = str(refused.value)
    assert re.search(
        rf"{topic}\[0\]: a transaction is open from offset 0 on, for 5\d\d s: its coordinator "
        r"has forgotten it",
        text,
    )
    command = (
        f"kafka-transactions.sh --bootstrap-server {stack.bootstrap} abort --topic "
        f"{topic} --partition 0 --start-offset 0"
    )
    assert command in text
    assert f"{topic}[1]" not in text
    assert load_states(stack.bootstrap, [(topic, 1)], timeout=10) == {(topic, 1): {}}


def test_what_is_left_to_read_is_counted_up_to_an_open_transaction(stack, namespace):
    topic = f"{namespace}bars"
    drill.create_topics(stack.bootstrap, [NewTopic(topic, 2, 1)])
    with unverified(stack.bootstrap):
        hang(stack.bootstrap, topic, int(time.time() * 1000) - 500_000)
    assert Lag(stack.bootstrap, f"{namespace}group", [topic]).records_left() == 1


def test_who_reads_to_the_end_is_told_what_holds_it_back(stack, namespace):
    topic = f"{namespace}bars"
    drill.create_topics(stack.bootstrap, [NewTopic(topic, 2, 1)])
    with unverified(stack.bootstrap):
        hang(stack.bootstrap, topic, int(time.time() * 1000) - 500_000)
    producer = open_producer(stack.bootstrap)
    producer.produce(topic, b"value", b"key", 1)
    assert producer.flush(20) == 0
    with pytest.raises(HeldBack, match=r"bars\[0\] gave no record for 5 s before its end at 1\n"):
        list(read_to_end(stack.bootstrap, topic, patience_s=5))
    held = []
    found = read_to_end(stack.bootstrap, topic, patience_s=5, on_held=held.append)
    assert [message.value() for message in found] == [b"value"]
    [error] = held
    assert "abort --topic" in str(error)


def ran(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code in (None, 0)


def test_status_says_what_holds_its_bars_back(stack, namespace, monkeypatch, capsys):
    monkeypatch.setenv("INFOWAY_BOOTSTRAP", stack.bootstrap)
    monkeypatch.setenv("INFOWAY_REGISTRY", stack.registry_url)
    monkeypatch.setenv("INFOWAY_PREFIX", namespace)
    ran("topology", "apply", "--partitions", "2", "--intervals", "1m")
    topic = f"{namespace}infoway.bars.1m"
    with unverified(stack.bootstrap):
        hang(stack.bootstrap, topic, int(time.time() * 1000) - 500_000)
    capsys.readouterr()
    ran("status")
    shown = capsys.readouterr().out
    assert re.search(rf"{topic}\[0\]: a transaction is open from offset 0 on, for 5\d\d s", shown)
    assert "newest bars of 1m: 0 symbols" in shown


def test_a_transaction_that_its_coordinator_will_abort_is_named_without_a_command(stack, namespace):
    topic = f"{namespace}state"
    drill.create_topics(stack.bootstrap, [NewTopic(topic, 1, 1)])
    with unverified(stack.bootstrap):
        hang(stack.bootstrap, topic, int(time.time() * 1000))
    assert re.fullmatch(
        rf"\n{topic}\[0\]: a transaction is open from offset 0 on, for \d+ s",
        hanging.open_transactions(stack.bootstrap, [(topic, 0)]),
    )


def test_a_plan_refuses_brokers_that_do_not_verify(stack, namespace, monkeypatch, capsys):
    monkeypatch.setenv("INFOWAY_BOOTSTRAP", stack.bootstrap)
    monkeypatch.setenv("INFOWAY_REGISTRY", stack.registry_url)
    monkeypatch.setenv("INFOWAY_PREFIX", namespace)

    def plan(*options):
        with pytest.raises(SystemExit) as ended:
            main(["topology", "plan", "--detailed-exitcode", *options])
        assert ended.value.code == 2
        return capsys.readouterr().out

    assert VERIFICATION not in plan()
    with unverified(stack.bootstrap):
        assert f"  ! broker 1\n      {VERIFICATION}: false -> true   refused: " in plan()
        assert VERIFICATION not in plan("--allow-unverified-transactions")
