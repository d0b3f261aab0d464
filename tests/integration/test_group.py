"""The group's progress, on a real broker: what is committed, what a transaction holds back, and how
old the first record is that is left."""

import json
import os
import subprocess
import sys
import time

import confluent_kafka as ck
import drill
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from infra.kafka import group
from infra.kafka.group import group_found
from infra.kafka.offsets import watermarks_of
from schemas.topics import RAW, Topology


@pytest.fixture
def topic(stack, namespace):
    name = f"{namespace}infoway.raw.trade"
    admin = AdminClient({"bootstrap.servers": stack.bootstrap})
    admin.create_topics([NewTopic(name, 2, 1)])[name].result(60)
    return name


def test_lag_is_of_records_and_seconds_and_an_open_transaction_holds_back(stack, topic, namespace):
    producer = ck.Producer({"bootstrap.servers": stack.bootstrap})
    old = time.time_ns() // 1_000_000 - 60_000
    for number in range(5):
        producer.produce(topic, b"x", b"k", 0, timestamp=old + 10_000 * number)
    assert producer.flush(20) == 0
    name = f"{namespace}g"
    member = ck.Consumer({"bootstrap.servers": stack.bootstrap, "group.id": name})
    member.commit(offsets=[TopicPartition(topic, 0, 2)], asynchronous=False)
    member.close()
    settings = {"bootstrap.servers": stack.bootstrap, "transactional.id": topic}
    opened = ck.Producer(settings)
    opened.init_transactions(60)
    opened.begin_transaction()
    opened.produce(topic, b"y", b"k", 0)
    assert opened.flush(20) == 0

    found = group_found(stack.bootstrap, name, [topic])
    first, second = found.partitions
    assert (first.committed, first.stable, first.high, first.lag) == (2, 5, 6, 4)
    took = time.time() - old / 1000 - 60
    assert 40 <= first.seconds < 41 + took, "the third record was written 40 s ago"
    assert (second.committed, second.high, second.lag, second.seconds) == (None, 0, 0, 0.0)
    assert (found.lag, found.members) == (4, ())
    assert found.seconds == first.seconds
    opened.abort_transaction(60)
    # it is answered before its markers are written everywhere
    assert drill.wait_until(
        lambda: drill.ends(stack.bootstrap, topic, "read_committed")[0] == 7, 30
    )

    # all that is left is what was aborted, and its marker: no record of it ever comes
    done = ck.Consumer({"bootstrap.servers": stack.bootstrap, "group.id": name})
    done.commit(offsets=[TopicPartition(topic, 0, 5)], asynchronous=False)
    done.close()
    first, _ = group_found(stack.bootstrap, name, [topic]).partitions
    assert (first.stable, first.high, first.seconds) == (7, 7, 0.0)


def test_what_is_written_while_the_broker_is_asked_is_not_held_back(
    stack, topic, namespace, monkeypatch
):
    producer = ck.Producer({"bootstrap.servers": stack.bootstrap})

    def ask(*asked):
        answer = watermarks_of(*asked)
        producer.produce(topic, b"x", b"k", 0)
        assert producer.flush(20) == 0
        return answer

    monkeypatch.setattr(group, "watermarks_of", ask)
    first, _ = group_found(stack.bootstrap, f"{namespace}g", [topic]).partitions
    assert first.stable == first.high > 0


def test_a_group_that_nobody_is_in_is_shown_with_every_partition(stack, namespace):
    from infra import topology
    from schemas.clients.registry import Registry

    names = Topology(namespace, intervals=("1m",), windows=("1m",), partitions=3)
    topology.apply(stack.bootstrap, Registry(stack.registry_url), names, {})
    environment = {name: value for name, value in os.environ.items() if "INFOWAY" not in name} | {
        "INFOWAY_BOOTSTRAP": stack.bootstrap,
        "INFOWAY_REGISTRY": stack.registry_url,
        "INFOWAY_PREFIX": namespace,
    }
    for command, least in ((("group", "--json"), 3 * len(RAW)), (("status", "--json"), 0)):
        done = subprocess.run(
            [sys.executable, "-m", "infra", *command],
            env=environment, capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        found = found.get("group") if isinstance(found.get("group"), dict) else found
        assert len(found["partitions"]) >= least
        assert found["members"] == []
        assert found["lag_records"] == 0
