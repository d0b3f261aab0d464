"""A new process reads back from the log which trades came last, and counts none of them twice."""

import json
import os
import signal
import subprocess
import sys
import threading

import pytest
from websockets.sync.server import serve

from infra import topology
from infra.ingest.delivered import delivered_before
from infra.ingest.spooling import open_backlog
from infra.kafka.reader import ValueReader, read_to_end
from infra.runtime.deployment import Deployment
from producers.delivery.client import open_producer
from producers.delivery.publisher import Publisher
from producers.feed.metrics import FeedCounters
from producers.feed.protocol import FeedProtocol
from producers.feed.settings import FeedSettings
from producers.vendor.symbols import Feed
from schemas.clients.registry import Registry
from schemas.topics import Topology

T = 1_722_902_400_000
QUIET, BUSY, NEVER = "00700.HK", "00005.HK", "00001.HK"
HOUR = 3_600_000


@pytest.fixture
def deployment(stack, namespace):
    names = Topology(namespace, intervals=("1m",), windows=("1m",), partitions=1)
    ids = topology.apply(stack.bootstrap, Registry(stack.registry_url), names)
    return Deployment(stack.bootstrap, stack.registry_url, names, ids, embedded=True)


def process(deployment, source="live", delivered=None, backlog=None):
    """A producer's process, but for the socket."""
    publisher = Publisher(
        open_producer(deployment.bootstrap),
        deployment.topology,
        deployment.schema_ids,
        threading.Event(),
        backlog,
    )
    settings = FeedSettings(source, delivered_before=(delivered or {}).get)
    feed = Feed("stock-1", "stock", (QUIET, BUSY, NEVER))
    return publisher, FeedProtocol(
        feed, settings, deployment.partitions, FeedCounters(feed.name), None
    )


def send(publisher, core, symbol, t, received, p="98.150"):
    frame = b'{"code":10002,"data":{"s":"%b","t":%d,"p":"%b","v":"1","td":0}}' % (
        symbol.encode(),
        t,
        p.encode(),
    )
    outputs = core.receive(frame, received * 1000)
    publisher.publish(outputs, core.counters)
    return outputs


def test_a_quiet_symbols_last_trade_is_found_behind_many_of_others(deployment):
    publisher, core = process(deployment)
    publisher.publish(core.connected((T - 1) * 1000), core.counters)
    send(publisher, core, QUIET, T - 1, T)
    send(publisher, core, QUIET, T, T)
    for number in range(12_000):
        send(publisher, core, BUSY, T + HOUR + number, T + HOUR + number)
    publisher.flush()
    delivered = delivered_before(deployment, (QUIET, BUSY, NEVER), "live", limit_s=60)
    assert [trade for _, trade in delivered[QUIET]] == [
        (T - 1, "98.150", "1", 0),
        (T, "98.150", "1", 0),
    ]
    assert [trade[0] for _, trade in delivered[BUSY]] == [
        T + HOUR + number for number in range(12_000)
    ]
    assert NEVER not in delivered
    again, core = process(deployment, delivered=delivered)
    core.connected((T + 3 * HOUR) * 1000)
    answers = [
        send(again, core, symbol, t, T + 3 * HOUR, "98.15")
        for symbol, t in ((QUIET, T), (BUSY, T + HOUR + 11_999), (QUIET, T + 1))
    ]
    assert [outputs[-1].record.repeat for outputs in answers] == [True, True, False]
    assert core.counters.repeats == 2


def test_another_sources_trades_are_none_of_ours(deployment):
    publisher, core = process(deployment, source="simulated")
    publisher.publish(core.connected(T * 1000), core.counters)
    send(publisher, core, QUIET, T, T)
    publisher.flush()
    assert delivered_before(deployment, (QUIET,), "live") == {}
    assert len(delivered_before(deployment, (QUIET,), "simulated")[QUIET]) == 1


def test_what_could_not_be_found_in_the_time_for_it_is_named(deployment, caplog):
    publisher, core = process(deployment)
    publisher.publish(core.connected(T * 1000), core.counters)
    send(publisher, core, BUSY, T, T)
    publisher.flush()
    assert delivered_before(deployment, (QUIET, BUSY), "live", limit_s=-1) == {}
    assert (
        "the last trade of 2 symbols was not found in the end of "
        f"{deployment.topology.name('infoway.raw.trade')}" in caplog.text
    )
    assert f"{BUSY}, {QUIET}" in caplog.text


def test_what_waits_on_disk_is_behind_all_that_the_topic_has(deployment, tmp_path):
    backlog = open_backlog(deployment, "live", tmp_path, {})
    publisher, core = process(deployment, backlog=backlog)
    publisher.publish(core.connected(T * 1000), core.counters)
    send(publisher, core, QUIET, T, T)
    publisher.flush()
    # the broker takes no more, as far as this process sees it
    publisher._produce = lambda *_: False
    send(publisher, core, QUIET, T + HOUR, T + HOUR)
    publisher._producer.purge()
    os.close(backlog._spool._lock)
    again = open_backlog(deployment, "live", tmp_path, {})
    delivered = delivered_before(deployment, (QUIET,), "live", again.waiting())
    assert [trade[0] for _, trade in delivered[QUIET]] == [T + HOUR]
    os.close(again._spool._lock)


class Vendor:
    """Acks every subscription, and answers one of trades by each symbol's last trade, spelled
    otherwise each time."""

    def __init__(self):
        self.subscribed = 0

    def __call__(self, connection):
        for text in connection:
            request = json.loads(text)
            if request["code"] in (10000, 10003, 10006):
                connection.send(
                    json.dumps({"code": request["code"] + 1, "trace": request["trace"]})
                )
            if request["code"] == 10000:
                self.subscribed += 1
                price = "98.15" + "0" * self.subscribed
                for symbol in request["data"]["codes"].split(","):
                    trade = {"s": symbol, "t": T, "p": price, "v": "1", "td": 0}
                    connection.send(json.dumps({"code": 10002, "data": trade}))


def trades(deployment):
    read = ValueReader(Registry(deployment.registry_url))
    topic = deployment.topology.name("infoway.raw.trade")
    return [
        read(each.value())[1]
        for each in read_to_end(deployment.bootstrap, topic)
        if each.value() is not None
    ]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_producer_counts_nothing_again_that_the_one_before_has_published(
    stack, namespace, tmp_path, end
):
    names = Topology(namespace, partitions=1)
    ids = topology.apply(stack.bootstrap, Registry(stack.registry_url), names)
    deployment = Deployment(stack.bootstrap, stack.registry_url, names, ids, embedded=True)
    environment = {**os.environ, **deployment.environment, "INFOWAY_SPOOL": str(tmp_path / "spool")}
    with serve(Vendor(), "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = f"ws://127.0.0.1:{server.socket.getsockname()[1]}/ws"
        command = [
            sys.executable,
            "-m",
            "infra.cli.main",
            "produce",
            "--url",
            address,
            "--symbols",
            QUIET,
        ]
        try:
            for run in (1, 2, 3):
                with subprocess.Popen(
                    command, env=environment, cwd=tmp_path, stderr=subprocess.DEVNULL
                ) as producer:
                    try:
                        while len(found := trades(deployment)) < run:
                            assert producer.poll() is None
                        producer.send_signal(end)
                        producer.wait(60)
                    finally:
                        producer.kill()
        finally:
            server.shutdown()
            thread.join()
    assert [(each["price"], each["repeat"]) for each in found] == [
        ("98.150", False),
        ("98.1500", True),
        ("98.15000", True),
    ]
