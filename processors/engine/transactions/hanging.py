"""Names the transactions that hold a partition's stable offset back, and the command that ends
them.

A broker that was frozen and then killed may lose the coordinator's word of a transaction whose
records it keeps: nobody ends it then. This program writes no markers itself.
"""

import time
from collections.abc import Callable, Iterable

import confluent_kafka as ck
from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from schemas.clients.kafka import client

ABORTED_AFTER = 30.0
"""Seconds after which the broker has aborted every transaction of a worker that it still knows
of."""
_TIMEOUT = 10.0


def open_transactions(bootstrap: str, topic_partitions: Iterable[tuple[str, int]]) -> str:
    """Return one line for each partition (topic, number) with an open transaction, empty if none
    has one.

    Each says since when, and for one that its coordinator must have forgotten, how to end it.
    """
    try:
        return "".join(
            f"\n{line}"
            for topic_partition in sorted(topic_partitions)
            if (line := _open_in(bootstrap, *topic_partition))
        )
    except KafkaException as error:
        return f"\nwhich transactions are open cannot be seen: {error.args[0].str()}"


def _open_in(bootstrap: str, topic: str, partition: int) -> str | None:
    topic_partition = TopicPartition(topic, partition)
    latest: Callable[[], OffsetSpec] = OffsetSpec.latest
    admin = AdminClient({**client(bootstrap), "log_level": 0})
    stable, end = (
        admin.list_offsets(
            {topic_partition: latest()}, isolation_level=level, request_timeout=_TIMEOUT
        )[topic_partition]
        .result()
        .offset
        for level in (IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED)
    )
    if stable >= end:
        return None
    written_ms = _written_ms(bootstrap, TopicPartition(topic, partition, stable))
    if written_ms is None:
        return f"{topic}[{partition}]: a transaction is open from offset {stable} on"
    age = time.time() - written_ms / 1000
    opened = f"{topic}[{partition}]: a transaction is open from offset {stable} on, for {age:.0f} s"
    if age < ABORTED_AFTER:
        return opened
    return (
        f"{opened}: its coordinator has forgotten it, and no restart ends it; end it by\n"
        f"  kafka-transactions.sh --bootstrap-server {bootstrap} abort --topic {topic} "
        f"--partition {partition} "
        f"--start-offset {stable}"
    )


def _written_ms(bootstrap: str, at: TopicPartition) -> int | None:
    """Return when the record there was written, by its own clock (ms since 1970), None if it does
    not come in time."""
    consumer = ck.Consumer(
        {
            **client(bootstrap),
            "group.id": "open-transactions",
            "enable.auto.commit": False,
            "isolation.level": "read_uncommitted",
            "log_level": 0,
        }
    )
    try:
        consumer.assign([at])
        deadline = time.monotonic() + _TIMEOUT
        while time.monotonic() < deadline:
            message = consumer.poll(0.2)
            if message is not None and message.error() is None:
                return message.timestamp()[1]
        return None
    finally:
        consumer.close()
