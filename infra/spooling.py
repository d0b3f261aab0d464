"""The producer's spool on this machine: where it is, and what of it the topics have already; the queue itself is in producers."""

import os
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import cast

from infra.consuming import ValueReader, read_to_end
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
    return Backlog(spool, source, report, partitions, partial(_published, deployment))


def _published(deployment: Deployment, topics: Collection[str], oldest_ms: int) -> dict[tuple[str, int, str], int]:
    """Return, by topic, partition and connection, the greatest sequence of the records handed on since a time (ms UTC)."""
    read = ValueReader(Registry(deployment.registry_url))
    greatest: dict[tuple[str, int, str], int] = {}
    for topic in sorted(topics):
        # a record of Kafka bears the time at which it was handed on: never before its receipt
        for message in read_to_end(deployment.bootstrap, topic, since_ms=max(0, oldest_ms - _CLOCKS)):
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
