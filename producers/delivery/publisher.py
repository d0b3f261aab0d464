"""Puts what the protocol wants published into Kafka, and counts what the broker has; it waits
rather than lose a record."""

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import count

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from producers.delivery.backlog import Backlog
from producers.delivery.broker_watch import BrokerWatch
from producers.delivery.entries import COUNTED, Entries, SpoolEntry, event_ms_of
from producers.delivery.errors import AccountsDiffer, ClientFailed, DeliveryFailed, Undelivered
from producers.delivery.segments import Segment
from producers.feed.metrics import FeedCounters
from producers.feed.outputs import Output
from schemas.topics import Topology

GRACE = 2.0
"""Seconds that a full queue may still take to drain once the producer is told to stop."""

_AHEAD = 5_000
"""Records that the queue may hold while the backlog drains: the rest is as well off on disk."""
_RETRY = 1.0
"""Seconds between two attempts to save the queue on a disk that refuses it."""
_GIVEN_UP = frozenset(
    (
        KafkaError._FATAL,
        KafkaError._PURGE_QUEUE,
        KafkaError._PURGE_INFLIGHT,
        KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER,
        KafkaError.UNKNOWN_PRODUCER_ID,
        KafkaError.INVALID_PRODUCER_EPOCH,
    )
)
"""With what an idempotent client fails the records on their way once it cannot keep their order. It
refuses all that follows; the records themselves are sound."""
_ACCOUNTED = 256
"""Calls between two checks of a feed's counts."""


@dataclass(slots=True)
class _Flight:
    """A record in the client's queue."""

    number: int
    entry: SpoolEntry
    counters: FeedCounters
    segment: Segment | None
    """The part of the spool that has it too."""
    copied: bool = False
    """Whether the spool got it only after the queue: it counts as spooled then."""


class Publisher:
    """Publishes for all feeds of a process; its methods may be called from any of their threads.

    With a backlog nothing ever waits for the broker; without one a full queue is waited for. A
    failed delivery is kept and raised by the next call of any method, in every thread.

    While the broker acknowledges nothing, records go to the spool. What the queue holds is copied
    there first, and stays in the queue: a copy goes with its acknowledgement, so nothing is sent
    twice. The spool is in the order of arrival.
    """

    def __init__(
        self,
        producer: Producer,
        topology: Topology,
        schema_ids: Mapping[str, int],
        stop: threading.Event,
        backlog: Backlog | None = None,
    ) -> None:
        """`schema_ids` maps the full name of each topic of the producers to the id of its schema in
        the registry."""
        self._producer = producer
        self._stop = stop
        self._backlog = backlog
        self._entries = Entries(topology, schema_ids)
        self._failure: DeliveryFailed | ClientFailed | None = None
        self._counting = threading.Lock()
        self._order = threading.RLock()
        """Held from the choice between queue and spool until the record is in one of them."""
        self._watch = BrokerWatch()
        self._numbers = count(1)
        self._direct: dict[int, _Flight] = {}
        """What only the client's queue holds, by number."""
        self._retry_at = 0.0
        self._saved = False
        """Whether the spool has all that is not acknowledged."""
        self._undelivered: list[_Flight] = []
        """What the client gave back, to be kept on disk at the end."""
        self._purging = False

    @property
    def behind(self) -> bool:
        """Whether records wait on disk for the broker."""
        return self._backlog is not None and not self._backlog.empty

    @property
    def unanswered_for(self) -> float:
        """Seconds in which records were on their way and the broker has acknowledged none."""
        return self._watch.unanswered_for(len(self._producer))

    def publish(self, outputs: Iterable[Output], counters: FeedCounters) -> None:
        """Hand records on in their order; deliveries are counted in the feed's counters. Raises
        PublishError."""
        with self._order:
            counters.calls += 1
            for output in outputs:
                entry = self._entries.of(output, counters)
                self._publish(entry, counters, event_ms_of(output))
        self.serve()
        if counters.calls % _ACCOUNTED == 0:
            self.account(counters)

    def serve(self) -> None:
        """Let deliveries be counted and the backlog drain, without waiting; raises DeliveryFailed
        and ClientFailed."""
        self._poll(0)
        if self._failure is not None:
            raise self._failure
        backlog = self._backlog
        if backlog is None:
            self._watch.look(len(self._producer))
            self._watch.report(self._waiting)
            return
        with self._order:
            if self._watch.look(len(self._producer)):
                self._save_queue(backlog)
            elif not backlog.empty:
                self._drain(backlog)
            self._watch.report(self._waiting)

    def account(self, counters: FeedCounters) -> None:
        """Hold a feed's counts against what is under way; to be called by the feed's own thread, or
        after it. Raises AccountsDiffer."""
        # in the order's lock nobody is between the spool and the queue
        with self._order, self._counting:
            if counters.in_flight != counters.queued:
                raise AccountsDiffer(counters, counters.queued)

    def flush(self, timeout: float = 30.0) -> None:
        """Wait until the broker has acknowledged everything; what it has not after `timeout`
        seconds goes to the backlog.

        Without one, raises Undelivered.
        """
        give_up = time.monotonic() + timeout
        left = self._flush(timeout)
        while (
            not left
            and self._backlog is not None
            and not self._backlog.empty
            and time.monotonic() < give_up
        ):
            self._drain(self._backlog)
            left = self._flush(max(0.0, give_up - time.monotonic()))
        if self._failure is not None:
            raise self._failure
        if left and self._backlog is None:
            raise Undelivered(left, timeout)

    def close(self, timeout: float) -> int:
        """Flush and end; return how many records stay in the backlog for the next start: also of a
        client that has given up. Raises Undelivered without a backlog."""
        try:
            self.flush(timeout)
        except ClientFailed:
            # what it gives back is kept on disk
            if self._backlog is None:
                raise
        if self._backlog is None:
            return 0
        self._purging = True
        # a purge that waits for the client's threads waits without an end where one is gone
        self._producer.purge(blocking=False)
        self._flush(timeout)
        # what the queue had, from disk or not, came before all that waits there
        flights = sorted(self._undelivered, key=lambda each: each.number)
        return self._backlog.close(
            [(each.entry, each.counters, each.segment is not None) for each in flights]
        )

    def _waiting(self) -> str:
        if self._backlog is None:
            return f"{len(self._producer)} records wait in memory"
        return f"{self._backlog.left} records wait on disk, {len(self._direct)} in memory alone"

    def _publish(
        self, entry: SpoolEntry, counters: FeedCounters, event_ms: int | None = None
    ) -> None:
        backlog = self._backlog
        if backlog is None:
            self._wait_and_produce(entry, counters)
        elif not (backlog.empty and self._queued(backlog, entry, counters)):
            backlog.append(entry, counters, event_ms)

    def _queued(self, backlog: Backlog, entry: SpoolEntry, counters: FeedCounters) -> bool:
        """Return whether the queue has taken a record; if not, the spool has all that came before
        it, as far as it takes that."""
        if not self._watch.away and self._produce(entry, counters, None):
            return True
        if self._save_queue(backlog):
            return False
        # the disk takes nothing: memory is better than nothing
        return self._watch.away and self._produce(entry, counters, None)

    def _save_queue(self, backlog: Backlog) -> bool:
        """Copy to disk what only the queue holds, before anything later goes there; return whether
        the spool has all of it."""
        with self._counting:
            direct = list(self._direct.values())
        if direct and (not backlog.empty or time.monotonic() < self._retry_at):
            return False
        segments = backlog.keep([each.entry for each in direct]) if direct else []
        acknowledged = []
        with self._counting:
            for flight, segment in zip(direct, segments, strict=False):
                if self._direct.pop(flight.number, None) is None:
                    acknowledged.append(segment)
                    continue
                flight.segment, flight.copied = segment, True
                if flight.entry.kind in COUNTED:
                    flight.counters.queued -= 1
                    flight.counters.spooled += 1
        for segment in acknowledged:
            backlog.acknowledge(segment)
        if len(segments) < len(direct):
            self._retry_at = time.monotonic() + _RETRY
            return False
        if not self._saved and not self._undelivered:
            self._saved = backlog.mark_whole(True)
        return True

    def _drain(self, backlog: Backlog) -> None:
        with self._order:
            while len(self._producer) < _AHEAD and (found := backlog.next()) is not None:
                segment, entry, counters = found
                if not self._produce(entry, counters, segment):
                    backlog.give_back(segment, entry, counters)
                    return

    def _wait_and_produce(self, entry: SpoolEntry, counters: FeedCounters) -> None:
        give_up = None
        while not self._produce(entry, counters, None):
            self._poll(0.1)
            if self._failure is not None:
                raise self._failure
            if self._stop.is_set():
                give_up = give_up or time.monotonic() + GRACE
                if time.monotonic() > give_up:
                    raise Undelivered(len(self._producer), GRACE)

    def _produce(self, entry: SpoolEntry, counters: FeedCounters, segment: Segment | None) -> bool:
        """Return whether the queue had room."""
        topic, key, value, partition, headers, kind, *_ = entry
        flight = _Flight(next(self._numbers), entry, counters, segment)
        if segment is None:
            if self._saved and self._backlog is not None:
                self._saved = self._backlog.mark_whole(False)
            self._direct[flight.number] = flight
        try:
            self._producer.produce(
                topic,
                value=value,
                key=key,
                partition=partition,
                headers=headers,
                on_delivery=partial(self._delivered, flight),
            )
        except BufferError:
            self._direct.pop(flight.number, None)
            return False
        except KafkaException as error:
            if not self._gave_up(error):
                raise DeliveryFailed(topic, error.args[0].str()) from error
            self._direct.pop(flight.number, None)
            return False
        if kind in COUNTED:
            with self._counting:
                counters.queued += 1
        return True

    def _poll(self, timeout: float) -> None:
        """Let deliveries be counted, and note where the client has given up."""
        try:
            self._producer.poll(timeout)
        except KafkaException as error:
            if not self._gave_up(error):
                raise

    def _flush(self, timeout: float) -> int:
        """Wait for deliveries; return how many records the client still has."""
        try:
            return self._producer.flush(timeout)
        except KafkaException as error:
            if not self._gave_up(error):
                raise
            return len(self._producer)

    def _gave_up(self, error: KafkaException) -> bool:
        """Return whether an error is the client's last, and note it then: all that the client has
        fails with it."""
        reason = error.args[0]
        if not reason.fatal() and reason.code() != KafkaError._FATAL:
            return False
        self._failure = self._failure or ClientFailed(reason.str())
        return True

    def _delivered(self, flight: _Flight, error: KafkaError | None, message: Message) -> None:
        with self._counting:
            # from here on it gets no copy
            self._direct.pop(flight.number, None)
            segment = flight.segment
            if segment is None:
                self._count(flight, error)
        if segment is not None:
            with self._order, self._counting:
                self._count(flight, error)
                if error is None and self._backlog is not None:
                    self._backlog.acknowledge(segment)
        if error is None:
            self._watch.moved_at = time.monotonic()
        elif error.code() in _GIVEN_UP:
            self._undelivered.append(flight)
            if not self._purging and self._failure is None:
                self._failure = ClientFailed(error.str())
        elif self._failure is None:
            self._failure = DeliveryFailed(message.topic(), error.str())

    def _count(self, flight: _Flight, error: KafkaError | None) -> None:
        kind, counters = flight.entry.kind, flight.counters
        if kind not in COUNTED:
            return
        if flight.copied:
            counters.spooled -= 1
        else:
            counters.queued -= 1
        if error is None and kind == "dead":
            counters.dead_lettered += 1
        elif error is None:
            counters.acknowledged += 1
