"""The producer's spool on this machine: where it is, and what of it the topics have already; the queue itself is in producers."""

import os
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import cast

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from infra.consuming import ValueReader, read_to_end
from infra.deployment import Deployment
from producers.backlog import Backlog
from producers.publish import BrokerUnreachable
from producers.records import FEED_STATUS
from producers.spool import Entry, Spool, SpoolUnusable
from schemas.registry import Registry, UnknownSchema
from schemas.security import client
from schemas.topics import load_schema
from schemas.wire import UnreadableValue, compile_encoder, schema_id_of

LIMIT_MIB = 1024
_CLOCKS = 5_000
"""Milliseconds by which broker and producer may disagree on the time."""


class BadSpoolSize(ValueError):
    """INFOWAY_SPOOL_MIB is no size."""


def open_backlog(
    deployment: Deployment, source: str, default: Path, environment: Mapping[str, str] = os.environ
) -> Backlog:
    """Return the backlog of a producer in the folder that INFOWAY_SPOOL names, or `default`; raises SpoolUnusable,
    BadSpoolSize and BrokerUnreachable."""
    size = environment.get("INFOWAY_SPOOL_MIB") or str(LIMIT_MIB)
    if not size.isdecimal() or not int(size):
        raise BadSpoolSize(f"INFOWAY_SPOOL_MIB={size}: name a whole number of MiB above 0")
    names = deployment.topology
    # the same name elsewhere is another log: schema ids and partitions are that cluster's
    owner = f"source {source}, prefix {names.prefix!r}, Kafka cluster {_cluster_id(deployment.bootstrap)}"
    spool = Spool(Path(environment.get("INFOWAY_SPOOL") or default), int(size) << 20, owner)
    _check_schemas(spool, deployment)
    status = names.name(FEED_STATUS)
    encode = compile_encoder(load_schema("feed_status"), deployment.schema_ids[status])

    def report(fields: tuple[object, ...]) -> Entry:
        return Entry(status, str(fields[0]), encode(*fields), -1, None, "other", str(fields[0]))

    partitions = {names.name(name): count for name, count in deployment.partitions.items()}
    return Backlog(spool, source, report, partitions, partial(_published, deployment))


def _cluster_id(bootstrap: str) -> str:
    try:
        found = AdminClient(client(bootstrap)).list_topics(timeout=10.0).cluster_id
    except KafkaException as error:
        raise BrokerUnreachable(bootstrap, error.args[0].str()) from None
    return str(found)


def _check_schemas(spool: Spool, deployment: Deployment) -> None:
    """Raise SpoolUnusable where the registry does not have what records of the spool were written with."""
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
            f"the spool {spool.folder} holds records that the registry at {registry.url} has no schema of "
            f"(ids {', '.join(map(str, foreign))}): name the registry that they were written with, or another folder by INFOWAY_SPOOL"
        )


def _name_of(registry: Registry, schema_id: int) -> str | None:
    try:
        return str(registry.schema(schema_id)["name"])
    except UnknownSchema:
        return None


def _published(
    deployment: Deployment, topics: Collection[str], oldest_ms: int
) -> dict[tuple[str, int, str], int]:
    """Return, by topic, partition and connection, the greatest sequence of the records handed on since a time (ms UTC)."""
    read = ValueReader(Registry(deployment.registry_url))
    greatest: dict[tuple[str, int, str], int] = {}
    for topic in sorted(topics):
        # a record of Kafka bears the time at which it was handed on: never before its receipt
        for message in read_to_end(
            deployment.bootstrap, topic, since_ms=max(0, oldest_ms - _CLOCKS)
        ):
            value = message.value()
            found = None if value is None else _place_of(value, read)
            if found is not None:
                connection, sequence = found
                key = topic, cast(int, message.partition()), connection
                greatest[key] = max(greatest.get(key, 0), sequence)
    return greatest


def _place_of(value: bytes, read: ValueReader) -> tuple[str, int] | None:
    try:
        record = read(value)[1]
        return record["connection"], record["sequence"]
    except (KeyError, UnknownSchema, UnreadableValue):
        return None  # no record of a producer
