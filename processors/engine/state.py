"""State of agents in compacted topics: how it is read back after an assignment; writing is the transaction's."""

import time
from collections.abc import Callable, Iterable
from typing import cast

import confluent_kafka as ck
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from schemas.security import client

APPLIED = b"\0applied:"
"""The engine's own keys of each partition's state, followed by a source's full name: its next offset, as decimal digits."""

Entries = dict[bytes, bytes]
LOAD_TIMEOUT = 60.0


class StateNotReadable(RuntimeError):
    """The state topics did not become readable in time: a dead owner's transaction is still open, or the broker is away."""


def load_states(
    bootstrap: str, partitions: Iterable[tuple[str, int]], timeout: float = LOAD_TIMEOUT
) -> dict[tuple[str, int], Entries]:
    """Return the live entries of every (state topic, partition), each read up to its high watermark.

    A read_committed consumer stops at the first open transaction; what a dead owner has flushed lies behind it and may
    yet be committed. So the end is where the high watermark was, not where the consumer first runs dry.
    Raises StateNotReadable after `timeout` seconds.
    """
    wanted = list(partitions)
    states: dict[tuple[str, int], Entries] = {place: {} for place in wanted}
    if not wanted:
        return states
    ends = high_watermarks(bootstrap, wanted)
    consumer = ck.Consumer(
        {
            **client(bootstrap),
            "group.id": "state",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 10,
            "fetch.queue.backoff.ms": 10,
        }
    )
    deadline = time.monotonic() + timeout
    unread = set(wanted)
    try:
        consumer.assign(
            [TopicPartition(topic, partition, ck.OFFSET_BEGINNING) for topic, partition in wanted]
        )
        while unread:
            if time.monotonic() > deadline:
                raise StateNotReadable(
                    f"not readable up to the high watermark within {timeout:.0f} s: {sorted(unread)}"
                )
            for message in consumer.consume(5000, 0.2):
                place = (cast(str, message.topic()), cast(int, message.partition()))
                error = message.error()
                if error is None:
                    _put(states[place], cast(bytes, message.key()), message.value())
                elif error.code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(error)
                elif cast(int, message.offset()) >= ends[place]:
                    unread.discard(place)
    finally:
        consumer.close()
    return states


def high_watermarks(
    bootstrap: str, partitions: Iterable[tuple[str, int]]
) -> dict[tuple[str, int], int]:
    """Return the end of each partition's log, open transactions included."""
    return _offsets(bootstrap, partitions, OffsetSpec.latest)


def log_starts(bootstrap: str, partitions: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
    """Return the first offset that retention has left of each partition."""
    return _offsets(bootstrap, partitions, OffsetSpec.earliest)


def _offsets(
    bootstrap: str, partitions: Iterable[tuple[str, int]], spec: Callable[[], OffsetSpec]
) -> dict[tuple[str, int], int]:
    admin = AdminClient(client(bootstrap))
    # the admin client's default isolation is read_uncommitted: the high watermark, not the last stable offset
    futures = admin.list_offsets(
        {TopicPartition(topic, partition): spec() for topic, partition in partitions},
        request_timeout=30,
    )
    return {
        (place.topic, place.partition): future.result().offset for place, future in futures.items()
    }


def _put(entries: Entries, key: bytes, value: bytes | None) -> None:
    if value is None:
        entries.pop(key, None)
    else:
        entries[key] = value
