"""A broker that does not answer for a while: what was received waits on disk, then is in the topics
once and in order, or told as lost."""

import os
import random
import threading
import time

import pytest
from broker import away
from confluent_kafka.admin import AdminClient

from infra import topology
from infra.ingest.spooling import open_backlog
from infra.kafka.reader import ValueReader, read_to_end
from infra.runtime.deployment import Deployment
from producers.delivery import client as delivery_client
from producers.delivery.client import open_producer, raw_partitions
from producers.delivery.publisher import Publisher
from producers.delivery.spool import SpoolUnusable
from producers.feed.metrics import FeedCounters
from producers.feed.protocol import FeedProtocol
from producers.feed.settings import FeedSettings
from producers.vendor.symbols import Feed
from schemas.clients.registry import Registry
from schemas.control import read_control
from schemas.partition import partition_of
from schemas.topics import Topology

T = 1_722_902_400_000
SYMBOLS = ("BTCUSDT", "ETHUSDT")


@pytest.fixture
def deployment(stack, namespace, monkeypatch):
    monkeypatch.setitem(delivery_client._DELIVERY, "queue.buffering.max.messages", 300)
    names = Topology(namespace, intervals=("1m",), windows=("1m",), partitions=2)
    ids = topology.apply(stack.bootstrap, Registry(stack.registry_url), names)
    return Deployment(stack.bootstrap, stack.registry_url, names, ids, embedded=True)


class Run:
    """A producer process, but for the socket."""

    def __init__(self, deployment, folder, begin=0):
        producer = open_producer(deployment.bootstrap)
        self.partitions = raw_partitions(producer, deployment.topology, deployment.bootstrap)
        self.backlog = open_backlog(deployment, "replay", folder, {"INFOWAY_SPOOL_MIB": "1"})
        self.publisher = Publisher(
            producer, deployment.topology, deployment.schema_ids, threading.Event(), self.backlog
        )
        feed = Feed("crypto-1", "crypto", SYMBOLS)
        self.core = FeedProtocol(
            feed, FeedSettings("replay"), self.partitions, FeedCounters(feed.name), random.Random(1)
        )
        self.counters = self.core.counters
        self.now = (T + begin) * 1000
        self.publisher.publish(self.core.connected(self.now), self.counters)

    def receive(self, count):
        for number in range(count):
            self.now += 10_000
            symbol = SYMBOLS[number % 2]
            frame = b'{"code":10002,"data":{"s":"%b","t":%d,"p":"1.5","v":"2","vw":"3","td":1}}' % (
                symbol.encode(),
                self.now // 1000,
            )
            self.publisher.publish(self.core.receive(frame, self.now), self.counters)
            self.publisher.account(self.counters)

    def deliver(self):
        give_up = time.monotonic() + 60
        while self.counters.in_flight or self.counters.spooled or not self.backlog.empty:
            assert time.monotonic() < give_up
            self.publisher.serve()
            time.sleep(0.005)
        self.publisher.account(self.counters)

    def saved(self):
        """Wait, as a feed that receives nothing does, until the spool has all that is not
        acknowledged."""
        give_up = time.monotonic() + 60
        while self.counters.queued:
            assert time.monotonic() < give_up
            self.publisher.serve()
            time.sleep(0.005)

    def kill(self):
        """Leave everything as a SIGKILL would."""
        self.publisher._producer.purge()
        self.publisher._failure = None
        os.close(self.backlog._spool._lock)


def started(deployment, folder):
    """A run whose first hundred frames the broker has."""
    run = Run(deployment, folder)
    run.receive(100)
    run.publisher.flush()
    return run


def logged(deployment):
    """Per symbol its records in the topic: (connection, sequence) of trades, else controls, with
    the gaps of its whole partition."""
    topic = deployment.topology.name("infoway.raw.trade")
    read, found = ValueReader(Registry(deployment.registry_url)), {}
    for message in read_to_end(deployment.bootstrap, topic):
        value = message.value()
        if value is None:
            control = read_control(message.headers())
            key = message.key() and message.key().decode()
            whole = key is None and control.kind == "gap"
            for symbol in (
                [each for each in SYMBOLS if partition_of(each.encode(), 2) == message.partition()]
                if whole
                else [key]
            ):
                found.setdefault(symbol, []).append(control)
        else:
            record = read(value)[1]
            found.setdefault(record["symbol"], []).append(
                (record["connection"], record["sequence"])
            )
    return found


def sequences(records):
    return [each for each in records if isinstance(each, tuple)]


@pytest.mark.timeout(400)
def test_what_was_received_meanwhile_is_in_the_topics_once_and_in_order(
    stack, deployment, tmp_path
):
    run = started(deployment, tmp_path / "spool")
    with away(stack):
        run.receive(2_000)
        assert run.counters.spooled > 1_000
        assert (
            run.counters.received
            == run.counters.acknowledged + run.counters.queued + run.counters.spooled
            == 2_100
        )
    run.receive(500)
    run.deliver()
    assert (run.counters.acknowledged, run.counters.lost) == (2_600, 0)
    assert run.publisher.close(60) == 0
    found = logged(deployment)
    for place, symbol in enumerate(SYMBOLS):
        assert sequences(found[symbol]) == [
            (f"crypto-1-{T * 1000}", number) for number in range(place + 1, 2_601, 2)
        ]


@pytest.mark.timeout(400)
def test_an_end_while_it_is_away_leaves_all_to_the_next_start(stack, deployment, tmp_path):
    run = started(deployment, tmp_path / "spool")
    with away(stack):
        run.receive(1_000)
        # signs of life between the trades wait too
        assert run.publisher.close(0.5) >= 1_000
        assert run.counters.spooled == 1_000
        run.publisher.account(run.counters)
    again = Run(deployment, tmp_path / "spool", begin=60_000)
    assert (
        again.backlog.earlier.spooled
        + again.backlog.earlier.acknowledged
        + again.backlog.earlier.queued
        == 1_000
    )
    again.receive(10)
    again.deliver()
    assert again.publisher.close(60) == 0
    assert again.backlog.earlier.in_flight == 0
    found = logged(deployment)
    first, second = (f"crypto-1-{(T + begin) * 1000}" for begin in (0, 60_000))
    for place, symbol in enumerate(SYMBOLS):
        expected = [(first, number) for number in range(place + 1, 1_101, 2)] + [
            (second, number) for number in range(place + 1, 11, 2)
        ]
        assert sequences(found[symbol]) == expected
        assert [each.kind for each in found[symbol] if not isinstance(each, tuple)] == [
            "begin",
            "begin",
        ]


@pytest.mark.timeout(400)
def test_what_waits_for_one_cluster_and_registry_goes_to_no_other(
    stack, deployment, tmp_path, monkeypatch
):
    folder = tmp_path / "spool"
    run = started(deployment, folder)
    with away(stack):
        run.receive(500)
        assert run.publisher.close(0.5) > 0
    (cluster,) = {
        AdminClient({"bootstrap.servers": stack.bootstrap}).list_topics(timeout=60).cluster_id
    }
    assert cluster
    assert cluster in (folder / "owner").read_text()
    with monkeypatch.context() as patched:
        patched.setattr("infra.ingest.spooling._cluster_id", lambda bootstrap: "another")
        with pytest.raises(SpoolUnusable, match=f"holds records of .*{cluster}, not of .*another"):
            open_backlog(deployment, "replay", folder, {})
    for name in ("Bar", None):
        with monkeypatch.context() as patched:
            patched.setattr(
                "infra.ingest.spooling._name_of", lambda registry, schema_id, name=name: name
            )
            with pytest.raises(
                SpoolUnusable,
                match=r"the registry at http.* has no schema of \(ids \d+\): name the registry",
            ):
                open_backlog(deployment, "replay", folder, {})
    again = Run(deployment, folder, begin=60_000)
    again.deliver()
    assert again.publisher.close(60) == 0
    for records in (found := logged(deployment))["BTCUSDT"], found["ETHUSDT"]:
        assert "gap" not in [each.kind for each in records if not isinstance(each, tuple)]


@pytest.mark.timeout(400)
def test_what_waits_for_a_silent_broker_is_on_disk_and_outlives_a_kill(
    stack, deployment, tmp_path, monkeypatch
):
    monkeypatch.setitem(delivery_client._DELIVERY, "queue.buffering.max.messages", 100_000)
    run = started(deployment, tmp_path / "spool")
    with away(stack):
        # far less than the client's queue takes
        run.receive(200)
        run.saved()
        run.receive(50)
        assert (run.counters.queued, run.counters.spooled) == (0, 250)
        run.kill()
    again = Run(deployment, tmp_path / "spool", begin=60_000)
    again.deliver()
    assert again.publisher.close(60) == 0
    found = logged(deployment)
    for place, symbol in enumerate(SYMBOLS):
        assert sequences(found[symbol]) == [
            (f"crypto-1-{T * 1000}", number) for number in range(place + 1, 351, 2)
        ]
        assert "gap" not in [each.kind for each in found[symbol] if not isinstance(each, tuple)]


@pytest.mark.timeout(400)
def test_what_a_silent_broker_gets_after_all_is_sent_once(stack, deployment, tmp_path, monkeypatch):
    monkeypatch.setitem(delivery_client._DELIVERY, "queue.buffering.max.messages", 100_000)
    run = started(deployment, tmp_path / "spool")
    for _ in range(2):
        with away(stack):
            run.receive(200)
            run.saved()
            run.receive(50)
        run.deliver()
    assert (run.counters.acknowledged, run.counters.lost) == (600, 0)
    assert run.publisher.close(60) == 0
    assert not list((tmp_path / "spool").glob("*.spool"))
    for place, symbol in enumerate(SYMBOLS):
        assert sequences(logged(deployment)[symbol]) == [
            (f"crypto-1-{T * 1000}", number) for number in range(place + 1, 601, 2)
        ]


@pytest.mark.timeout(400)
def test_what_a_kill_loses_is_told_as_a_gap_before_what_the_spool_has(
    stack, deployment, tmp_path, monkeypatch
):
    # what is on its way to a stopped broker arrives after all; with little of that, the client's
    # memory holds what the kill loses
    monkeypatch.setitem(delivery_client._DELIVERY, "batch.num.messages", 10)
    monkeypatch.setitem(delivery_client._DELIVERY, "max.in.flight", 1)
    run = started(deployment, tmp_path / "spool")
    with away(stack):
        with monkeypatch.context() as patched:
            # a disk that is full when the queue is copied to it, and has room for what comes after
            # that
            patched.setattr(run.backlog, "keep", lambda entries: [])
            run.receive(1_000)
        run.kill()
    again = Run(deployment, tmp_path / "spool", begin=60_000)
    again.deliver()
    assert again.publisher.close(60) == 0
    for records in (found := logged(deployment))["BTCUSDT"], found["ETHUSDT"]:
        kinds = [each.kind if not isinstance(each, tuple) else "" for each in records]
        gap = kinds.index("gap")
        before, after = sequences(records[:gap]), sequences(records[gap:])
        assert before[-1][1] + 2 < after[0][1]
        assert (records[gap].ts_from, records[gap].connection) == (None, after[0][0])
        assert [number for _, number in after] == list(range(after[0][1], after[-1][1] + 1, 2))
        assert after[-1][1] > 1_000


@pytest.mark.timeout(400)
def test_what_the_bound_leaves_no_room_for_is_a_gap_with_counts(stack, deployment, tmp_path):
    run = Run(deployment, tmp_path / "spool")
    with away(stack):
        run.receive(12_000)
        lost = run.counters.lost
        assert lost > 1_000
        assert run.backlog.bytes < (1 << 20) + 1_000
    run.deliver()
    run.receive(10)
    run.deliver()
    assert run.publisher.close(60) == 0
    assert run.counters.acknowledged == 12_010 - lost
    found, missing = logged(deployment), 0
    for symbol in SYMBOLS:
        (at,) = (
            place
            for place, each in enumerate(found[symbol])
            if not isinstance(each, tuple) and each.kind == "gap"
        )
        before, gap, after = found[symbol][at - 1], found[symbol][at], found[symbol][at + 1]
        missing += (after[1] - before[1]) // 2 - 1
        first, last = ((T + number * 10) for number in (before[1] + 2, after[1] - 2))
        assert gap.ts_from <= first - 1_000
        assert gap.ts >= last
        assert f"{(after[1] - before[1]) // 2 - 1} records lost" == gap.reason
    assert missing == lost
    status = [
        ValueReader(Registry(deployment.registry_url))(message.value())[1]
        for message in read_to_end(
            deployment.bootstrap, deployment.topology.name("infoway.feed.status")
        )
    ]
    assert [row["reason"] for row in status if row["state"] == "degraded"] == [
        f"{lost} records lost: the broker was away and the spool full"
    ]
