"""The producer's spool on this machine: where it is, and what of it the topics have already; the
queue itself is in producers."""

import os
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import cast

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from infra.kafka.reader import ValueReader, read_to_end
from infra.runtime.deployment import Deployment
from producers.delivery.backlog import Backlog
from producers.delivery.entries import SpoolEntry
from producers.delivery.errors import BrokerUnreachable
from producers.delivery.spool import Spool, SpoolUnusable
from schemas.clients.kafka import client
from schemas.clients.registry import Registry, UnknownSchema
from schemas.errors import SettingsWrong
from schemas.foreign.types import UnreadableSchema, parse
from schemas.numbers import whole_number
from schemas.records import FeedStatusRecord
from schemas.topics import FEED_STATUS, load_schema
from schemas.wire import UnreadableValue, compile_encoder, schema_id_of

DEFAULT_SPOOL = Path("data/spool")
LIMIT_MIB = 1024
MOST_MIB = 1 << 24
_CLOCKS = 5_000
"""Milliseconds by which broker and producer may disagree on the time."""


class BadSpoolSize(SettingsWrong):
    """INFOWAY_SPOOL_MIB is no size."""


def spool_bytes(environment: Mapping[str, str] = os.environ) -> int:
    """Return the bound of the spool that INFOWAY_SPOOL_MIB names; raises BadSpoolSize."""
    text = environment.get("INFOWAY_SPOOL_MIB") or str(LIMIT_MIB)
    size = whole_number(text, 1, MOST_MIB)
    if size is None:
        raise BadSpoolSize(
            f"INFOWAY_SPOOL_MIB={text!r}: expected a whole number of MiB from 1 to {MOST_MIB}"
        )
    return size << 20


def open_backlog(
    deployment: Deployment, source: str, default: Path, environment: Mapping[str, str] = os.environ
) -> Backlog:
    """Return the backlog of a producer in the folder that INFOWAY_SPOOL names, or `default`; raises
    SpoolUnusable, BadSpoolSize and BrokerUnreachable."""
    limit = spool_bytes(environment)
    names = deployment.topology
    # the same name elsewhere is another log: schema ids and partitions are that cluster's
    owner = (
        f"source {source}, prefix {names.prefix!r}, Kafka cluster "
        f"{_cluster_id(deployment.bootstrap)}"
    )
    spool = Spool(Path(environment.get("INFOWAY_SPOOL") or default), limit, owner)
    _check_schemas(spool, deployment)
    status = names.name(FEED_STATUS)
    encode = compile_encoder(load_schema("feed_status"), deployment.schema_ids[status])

    def report(record: FeedStatusRecord) -> SpoolEntry:
        return SpoolEntry(status, record.feed, encode(*record), -1, None, "other", record.feed)

    partitions = {names.name(name): count for name, count in deployment.partitions.items()}
    return Backlog(spool, source, report, partitions, partial(_published, deployment))


def _cluster_id(bootstrap: str) -> str:
    admin = AdminClient(client(bootstrap))
    try:
        found = admin.list_topics(timeout=10.0).cluster_id
    except KafkaException as error:
        admin.poll(0)  # logs why the broker lets nobody in
        raise BrokerUnreachable(bootstrap, error.args[0].str()) from None
    return str(found)


def _check_schemas(spool: Spool, deployment: Deployment) -> None:
    """Raise SpoolUnusable where the registry does not have what records of the spool were written
    with."""
    registry = Registry(deployment.registry_url)
    expected = {
        topic.name: load_schema(topic.schema)["name"]
        for topic in deployment.topology.topics()
        if topic.schema
    }
    found = {
        (entry.topic, schema_id_of(entry.value))
        for _, entry in spool.unread()
        if entry.value is not None
    }
    foreign = sorted(
        {
            schema_id
            for topic, schema_id in found
            if _name_of(registry, schema_id) != expected.get(topic)
        }
    )
    if foreign:
        spool.close(whole=None not in spool.holes)
        raise SpoolUnusable(
            f"the spool {spool.folder} holds records that the registry at {registry.url} has no "
            "schema of "
            f"(ids {', '.join(map(str, foreign))}): name the registry that they were written "
            "with, or another folder by INFOWAY_SPOOL"
        )


def _name_of(registry: Registry, schema_id: int) -> str | None:
    try:
        return parse(registry.schema(schema_id)).root.name.rpartition(".")[2]
    except (UnknownSchema, UnreadableSchema):
        return None


def _published(
    deployment: Deployment, topics: Collection[str], oldest_ms: int
) -> dict[tuple[str, int, str], int]:
    """Return, by topic, partition and connection, the greatest sequence of the records handed on
    since a time (ms UTC)."""
    read = ValueReader(Registry(deployment.registry_url))
    greatest: dict[tuple[str, int, str], int] = {}
    for topic in sorted(topics):
        # a record of Kafka has the time at which it was handed on: never before its receipt
        for message in read_to_end(
            deployment.bootstrap, topic, since_ms=max(0, oldest_ms - _CLOCKS)
        ):
            value = message.value()
            found = None if value is None else _sequence_of(value, read)
            if found is not None:
                connection, sequence = found
                key = topic, cast(int, message.partition()), connection
                greatest[key] = max(greatest.get(key, 0), sequence)
    return greatest


def _sequence_of(value: bytes, read: ValueReader) -> tuple[str, int] | None:
    try:
        record = read(value)[1]
        return record["connection"], record["sequence"]
    except (KeyError, UnknownSchema, UnreadableValue):
        return None  # no record of a producer
