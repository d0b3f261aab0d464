"""Reading the pipeline's topics as another service would, for replay, tail and the live view;
agents read by their engine."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import confluent_kafka as ck
from confluent_kafka import KafkaError, TopicPartition

from infra.kafka.offsets import offsets_since, partitions_of, refused, watermarks
from processors.engine.transactions.hanging import open_transactions
from schemas.clients.kafka import client
from schemas.clients.registry import Registry, RegistryError
from schemas.errors import Unreachable
from schemas.foreign.versions import decoder_of, ours_named, shown_by
from schemas.wire import Decoder, Fields, Schema, UnreadableValue, schema_id_of

HELD_BACK_S = 3.0
"""Seconds without a record after which a partition that is not read to its end counts as left: a
transaction is open there."""
PATIENCE_S = 60.0
"""Seconds for which the rest of a partition is waited for: longer than it takes a broker to abort
what a dead worker left open."""
FAILED_S = 10.0
"""Seconds for which a schema that could not be had is not asked for again."""


class HeldBack(Unreachable):
    """A partition cannot be read to its end: a transaction is open there, or no broker answers."""

    def __init__(self, topic: str, partition: int, end: int, after_s: float, why: str) -> None:
        """`why` is what `open_transactions` says of the partition."""
        super().__init__(
            f"{topic}[{partition}] gave no record for {after_s:.0f} s before its end at {end}"
            f"{why or ', and no transaction is open there: try again'}"
        )


class ValueReader:
    """Decodes values by the schema id that each names, and nothing by code that is made of what the
    registry says."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._known: dict[tuple[int, str | None], tuple[Schema, Decoder]] = {}
        self._shown: dict[int, Callable[[bytes], Any]] = {}
        self._failed: dict[int, tuple[float, RegistryError | UnreadableValue]] = {}

    def __call__(self, value: bytes, ours: Schema | None = None) -> tuple[Schema, Fields]:
        """Return the schema of ours and the physical record that a value is by it; `ours` is that
        of the value's topic, the default the one of the same name as the writer's.

        Raises UnreadableValue, UnknownSchema and RegistryError.
        """
        schema_id = schema_id_of(value)
        key = schema_id, None if ours is None else ours["name"]
        if key not in self._known:
            with self._once(schema_id):
                written = self._registry.schema(schema_id)
                ours = ours or ours_named(written)
                self._known[key] = (ours, decoder_of(written, ours))
        schema, decode = self._known[key]
        return schema, decode(value)

    def shown(self, value: bytes) -> Any:
        """Return what JSON shows of a value of any schema. Raises as a call does."""
        schema_id = schema_id_of(value)
        if schema_id not in self._shown:
            with self._once(schema_id):
                self._shown[schema_id] = shown_by(self._registry.schema(schema_id))
        return self._shown[schema_id](value)

    @contextmanager
    def _once(self, schema_id: int) -> Iterator[None]:
        """Ask for a schema that could not be had or read once in FAILED_S, not once a record."""
        asked_at, error = self._failed.get(schema_id, (0.0, None))
        if error is not None and time.monotonic() - asked_at < FAILED_S:
            raise error.with_traceback(None)
        try:
            yield
        except (RegistryError, UnreadableValue) as failed:
            if len(self._failed) > 1000:
                self._failed.clear()
            self._failed[schema_id] = time.monotonic(), failed
            raise


def read_to_end(
    bootstrap: str,
    topic: str,
    since_ms: int | None = None,
    last: int | None = None,
    starts: Mapping[int, int] | None = None,
    patience_s: float = PATIENCE_S,
    on_held: Callable[[HeldBack], None] | None = None,
) -> Iterator[ck.Message]:
    """Yield every committed record of a topic, partition after partition, each in its order, up to
    its end now.

    With `since_ms` only those that Kafka has stamped at or after that time (UTC), with `last` only
    so many of each partition, with `starts` each partition that it names from that offset on, or
    from the first that retention has left. A transaction's offsets may show before its records do,
    and an open one holds the reading back: so the end is where the high watermark is now, not where
    the consumer first runs dry. What a dead worker left open the broker aborts in 20 s.

    Raises NoSuchTopic, NotAllowed, and HeldBack where a partition gives nothing for `patience_s`
    before its end; `on_held` takes it instead, and the next partition follows.
    """
    consumer = ck.Consumer(
        {
            **client(bootstrap),
            "group.id": "read-to-end",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            # what retention takes while it is read is an error, not passed over
            "auto.offset.reset": "error",
            "fetch.wait.max.ms": 20,
            "fetch.queue.backoff.ms": 10,
            "log_level": 0,
        }
    )
    try:
        # a consumer that knows the topic's leaders reads at once: without, the first fetch comes
        # 0.5 s later
        partitions_of(consumer, topic)
        for partition, (low, end) in watermarks(bootstrap, topic).items():
            start = ck.OFFSET_BEGINNING if last is None else max(low, end - last)
            if starts is not None:
                start = max(low, starts.get(partition, low))
            if since_ms is not None:
                # below 0 where there is nothing so late
                found = offsets_since(consumer, [TopicPartition(topic, partition, since_ms)])[0]
                start = max(start, end if found.offset < 0 else found.offset)
            consumer.assign([TopicPartition(topic, partition, start)])
            ended, moved_at = False, time.monotonic()
            while not ended:
                for message in consumer.consume(10_000, 0.02):
                    error = message.error()
                    if error is None:
                        yield message
                    elif error.code() != KafkaError._PARTITION_EOF:
                        raise refused(error, f"read {topic}")
                    elif cast(int, message.offset()) >= end:
                        ended = True
                    moved_at = time.monotonic()
                if time.monotonic() - moved_at > patience_s:
                    why = open_transactions(bootstrap, [(topic, partition)])
                    held = HeldBack(topic, partition, end, patience_s, why)
                    if on_held is None:
                        raise held
                    on_held(held)
                    ended = True
    finally:
        consumer.close()
