"""The producer's spool on this machine: where it is, and what of it the topics have already; the queue itself is in producers."""

import os
from collections.abc import Mapping
from pathlib import Path

import confluent_kafka as ck
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from infra.consuming import TIMEOUT, ValueReader, watermarks
from infra.deployment import Deployment
from producers.backlog import Backlog
from producers.records import FEED_STATUS
from producers.spool import Entry, Spool
from schemas.registry import Registry, UnknownSchema
from schemas.topics import load_schema
from schemas.wire import UnreadableValue, compile_encoder

LIMIT_MIB = 1024
_CLOCKS = 5_000
"""Milliseconds by which broker and producer may disagree on the time."""


class BadSpoolSize(ValueError):
    """INFOWAY_SPOOL_MIB is no size."""


def open_backlog(deployment: Deployment, source: str, default: Path, environment: Mapping[str, str] = os.environ) -> Backlog:
    """Return the backlog of a producer in the folder that INFOWAY_SPOOL names, or `default`; raises SpoolUnusable and BadSpoolSize."""
    size = environment.get("INFOWAY_SPOOL_MIB") or str(LIMIT_MIB)
    if not size.isdecimal() or not int(size):
        raise BadSpoolSize(f"INFOWAY_SPOOL_MIB={size}: name a whole number of MiB above 0")
    names = deployment.topology
    spool = Spool(Path(environment.get("INFOWAY_SPOOL") or default), int(size) << 20, f"source {source}, prefix {names.prefix!r}")
    status = names.name(FEED_STATUS)
    encode = compile_encoder(load_schema("feed_status"), deployment.schema_ids[status])

    def report(fields: tuple[object, ...]) -> Entry:
        return Entry(status, str(fields[0]), encode(*fields), -1, None, "other", str(fields[0]))

    partitions = {names.name(name): count for name, count in deployment.partitions.items()}
    return Backlog(spool, source, report, partitions, _published(deployment, spool))


def _published(deployment: Deployment, spool: Spool) -> dict[tuple[str, int, str], int]:
    """Return, by topic, partition and connection, the greatest sequence of the topics' records since the spool's oldest."""
    raw = [(entry.topic, entry.ts) for entry in spool.unread() if entry.kind == "raw"]
    # a record of Kafka bears the time at which it was handed on: never before its receipt
    since = max(0, min((ts for _, ts in raw), default=0) - _CLOCKS)
    read = ValueReader(Registry(deployment.registry_url))
    greatest: dict[tuple[str, int, str], int] = {}
    consumer = ck.Consumer(
        {
            "bootstrap.servers": deployment.bootstrap,
            "group.id": "spool",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "log_level": 0,
        }
    )
    try:
        for topic in sorted({topic for topic, _ in raw}):
            places = [TopicPartition(topic, each, since) for each in consumer.list_topics(topic, TIMEOUT).topics[topic].partitions]
            for place in places:
                watermarks(consumer, place)  # waits for its leader, where the broker has just started
            for place in consumer.offsets_for_times(places, timeout=TIMEOUT):
                if place.offset < 0:
                    continue  # nothing so late
                consumer.assign([place])
                ended = False
                while not ended:
                    for message in consumer.consume(10_000, 0.05):
                        error, value = message.error(), message.value()
                        if error is not None and error.code() != KafkaError._PARTITION_EOF:
                            raise KafkaException(error)
                        ended = ended or error is not None
                        found = None if error is not None or value is None else _place_of(value, read)
                        if found is not None:
                            connection, sequence = found
                            key = topic, place.partition, connection
                            greatest[key] = max(greatest.get(key, 0), sequence)
    finally:
        consumer.close()
    return greatest


def _place_of(value: bytes, read: ValueReader) -> tuple[str, int] | None:
    try:
        record = read(value)[1]
        return record["connection"], record["sequence"]
    except (KeyError, UnknownSchema, UnreadableValue):
        return None  # no record of a producer
