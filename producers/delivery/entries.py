"""Entries: records ready for Kafka, as the client's queue and the spool hold them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from producers.feed.metrics import FeedCounters
from producers.feed.outputs import RAW_RECORDS, ControlPublication, Output, Publication
from schemas.control import Control
from schemas.records import DeadLetterRecord, RawDepthRecord, RawTradeRecord
from schemas.topics import Topology, load_schema
from schemas.wire import compile_encoder

COUNTED = frozenset(("raw", "rest", "dead"))
"""Kinds of entries that stand for something received."""


class SpoolEntry(NamedTuple):
    """A record ready for Kafka. `kind`: raw, rest, dead (these count for `feed`), mark or other."""

    topic: str
    key: str | None
    value: bytes | None
    partition: int
    headers: Any
    """A list of pairs of name and bytes, or None."""
    kind: str
    feed: str
    connection: str = ""
    sequence: int = 0
    received_ms: int = 0


class Entries:
    """Makes entries of what feeds publish."""

    def __init__(self, topology: Topology, schema_ids: Mapping[str, int]) -> None:
        """`schema_ids` maps the full name of each topic of the producers to the id of its schema in
        the registry."""
        self._encoders = {
            topology.contract_name(topic.name): compile_encoder(
                load_schema(topic.schema), schema_ids[topic.name]
            )
            for topic in topology.topics()
            if topic.schema is not None and "producers" in topic.owner
        }
        self._names = {name: topology.name(name) for name in self._encoders}

    def of(self, output: Output, counters: FeedCounters) -> SpoolEntry:
        """Return the entry of a record of a feed with these counters."""
        if isinstance(output, ControlPublication):
            return _control_entry(self._names[output.topic], output)
        return self._record_entry(output, counters)

    def _record_entry(self, publication: Publication, counters: FeedCounters) -> SpoolEntry:
        topic, key, record = publication
        value = self._encoders[topic](*record)
        name = self._names[topic]
        if isinstance(record, RAW_RECORDS):
            kind = "rest" if record.source == "rest" else "raw"
            received_ms = record.ts_recv // 1000
            return SpoolEntry(
                name,
                key,
                value,
                -1,
                None,
                kind,
                record.feed,
                record.connection,
                record.sequence,
                received_ms,
            )
        if isinstance(record, DeadLetterRecord):
            # whose counters it is in: klines of the past are counted apart
            account = counters.feed if record.source == "rest" else record.feed or counters.feed
            connection, received_us = record.connection or "", record.ts_recv or 0
            return SpoolEntry(
                name, key, value, -1, None, "dead", account, connection, 0, received_us // 1000
            )
        return SpoolEntry(name, key, value, -1, None, "other", counters.feed)


def event_ms_of(output: Output) -> int | None:
    """Return when a trade or book happened, by the vendor; a repeat tells nothing of what is lost
    with it."""
    if isinstance(output, ControlPublication):
        return None
    record = output.record
    if isinstance(record, RawTradeRecord):
        return None if record.repeat else record.ts_event
    return record.ts_event if isinstance(record, RawDepthRecord) else None


def gap_entry(
    topic: str,
    symbol: str | None,
    feed: str,
    connection: str,
    source: str,
    ts_from: int | None,
    ts: int,
    reason: str,
) -> SpoolEntry:
    """Return the control record of a loss; times are ms UTC."""
    control = Control(
        "gap", feed, business_of(feed), connection, source, ts, ts * 1000, ts_from, reason
    )
    return SpoolEntry(topic, symbol, None, -1, control.headers(), "other", feed, connection, 0, ts)


def business_of(feed: str) -> str:
    """Return the business that a feed's name begins with."""
    return feed.rpartition("-")[0]


def to_bytes(entry: SpoolEntry) -> bytes:
    """Return an entry as the spool has it."""
    headers = (
        None if entry.headers is None else [(name, value.decode()) for name, value in entry.headers]
    )
    head: list[Any] = [
        entry.topic,
        entry.key,
        entry.value is None,
        entry.partition,
        headers,
        entry.kind,
        entry.feed,
        entry.connection,
        entry.sequence,
        entry.received_ms,
    ]
    return orjson.dumps(head) + b"\n" + (entry.value or b"")


def from_bytes(blob: bytes) -> SpoolEntry:
    """Return the entry of such bytes."""
    head, _, value = blob.partition(b"\n")
    topic, key, empty, partition, headers, *rest = orjson.loads(head)
    pairs = None if headers is None else [(name, text.encode()) for name, text in headers]
    return SpoolEntry(topic, key, None if empty else value, partition, pairs, *rest)


def _control_entry(topic: str, output: ControlPublication) -> SpoolEntry:
    control = output.control
    partition = -1 if output.partition is None else output.partition
    kind = "mark" if control.kind == "mark" else "other"
    return SpoolEntry(
        topic,
        output.key,
        None,
        partition,
        control.headers(),
        kind,
        control.feed,
        control.connection,
        0,
        control.ts_recv // 1000,
    )
