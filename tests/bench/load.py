"""The trades of a benchmark, and their bars held against the sum of their volumes."""

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient, NewTopic

from infra.runtime.deployment import Deployment
from producers.delivery.client import open_producer
from schemas.topics import RAW_TRADE, load_schema
from schemas.wire import compile_encoder

START_MS, MINUTE_MS = 1_722_902_400_000, 60_000
PARTITIONS = 6


@dataclass(frozen=True)
class Load:
    """The trades of a run, and what their bars must sum up to."""

    values: list[tuple[str, bytes]]
    volumes: Mapping[tuple[str, int], Fraction]
    """By symbol and start of the minute."""


def made(count: int, symbols: int, step_ms: int = 5) -> Load:
    """Return raw trades, one each `step_ms` of event time, prices on a walk."""
    drawn, encode = random.Random(7), compile_encoder(load_schema("raw_trade"), 1)
    prices = [10_000 + 1000 * (number % 1000) for number in range(symbols)]
    values: list[tuple[str, bytes]] = []
    volumes: dict[tuple[str, int], Fraction] = defaultdict(Fraction)
    for number in range(count):
        place = drawn.randrange(symbols)
        prices[place] += drawn.randrange(-3, 4)
        symbol, time_ms = f"C{place:04d}USDT", START_MS + number * step_ms
        price, volume = f"{prices[place] / 100:.2f}", drawn.randrange(1, 99_999)
        volumes[symbol, time_ms // MINUTE_MS * MINUTE_MS] += Fraction(volume, 1000)
        envelope = (
            "crypto", "crypto-1", "crypto-1-1", number + 1, (time_ms + 40) * 1000, "simulated", None
        )  # fmt: skip
        text = f"{volume // 1000}.{volume % 1000:03d}"
        side = 1 + number % 2
        values.append(
            (symbol, encode(symbol, time_ms, price, text, None, side, None, False, *envelope))
        )
    return Load(values, volumes)


def send(
    deployment: Deployment,
    values: Iterable[tuple[str, bytes]],
    topic: str = RAW_TRADE,
    name: str = "",
) -> None:
    """Fill a topic of the contract, or another one with records of its schema."""
    name = name or deployment.topology.name(topic)
    header = b"\0" + deployment.schema_ids[deployment.topology.name(topic)].to_bytes(4, "big")
    producer = open_producer(deployment.bootstrap)
    for key, value in values:
        while True:
            try:
                producer.produce(name, header + value[5:], key)
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(60) == 0


def make_topics(deployment: Deployment, *names: str) -> None:
    """Make topics with as many partitions as the raw one has."""
    admin = AdminClient({"bootstrap.servers": deployment.bootstrap})
    for future in admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names]).values():
        future.result()


def check(
    deployment: Deployment,
    topic: str,
    volumes: Mapping[tuple[str, int], Fraction],
    bar_of: Callable[[bytes, bytes], tuple[tuple[str, int], Fraction] | None],
) -> None:
    """Hold every bar against the trades' volumes; all but each symbol's last ones must be there."""
    found: dict[tuple[str, int], Fraction] = {}
    for key, value in committed(deployment.bootstrap, topic):
        bar = bar_of(key, value)
        if bar is not None:
            found[bar[0]] = bar[1]
    wrong = [each for each, volume in found.items() if volumes.get(each) != volume]
    last = max(start for _, start in volumes)
    newest: dict[str, int] = {}
    for symbol, start in volumes:
        newest[symbol] = max(start, newest.get(symbol, start))
    lacking = [
        (symbol, start)
        for symbol, start in volumes
        if start < min(newest[symbol], last - MINUTE_MS) and (symbol, start) not in found
    ]
    assert not wrong and not lacking, f"{topic}: {len(wrong)} wrong, {len(lacking)} lacking"


def committed(bootstrap: str, topic: str) -> list[tuple[bytes, bytes]]:
    """Return keys and values of a topic, committed ones alone."""
    consumer = ck.Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "check",
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
        }
    )
    partitions = consumer.list_topics(topic).topics[topic].partitions
    consumer.assign([ck.TopicPartition(topic, number, 0) for number in partitions])
    found: list[tuple[bytes, bytes]] = []
    left = set(partitions)
    while left:
        for message in consumer.consume(10_000, 1.0):
            if message.error() is None:
                found.append((message.key(), message.value()))
            elif message.error().code() == ck.KafkaError._PARTITION_EOF:
                left.discard(message.partition())
            else:
                raise ck.KafkaException(message.error())
    consumer.close()
    return found
