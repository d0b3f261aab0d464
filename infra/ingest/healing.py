"""Heals gaps while feeds run, with what the log knows of the time before."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import confluent_kafka as ck

from infra.kafka.reader import ValueReader, read_to_end
from infra.runtime.deployment import Deployment
from producers.delivery.sink import Sink
from producers.healing.healer import Healer
from producers.vendor.rest import Rest
from schemas.clients.registry import Registry, UnknownSchema
from schemas.control import HELD_BACK_MS, UnreadableControl, headers_of, read_control
from schemas.partition import partition_of
from schemas.topics import FEED_STATUS, RAW_TRADE, load_schema
from schemas.wire import Fields, Schema, UnreadableValue

_TAIL = 2_000
"""Records of a partition that are looked through for its feeds' last heartbeats: marks come
every few seconds."""


def healing(
    deployment: Deployment, address: str, key: str, memory: Path | None
) -> Callable[[Sink], Healer]:
    """Return what makes the healer of a producer; with a memory gaps reach back to what the log has
    of its predecessor, and what an earlier process had not healed yet is taken up."""
    alive, carriers = _last_alive(deployment) if memory else ({}, {})
    count = deployment.partitions[RAW_TRADE]

    def last_alive_ms(feed: str, symbol: str) -> int | None:
        # changes of the list may have put the symbol on another feed than a fresh plan does
        carrier = carriers.get(symbol, feed)
        found = alive.get(
            (partition_of(symbol.encode(), count), carrier), alive.get((None, carrier))
        )
        # what was held back then is lost too; too early is no harm: what was seen whole is not
        # healed
        return None if found is None else found - HELD_BACK_MS

    def heals(sink: Sink) -> Healer:
        return Healer(Rest(address, key), sink, last_alive_ms, memory)

    return heals


def _last_alive(deployment: Deployment) -> tuple[dict[tuple[int | None, str], int], dict[str, str]]:
    """Return per partition of the raw trades and feed the time at which its last records
    show it alive, in ms UTC; under None that of its last status; and each symbol's feed."""
    reader = ValueReader(Registry(deployment.registry_url))
    statuses, trades = load_schema("feed_status"), load_schema("raw_trade")
    alive: dict[tuple[int | None, str], int] = {}
    carriers: dict[str, str] = {}
    # a busy feed leaves no place among a partition's last records to one that ended long before
    for message in read_to_end(deployment.bootstrap, deployment.topology.name(FEED_STATUS)):
        try:
            status = reader(message.value() or b"", statuses)[1]
        except (UnknownSchema, UnreadableValue):
            continue  # it shows no feed alive
        alive[None, status["feed"]] = status["ts_to"] or status["ts_from"]
        carriers.update(dict.fromkeys(status["symbols"], status["feed"]))
    for message in read_to_end(
        deployment.bootstrap, deployment.topology.name(RAW_TRADE), last=_TAIL
    ):
        sign = _sign_of_life(message, lambda value: reader(value, trades))
        if sign is not None:
            feed = cast(int, message.partition()), sign[0]
            alive[feed] = max(alive.get(feed, 0), sign[1] // 1000)
            key = message.key()
            if key is not None:
                carriers[key.decode(errors="replace") if isinstance(key, bytes) else key] = sign[0]
    return alive, carriers


def _sign_of_life(
    message: ck.Message, read: Callable[[bytes], tuple[Schema, Fields]]
) -> tuple[str, int] | None:
    """Return a record's feed and receive time (microseconds UTC); None for what cannot be read: it
    shows no feed alive."""
    value = message.value()
    try:
        if value is None:
            control = read_control(headers_of(message))
            return None if control.kind == "heal" else (control.feed, control.ts_recv)
        record = read(value)[1]
        return record["feed"], record["ts_recv"]
    except (KeyError, UnknownSchema, UnreadableControl, UnreadableValue):
        return None
