"""Reading the pipeline's topics as another service would, for replay, tail and the live view;
agents read by their engine."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import confluent_kafka as ck
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from processors.engine.transactions.hanging import open_transactions
from schemas.clients.cluster import metadata_of
from schemas.clients.kafka import client
from schemas.clients.registry import Registry, RegistryError
from schemas.errors import InfowayError, Unreachable
from schemas.foreign.versions import decoder_of, ours_named, shown_by
from schemas.wire import Decoder, Fields, Schema, UnreadableValue, schema_id_of

TIMEOUT = 30.0
HELD_BACK_S = 3.0
"""Seconds without a record after which a partition that is not read to its end counts as left: a
transaction is open there."""
PATIENCE_S = 60.0
"""Seconds for which the rest of a partition is waited for: longer than it takes a broker to abort
what a dead worker left open."""
FAILED_S = 10.0
"""Seconds for which a schema that could not be had is not asked for again."""
COORDINATOR_COMING_UP = frozenset(
    (
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError._WAIT_COORD,
        KafkaError._TIMED_OUT,
    )
)
"""What a broker answers of a group just after its start."""
LEADER_COMING_UP = frozenset(
    (
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._TIMED_OUT,
    )
)
"""What a broker answers of a topic that was just made, and of each just after its own start."""
NOT_ALLOWED = frozenset(
    (
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    )
)
"""What a broker answers where its ACLs do not let a client do something."""


class NoSuchTopic(InfowayError):
    """A topic is not there."""

    def __init__(self, topic: str) -> None:
        super().__init__(
            f"no topic {topic}: run `infoway-streams topology apply`, or name another --prefix"
        )
        self.topic = topic


class HeldBack(Unreachable):
    """A partition cannot be read to its end: a transaction is open there, or no broker answers."""

    def __init__(self, topic: str, partition: int, end: int, after_s: float, why: str) -> None:
        """`why` is what `open_transactions` says of the partition."""
        super().__init__(
            f"{topic}[{partition}] gave no record for {after_s:.0f} s before its end at {end}"
            f"{why or ', and no transaction is open there: try again'}"
        )


class NotAllowed(InfowayError):
    """The ACLs of the cluster keep this client from what it has to do."""

    def __init__(self, what: str) -> None:
        super().__init__(f"this principal may not {what}: grant it by infra/deploy/acls.yaml")


def refused(error: KafkaError, what: str) -> Exception:
    """Return the exception of a broker's answer to an attempt at `what`: NotAllowed where its ACLs
    forbid it."""
    return (
        NotAllowed(f"{what} ({error.str()})")
        if error.code() in NOT_ALLOWED
        else KafkaException(error)
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


def partitions_of(asking: ck.Consumer, topic: str) -> list[int]:
    """Return a topic's partitions. Raises NoSuchTopic and NotAllowed."""
    described = metadata_of(asking, topic, TIMEOUT).topics[topic]
    if described.error is None:
        return sorted(described.partitions)
    if described.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
        raise NoSuchTopic(topic)
    raise refused(described.error, f"see {topic}")


def watermarks(bootstrap: str, topic: str) -> dict[int, tuple[int, int]]:
    """Return the first offset of each partition and the one after its last. Raises NoSuchTopic and
    NotAllowed."""
    asking = ck.Consumer(
        {
            **client(bootstrap),
            "group.id": "read-to-end",
            "isolation.level": "read_uncommitted",
            "log_level": 0,
        }
    )
    try:
        return {
            each: watermarks_of(asking, TopicPartition(topic, each))
            for each in partitions_of(asking, topic)
        }
    finally:
        asking.close()


def watermarks_of(asking: ck.Consumer, partition: TopicPartition) -> tuple[int, int]:
    """Return the first offset of a partition and the one after its last, once it has a leader."""
    give_up = time.monotonic() + TIMEOUT
    while True:
        try:
            return asking.get_watermark_offsets(partition, timeout=TIMEOUT)
        except KafkaException as error:
            if error.args[0].code() not in LEADER_COMING_UP or time.monotonic() > give_up:
                raise
            time.sleep(0.1)


def offsets_since(
    asking: ck.Consumer, times: Sequence[TopicPartition], timeout: float = TIMEOUT
) -> list[TopicPartition]:
    """Return each partition with the offset of its first record since a time, which it has as its
    offset (ms UTC); below 0 where nothing is so late.

    Raises KafkaException where a partition has no answer within `timeout` seconds.
    """
    give_up = time.monotonic() + timeout
    while True:
        found = asking.offsets_for_times(list(times), timeout=timeout)
        # the call succeeds also where a broker that comes up has said nothing of a partition
        errors = [each.error for each in found if each.error is not None]
        if not errors:
            return found
        if time.monotonic() > give_up or errors[0].code() not in LEADER_COMING_UP:
            raise KafkaException(errors[0])
        time.sleep(0.1)


def committed_offsets(
    asking: ck.Consumer, partitions: Sequence[TopicPartition], timeout: float
) -> list[TopicPartition]:
    """Return each partition with the offset that the consumer's group has committed, below 0 where
    it has none; raises KafkaException also where the broker could not say it of one alone."""
    found = asking.committed(list(partitions), timeout=timeout)
    for each in found:
        if each.error is not None:
            raise KafkaException(each.error)
    return found


class Lag:
    """How far a consumer group is behind on its source topics."""

    def __init__(self, bootstrap: str, group: str, topics: Iterable[str]) -> None:
        self._bootstrap = bootstrap
        # in the group by name only: it never subscribes. The admin client would be one call for all
        # partitions, but has crashed on the answers of a broker just started, and does not wait for
        # a new topic's leader
        self._asking = ck.Consumer(
            {
                **client(bootstrap),
                "group.id": group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
                "log_level": 0,
            }
        )
        self._partitions = [
            TopicPartition(topic, partition)
            for topic in topics
            for partition in partitions_of(self._asking, topic)
        ]

    def __call__(self) -> int:
        """Return the number of source records that the group has not committed yet."""
        ends = {
            _address(partition): watermarks_of(self._asking, partition)[1]
            for partition in self._partitions
        }
        done = self._committed()
        return sum(end - done.get(partition, 0) for partition, end in ends.items())

    def records_left(self) -> int:
        """Return the number of source records not committed yet, found by reading them: the end of
        a topic that is written in transactions has their markers too, which no consumer ever
        gets. Each partition with an open transaction counts one more."""
        done = self._committed()
        topics = {partition.topic for partition in self._partitions}
        unread = {
            (topic, part): end
            for topic in topics
            for part, (_, end) in watermarks(self._bootstrap, topic).items()
        }
        left = 0
        self._asking.assign(
            [TopicPartition(*partition, done.get(partition, 0)) for partition in unread]
        )
        read_at = time.monotonic()
        try:
            while unread and time.monotonic() - read_at < HELD_BACK_S:
                for message in self._asking.consume(5000, 0.05):
                    error = message.error()
                    if error is None:
                        left += 1
                        read_at = time.monotonic()
                    elif error.code() != KafkaError._PARTITION_EOF:
                        raise KafkaException(error)
                    else:
                        partition = cast(str, message.topic()), cast(int, message.partition())
                        if cast(int, message.offset()) >= unread.get(partition, 0):
                            unread.pop(partition, None)
        finally:
            self._asking.unassign()
        return left + len(unread)

    def _committed(self) -> dict[tuple[str, int], int]:
        try:
            committed = committed_offsets(self._asking, self._partitions, timeout=5)
        except KafkaException as error:
            if error.args[0].code() not in COORDINATOR_COMING_UP:
                raise
            return {}  # nothing is known to be committed
        return {_address(partition): max(partition.offset, 0) for partition in committed}


def _address(partition: TopicPartition) -> tuple[str, int]:
    return partition.topic, partition.partition
