"""A gap in the raw log, healed by the command `backfill` over the simulator's REST: through Kafka,
the agents and a kill in mid-run."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from decimal import Decimal

import pytest

from infra import topology
from infra.ingest.spooling import open_backlog
from infra.kafka.reader import ValueReader, read_to_end
from infra.runtime.deployment import Deployment
from infra.runtime.supervisor import Supervisor
from infra.simulator import running_simulator
from producers.delivery.client import open_producer, raw_partitions
from producers.delivery.publisher import Publisher
from producers.feed.metrics import FeedCounters
from producers.feed.protocol import FeedProtocol
from producers.feed.settings import FeedSettings
from producers.healing.outages import Outage, Outages
from producers.vendor.rest import MAX_KLINES, Rest
from producers.vendor.symbols import Feed
from schemas.clients.registry import Registry
from schemas.topics import Topology
from schemas.wire import to_json

MINUTE = 60_000
FIGURES = ("open", "high", "low", "close", "volume", "turnover")


def push(ts, price="100"):
    return json.dumps(
        {
            "code": 10002,
            "data": {"s": "BTCUSDT", "t": ts, "p": price, "v": "1", "vw": price, "td": 1},
        }
    ).encode()


def produce_with_a_gap(deployment, start):
    """Trades of every ten seconds for twelve minutes, with an outage from 3:30 to 8:10."""
    producer = open_producer(deployment.bootstrap)
    partitions = raw_partitions(producer, deployment.topology, deployment.bootstrap)
    publisher = Publisher(producer, deployment.topology, deployment.schema_ids, threading.Event())
    feed = Feed("crypto-1", "crypto", ("BTCUSDT",))
    core = FeedProtocol(
        feed, FeedSettings("replay"), partitions, FeedCounters(feed.name), random.Random(1)
    )
    publisher.publish(core.connected((start - 1) * 1000), core.counters)
    for ts in range(start, start + 12 * MINUTE, 10_000):
        if start + 210_000 <= ts < start + 490_000:
            continue
        if ts == start + 490_000:
            publisher.publish(
                core.disconnected((start + 210_000) * 1000, "drill")
                + core.connected((start + 489_000) * 1000),
                core.counters,
            )
        publisher.publish(core.receive(push(ts), ts * 1000), core.counters)
    publisher.flush()


def records(deployment, topic):
    read = ValueReader(Registry(deployment.registry_url))
    return [
        to_json(*read(message.value()))
        for message in read_to_end(deployment.bootstrap, topic)
        if message.value() is not None
    ]


@pytest.mark.timeout(400)
def test_a_gap_is_healed_by_klines_though_the_command_was_killed(stack, namespace, tmp_path):
    names = Topology(namespace, intervals=("1m", "5m"), windows=("1m",), partitions=1)
    ids = topology.apply(stack.bootstrap, Registry(stack.registry_url), names)
    deployment = Deployment(stack.bootstrap, stack.registry_url, names, ids, embedded=True)
    start = (int(time.time() * 1000) // (60 * MINUTE) - 24) * 60 * MINUTE
    produce_with_a_gap(deployment, start)
    environment = {**os.environ, **deployment.environment}
    with running_simulator() as simulator, Rest(simulator.rest_url, "simulator") as rest:
        # beyond the end of the log: that it is asked for changes nothing for the agents
        options = [
            "--symbols",
            "BTCUSDT",
            "--from",
            iso(start),
            "--to",
            iso(start + 1_400 * MINUTE),
            "--rest-url",
            simulator.rest_url,
        ]
        command = [
            sys.executable,
            "-m",
            "infra.cli.main",
            "backfill",
            *options,
            "--state",
            str(tmp_path),
            "--intervals",
            "1m,5m",
            "--windows",
            "1m",
        ]
        for _ in range(3):
            killed = subprocess.Popen(
                [*command, "--prefix", namespace, "--partitions", "1"],
                env=environment,
                stderr=subprocess.DEVNULL,
            )
            while not list(tmp_path.glob("backfill-1m-*.json")) and killed.poll() is None:
                time.sleep(0.01)
            killed.send_signal(signal.SIGKILL)
            # one that is done before the signal comes has left no notes to go on from
            if killed.wait() == -signal.SIGKILL:
                break
        assert killed.returncode == -signal.SIGKILL
        again = subprocess.run(
            [*command, "--prefix", namespace, "--partitions", "1"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=180,
        )
        assert again.returncode == 0, again.stderr
        truth = {
            kline.ts_start: kline
            for kline in rest.klines("crypto", "BTCUSDT", "1m", 20, start + 12 * MINUTE - 1)
        }
    assert "1 of 1 symbols" in again.stdout
    # what the killed run had noted as done is not published again
    assert 0 < int(again.stdout.split()[0]) <= 1_400 - MAX_KLINES
    assert re.search(r"klines, pages .* (\d)/\1 ", again.stderr)
    assert not list(tmp_path.glob("backfill-*"))
    klines = [row["ts_start"] for row in records(deployment, names.name("infoway.raw.kline"))]
    assert sorted(set(klines)) == list(range(start, start + 1_400 * MINUTE, MINUTE))
    with Supervisor(deployment.environment, 1, tmp_path / "logs") as workers:
        bars = {}
        while not any(
            row["cause"] == "healed" and row["ts_start"] == start + 8 * MINUTE
            for row in bars.values()
        ):
            workers.check()
            bars = {
                (row["interval"], row["ts_start"]): row
                for row in records(deployment, names.name("infoway.bars.1m"))
            }
        fives = {row["ts_start"]: row for row in records(deployment, names.name("infoway.bars.5m"))}
    for minute in range(11):
        bar = bars["1m", start + minute * MINUTE]
        if 3 <= minute <= 8:
            kline = truth[bar["ts_start"]]
            assert [Decimal(bar[name]) for name in FIGURES] == [
                Decimal(getattr(kline, name)) for name in FIGURES
            ]
            assert (bar["cause"], bar["provenance"], bar["completeness"], bar["trade_count"]) == (
                "healed",
                "klines",
                "gap",
                None,
            )
        else:
            assert (bar["provenance"], bar["completeness"], bar["trade_count"]) == (
                "trades",
                "complete",
                6,
            )
    assert [fives[start + at * MINUTE]["provenance"] for at in (0, 5)] == ["mixed", "mixed"]
    volume = sum(Decimal(bars["1m", start + minute * MINUTE]["volume"]) for minute in range(5))
    assert Decimal(fives[start]["volume"]) == volume


@pytest.mark.timeout(400)
def test_a_producer_heals_what_the_one_before_it_had_not(stack, namespace, tmp_path):
    names = Topology(namespace, partitions=1)
    ids = topology.apply(stack.bootstrap, Registry(stack.registry_url), names, {})
    deployment = Deployment(stack.bootstrap, stack.registry_url, names, ids, embedded=True)
    environment = {**os.environ, **deployment.environment, "INFOWAY_SPOOL": str(tmp_path / "spool")}
    before = open_backlog(deployment, "simulated", tmp_path / "spool", {})
    start = (int(time.time() * 1000) // MINUTE - 60) * MINUTE
    Outages(before.memory, 1).put(
        Outage(start, start + 1, start + 3 * MINUTE, "BTCUSDT", "crypto", "crypto-1")
    )
    before.close([])
    with running_simulator(rate=50) as simulator:
        command = [
            sys.executable,
            "-m",
            "infra.cli.main",
            "produce",
            "--url",
            simulator.url,
            "--symbols",
            "BTCUSDT",
        ]
        with subprocess.Popen(command, env=environment, cwd=tmp_path) as producer:
            try:
                found = []
                while len(found) < 3:
                    assert producer.poll() is None
                    rows = records(deployment, names.name("infoway.raw.kline"))
                    found = [row["ts_start"] for row in rows if row["source"] == "rest"]
                producer.send_signal(signal.SIGTERM)
                assert producer.wait(60) == 0
            finally:
                producer.kill()
    assert found == [start, start + MINUTE, start + 2 * MINUTE]
    assert b"BTCUSDT" not in before.memory.read_bytes()


def iso(ts):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ts // 1000))
