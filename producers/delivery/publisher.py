"""Puts what the protocol wants published into Kafka, and counts what the broker has; it waits rather than lose a record."""

import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any, Protocol

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from producers.backlog import COUNTED, Backlog
from producers.counters import FeedCounters
from producers.records import DEAD_LETTER, ControlRecord, Output, Record
from producers.spool import Entry, Segment
from schemas.security import client
from schemas.topics import Topology, load_schema
from schemas.wire import compile_encoder

GRACE = 2.0
"""Seconds that a full queue may still take to drain once the producer is told to stop."""

_AHEAD = 5_000
"""Records that the queue may hold while the backlog drains: the rest is as well off on disk."""
_ACCOUNTED = 256
"""Calls between two checks of a feed's counts."""
_RAW = ("infoway.raw.trade", "infoway.raw.depth", "infoway.raw.kline")
_DELIVERY = {
    "enable.idempotence": True,
    "acks": "all",
    "partitioner": "murmur2_random",
    "compression.type": "lz4",
    "linger.ms": 5,
    "queue.buffering.max.messages": 100_000,
    "queue.buffering.max.kbytes": 65_536,
    # never: with the broker away the queue waits, and then the socket does
    "message.timeout.ms": 0,
    "client.id": "infoway-producer",
}


class PublishError(Exception):
    """Records cannot reach the broker."""


class BrokerUnreachable(PublishError):
    """No broker answers."""

    def __init__(self, bootstrap: str, reason: str) -> None:
        super().__init__(
            f"no Kafka broker answers at {bootstrap} ({reason}): start it, or correct its address and credentials"
        )
        self.bootstrap = bootstrap
        self.reason = reason


class TopicsMissing(PublishError):
    """Topics that the producer writes do not exist."""

    def __init__(self, topics: Iterable[str]) -> None:
        self.topics = tuple(topics)
        super().__init__(
            f"topics {', '.join(self.topics)} do not exist: create them with `infoway-streams topology apply`"
        )


class DeliveryFailed(PublishError):
    """The broker refused a record for good."""

    def __init__(self, topic: str | None, reason: str) -> None:
        super().__init__(
            f"the broker refused a record for {topic} ({reason}): nothing more is published"
        )
        self.topic = topic
        self.reason = reason


class Undelivered(PublishError):
    """Records were still unacknowledged when the time to wait was over."""

    def __init__(self, count: int, seconds: float) -> None:
        super().__init__(
            f"{count} records were not acknowledged within {seconds:g} s: check the broker, they are lost with this process"
        )
        self.count = count


def open_producer(bootstrap: str) -> Producer:
    """Return librdkafka's producer with the project's delivery settings."""
    # librdkafka would write to stderr by itself
    config: dict[str, Any] = {**_DELIVERY, **client(bootstrap)}
    return Producer({**config, "logger": logging.getLogger("librdkafka")})


def raw_partitions(
    producer: Producer, topology: Topology, bootstrap: str, timeout: float = 10.0
) -> dict[str, int]:
    """Return the number of partitions of each raw topic by its name in the contract.

    Raises BrokerUnreachable after `timeout` seconds, and TopicsMissing where a topic of the producers is not there.
    """
    try:
        found = producer.list_topics(timeout=timeout).topics
    except KafkaException as error:
        raise BrokerUnreachable(bootstrap, error.args[0].str()) from None
    missing = [
        topic.name
        for topic in topology.topics()
        if "producers" in topic.owner and topic.name not in found
    ]
    if missing:
        raise TopicsMissing(missing)
    return {topic: len(found[topology.name(topic)].partitions) for topic in _RAW}


class Sink(Protocol):
    """Takes what a transport's feeds say."""

    @property
    def behind(self) -> bool:
        """Whether records wait on disk for the broker."""

    def publish(self, outputs: Sequence[Output], counters: FeedCounters) -> None:
        """Take records in their order."""

    def serve(self) -> None:
        """Use a moment in which nothing is received."""


class Unpublished:
    """A sink that keeps nothing, for feeds that are only recorded."""

    behind = False

    def publish(self, outputs: Sequence[Output], counters: FeedCounters) -> None:
        """Let the records go."""

    def serve(self) -> None:
        """Nothing waits to be delivered."""


class AccountsDiffer(PublishError):
    """The counts of a feed do not add up: a bug, and some record may be lost."""

    def __init__(self, counters: FeedCounters, pending: int) -> None:
        super().__init__(
            f"{counters.feed}: {counters.in_flight} records should be on their way to the broker and {pending} are: please report this"
        )


class Publisher:
    """Publishes for all feeds of a process; its methods may be called from any of their threads.

    With a backlog nothing ever waits for the broker; without one a full queue is waited for. A failed delivery is kept and
    raised by the next call of any method, in every thread.
    """

    def __init__(
        self,
        producer: Producer,
        topology: Topology,
        schema_ids: Mapping[str, int],
        stop: threading.Event,
        backlog: Backlog | None = None,
    ) -> None:
        """`schema_ids` maps the full name of each topic of the producers to the id of its schema in the registry."""
        self._producer = producer
        self._stop = stop
        self._backlog = backlog
        self._encoders = {
            topology.contract_name(topic.name): compile_encoder(
                load_schema(topic.schema), schema_ids[topic.name]
            )
            for topic in topology.topics()
            if topic.schema is not None and "producers" in topic.owner
        }
        self._names = {name: topology.name(name) for name in self._encoders}
        self._failure: DeliveryFailed | None = None
        self._counting = threading.Lock()
        self._order = threading.RLock()
        """Held from the choice between queue and spool until the record is in one of them."""
        self._moved_at = time.monotonic()
        """When the queue was last empty, or the broker has acknowledged something."""
        self._numbers = count(1)
        self._purged: list[tuple[int, Entry, FeedCounters]] | None = None

    @property
    def behind(self) -> bool:
        """Whether records wait on disk for the broker."""
        return self._backlog is not None and not self._backlog.empty

    @property
    def unanswered_for(self) -> float:
        """Seconds in which records were on their way and the broker has acknowledged none."""
        return time.monotonic() - self._moved_at if len(self._producer) else 0.0

    def publish(self, outputs: Iterable[Output], counters: FeedCounters) -> None:
        """Hand records on in their order; deliveries are counted in the feed's counters. Raises PublishError."""
        with self._order:
            counters.calls += 1
            for output in outputs:
                if isinstance(output, Record):
                    self._publish(self._entry(output, counters), counters)
                else:
                    self._publish(_control_entry(self._names[output.topic], output), counters)
        self.serve()
        if counters.calls % _ACCOUNTED == 0:
            self.account(counters)

    def serve(self) -> None:
        """Let deliveries be counted and the backlog drain, without waiting; raises DeliveryFailed."""
        self._producer.poll(0)
        if not len(self._producer):
            self._moved_at = time.monotonic()
        if self._failure is not None:
            raise self._failure
        if self.behind:
            self._drain()

    def account(self, counters: FeedCounters) -> None:
        """Hold a feed's counts against what is under way; to be called by the feed's own thread, or after it. Raises AccountsDiffer."""
        # in the order's lock nobody is between the spool and the queue
        with self._order, self._counting:
            if counters.in_flight != counters.queued:
                raise AccountsDiffer(counters, counters.queued)

    def flush(self, timeout: float = 30.0) -> None:
        """Wait until the broker has acknowledged everything; what it has not after `timeout` seconds goes to the backlog.

        Without one, raises Undelivered.
        """
        give_up = time.monotonic() + timeout
        left = self._producer.flush(timeout)
        while (
            not left
            and self._backlog is not None
            and not self._backlog.empty
            and time.monotonic() < give_up
        ):
            self._drain()
            left = self._producer.flush(max(0.0, give_up - time.monotonic()))
        if self._failure is not None:
            raise self._failure
        if left and self._backlog is None:
            raise Undelivered(left, timeout)

    def close(self, timeout: float) -> int:
        """Flush and end; return how many records stay in the backlog for the next start. Raises Undelivered without a backlog."""
        self.flush(timeout)
        if self._backlog is None:
            return 0
        self._purged = []
        self._producer.purge()
        self._producer.flush(timeout)
        # what the queue had, from disk or not, came before all that waits there
        return self._backlog.close(
            [
                (entry, counters)
                for _, entry, counters in sorted(self._purged, key=lambda each: each[0])
            ]
        )

    def _entry(self, record: Record, counters: FeedCounters) -> Entry:
        value = self._encoders[record.topic](*record.fields)
        topic = self._names[record.topic]
        if record.topic in _RAW:
            _, feed, connection, sequence, received, source, _ = record.fields[-7:]
            kind = "rest" if source == "rest" else "raw"
            return Entry(
                topic,
                record.key,
                value,
                -1,
                None,
                kind,
                feed,
                connection,
                sequence,
                received // 1000,
            )
        if record.topic == DEAD_LETTER:
            feed, connection, received, _ = record.fields[-4:]
            return Entry(
                topic, record.key, value, -1, None, "dead", feed, connection, 0, received // 1000
            )
        return Entry(topic, record.key, value, -1, None, "other", counters.feed)

    def _publish(self, entry: Entry, counters: FeedCounters) -> None:
        backlog = self._backlog
        if backlog is None:
            self._wait_and_produce(entry, counters)
        elif not (backlog.empty and self._produce(entry, counters, None)):
            backlog.append(entry, counters)

    def _drain(self) -> None:
        backlog = self._backlog
        assert backlog is not None
        with self._order:
            while len(self._producer) < _AHEAD and (found := backlog.next()) is not None:
                segment, entry, counters = found
                if not self._produce(entry, counters, segment):
                    backlog.give_back(segment, entry, counters)
                    return

    def _wait_and_produce(self, entry: Entry, counters: FeedCounters) -> None:
        give_up = None
        while not self._produce(entry, counters, None):
            self._producer.poll(0.1)
            if self._failure is not None:
                raise self._failure
            if self._stop.is_set():
                give_up = give_up or time.monotonic() + GRACE
                if time.monotonic() > give_up:
                    raise Undelivered(len(self._producer), GRACE)

    def _produce(self, entry: Entry, counters: FeedCounters, segment: Segment | None) -> bool:
        """Return whether the queue had room."""
        topic, key, value, partition, headers, kind, *_ = entry
        try:
            self._producer.produce(
                topic,
                value=value,
                key=key,
                partition=partition,
                headers=headers,
                on_delivery=partial(self._delivered, next(self._numbers), entry, counters, segment),
            )
        except BufferError:
            return False
        except KafkaException as error:
            raise DeliveryFailed(topic, error.args[0].str()) from error
        if kind in COUNTED:
            with self._counting:
                counters.queued += 1
        return True

    def _delivered(
        self,
        number: int,
        entry: Entry,
        counters: FeedCounters,
        segment: Segment | None,
        error: KafkaError | None,
        message: Message,
    ) -> None:
        kind = entry.kind
        with self._counting:
            if kind in COUNTED:
                counters.queued -= 1
                if error is None and kind == "dead":
                    counters.dead_lettered += 1
                elif error is None:
                    counters.acknowledged += 1
        if error is None:
            self._moved_at = time.monotonic()
            if segment is not None and self._backlog is not None:
                with self._order:
                    self._backlog.acknowledge(segment)
        elif self._purged is not None and error.code() in (
            KafkaError._PURGE_QUEUE,
            KafkaError._PURGE_INFLIGHT,
        ):
            self._purged.append((number, entry, counters))
        elif self._failure is None:
            self._failure = DeliveryFailed(message.topic(), error.str())


def _control_entry(topic: str, output: ControlRecord) -> Entry:
    control = output.control
    partition = -1 if output.partition is None else output.partition
    kind = "mark" if control.kind == "mark" else "other"
    return Entry(
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
