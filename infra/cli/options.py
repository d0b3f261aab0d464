"""The commands that need a line or two each: produce, backfill, simulate, tail, all on a cluster that is named."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import confluent_kafka as ck
from confluent_kafka import TopicPartition

from infra.backfill import backfill, healing
from infra.consuming import NoSuchTopic, ValueReader, partitions_of, refused
from infra.deployment import ClusterUnnamed, existing, named_cluster
from infra.feed_health import FeedHealth
from infra.feeding import Feeding, KeyMissing, api_key, endpoint_of
from infra.health import serving
from infra.planning import feeds_to_run, rest_url_of
from infra.signals import stop_on_signals
from infra.simulator import running_simulator
from infra.simulator.protocol import PACKAGES
from infra.simulator.script import read_script
from infra.spooling import open_backlog
from infra.symbols_file import read_symbols, watch
from producers.rest import LIVE_REST
from producers.symbols import Feed
from schemas.registry import Registry, UnknownSchema
from schemas.security import client
from schemas.topics import Topology
from schemas.wire import UnreadableValue, to_json


def produce(
    names: Topology,
    symbols: str | None,
    url: str | None,
    rest_url: str | None,
    symbols_file: Path | None = None,
) -> int:
    """Publish the vendor's feed until Ctrl-C or SIGTERM; with `url` the feed of a simulator."""
    key, live = api_key(), url is None
    endpoint = endpoint_of(key, url)

    def planned(chosen: str | None, running: Sequence[Feed] = ()) -> list[Feed]:
        return feeds_to_run(chosen, live, key, url, rest_url, running)

    feeds = planned(read_symbols(symbols_file) if symbols_file else symbols)
    stop = stop_on_signals()
    source = "live" if live else "simulated"
    deployment = existing(names)
    address = rest_url or (LIVE_REST if url is None else rest_url_of(url))
    backlog = open_backlog(deployment, source, Path("data/spool"))
    heals = healing(deployment, address, endpoint.api_key, backlog.memory)
    feeding = Feeding(deployment, feeds, endpoint, source, healing=heals, backlog=backlog)
    with feeding, serving(os.environ, FeedHealth(feeding)):
        print(f"publishing {source} data of {', '.join(feed.name for feed in feeds)}", flush=True)
        take_up = watch(symbols_file, lambda chosen: planned(chosen, feeding.feeds), feeding.change)
        while not stop.wait(0.5):
            feeding.check()
            take_up()
    return 0


def backfill_period(
    names: Topology,
    symbols: str,
    period: tuple[str, str | None],
    interval: str,
    rest_url: str | None,
    state: Path,
) -> int:
    """Publish klines of the past, and heal the bars that lack them; without a key from a simulator's REST."""
    key = api_key()
    if not key and rest_url is None:
        raise KeyMissing(
            "INFOWAY_API_KEY is not set: set it, or name a simulator by --rest-url http://HOST:PORT"
        )
    return backfill(
        existing(names), symbols, period, interval, rest_url or LIVE_REST, key or "simulator", state
    )


def simulate(
    files: Sequence[Path],
    host: str,
    port: int,
    speed: float,
    rate: float,
    package: str,
    script: Path | None,
) -> int:
    """Serve the vendor's WebSocket and REST until Ctrl-C or SIGTERM."""
    stop = stop_on_signals()
    faults = read_script(script) if script else []
    limits = PACKAGES[package]
    with running_simulator(
        files=files, host=host, port=port, speed=speed, rate=rate, limits=limits, script=faults
    ) as simulator:
        print(
            f"simulator at {simulator.url}, REST at {simulator.rest_url}; any key but 'bad-key' is taken",
            flush=True,
        )
        stop.wait()
    return 0


def tail(names: Topology, contract_name: str, from_beginning: bool) -> int:
    """Print a topic's committed records as JSON lines until Ctrl-C; null values are left out, unreadable ones named on stderr.

    Raises ClusterUnnamed, NotAllowed and RegistryError.
    """
    bootstrap, registry_url = named_cluster()
    read = ValueReader(Registry(registry_url))
    consumer = ck.Consumer(
        {**client(bootstrap), "group.id": "tail", "enable.auto.commit": False, "log_level": 0}
    )
    topic = names.name(contract_name)
    stop = stop_on_signals()
    try:
        start = ck.OFFSET_BEGINNING if from_beginning else ck.OFFSET_END
        try:
            consumer.assign(
                [
                    TopicPartition(topic, partition, start)
                    for partition in partitions_of(consumer, topic)
                ]
            )
        except NoSuchTopic:
            visible = sorted(
                name for name in consumer.list_topics(timeout=10).topics if "infoway." in name
            )
            raise ClusterUnnamed(f"no topic {topic}: there are {', '.join(visible)}") from None
        while not stop.is_set():
            for message in consumer.consume(500, 0.2):
                error, value = message.error(), message.value()
                if error is not None:
                    raise refused(error, f"read {topic}")
                if value is None:
                    continue
                try:
                    print(json.dumps(to_json(*read(value))), flush=True)
                except (UnknownSchema, UnreadableValue) as unreadable:
                    # raw topics have what workers dead-letter
                    print(
                        f"{topic}[{message.partition()}] offset {message.offset()}: {unreadable}",
                        file=sys.stderr,
                        flush=True,
                    )
    finally:
        consumer.close()
    return 0
