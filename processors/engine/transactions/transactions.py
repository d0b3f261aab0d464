"""One Kafka transaction at a time: outputs, state and source offsets together, fenced by the
generation of the group.

The order of a commit is flush, send offsets, commit: docs/commit.md gives the reason of each step.
The states and their legal transitions are those of `states`.

If a connection broke in the transaction, the producer is renewed after the commit. If it is not
known how the transaction ended, the worker ends: what it remembers may be ahead of the topics.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from processors.engine.transactions.exits import Exit, leave
from processors.engine.transactions.group import Member, metadata_bytes
from processors.engine.transactions.producer import (
    CALL_TIMEOUT,
    CoordinatorSilent,
    TransactionalProducer,
)
from processors.engine.transactions.states import TransactionState, check
from processors.engine.transactions.takeover import LISTED, other_holder
from schemas.clients.kafka import client

Headers = list[tuple[str, str | bytes | None]]

log = logging.getLogger(__name__)

TRANSACTION_TIMEOUT_MS = 10_000
"""After this the broker aborts what a dead worker left open, and its successor can load the
state."""
TRANSACTION_LIMIT = TRANSACTION_TIMEOUT_MS / 1000 + 5
"""Seconds after which the broker has aborted a transaction for certain, and no call is repeated."""
OVERDUE = TRANSACTION_LIMIT + 3 * CALL_TIMEOUT
"""Seconds after which a call of librdkafka's does not come back any more: its timeouts have had
bugs."""
WAITING = 2.0
"""Seconds after which a wait is named."""
_FENCED = frozenset(
    (
        KafkaError._FENCED,
        KafkaError.PRODUCER_FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError._FATAL,
    )
)
"""Another producer of the same id has begun, or the broker has aborted the transaction."""


class PackedRecords(NamedTuple):
    """Many records of one partition; lists are faster to walk than arrays."""

    topics: Sequence[str]
    topic_of: Sequence[int]
    """Per record the index of its topic."""
    keys: Sequence[bytes]
    key_of: Sequence[int]
    """Per record the index of its key."""
    ends: Sequence[int]
    """Per record where its value ends."""
    values: bytes


class RecordTooLarge(ValueError):
    """A record or an entry of a state that Kafka does not take: the agent fails at its source."""

    def __init__(self, topic: str, key: bytes | None, size: int) -> None:
        shown = repr((key or b"")[:100])
        super().__init__(f"{size} bytes for {topic}, key {shown}: more than the producer takes")


def transactional_conf(bootstrap: str, transactional_id: str) -> dict[str, Any]:
    """Return the configuration of the transactional producer."""
    return {
        **client(bootstrap),
        "transactional.id": transactional_id,
        "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
        "partitioner": "murmur2_random",
        "compression.type": "lz4",
        "linger.ms": 2,
        # the broker answers CONCURRENT_TRANSACTIONS while it finishes the commit before: 100 ms a
        # retry otherwise
        "retry.backoff.ms": 5,
        "retry.backoff.max.ms": 50,
        # a fifth of a second of rows: more only takes memory
        "queue.buffering.max.messages": 40_000,
        "queue.buffering.max.kbytes": 262_144,
    }


@dataclass
class Transactions:
    """The worker's transactional producer and the transaction that it has open, if any.

    Every method is called by one thread at a time: the engine holds its lock.
    """

    bootstrap: str
    producer: TransactionalProducer
    transactional_id: str
    waiting: Callable[[str | None], None] = lambda what: None
    """Called with what is waited for, where a call is repeated or a start takes its time; with None
    after a start."""
    at_step: Callable[[str], None] = lambda step: None
    """Called with the name of each step of a commit: where the fault tests kill the worker."""
    member: Member | None = None
    """Whose transaction is open; None when none is."""
    offsets: dict[tuple[str, int], int] = field(default_factory=dict)
    state: TransactionState = TransactionState.NONE
    """Names the call that is under way, too: some take 10 s without coming back."""
    _began_at: float = 0.0

    @classmethod
    def start(
        cls,
        bootstrap: str,
        transactional_id: str,
        waiting: Callable[[str | None], None] = lambda what: None,
    ) -> "Transactions":
        """Connect, and fence what a predecessor of the same transactional id left open."""
        try:
            producer = TransactionalProducer(
                transactional_conf(bootstrap, transactional_id), waiting
            )
        except (CoordinatorSilent, KafkaException) as error:
            leave(Exit.TRANSACTION_REFUSED, f"init_transactions: {error}")
        return cls(bootstrap, producer, transactional_id, waiting)

    def begin(self, member: Member) -> None:
        """Open a transaction for this member of this generation; everything in it is bound to
        them."""
        assert self.member is None
        if not member.valid:
            raise ValueError(
                f"a transaction needs a real member of the group, not {member}: the broker "
                "would not fence it"
            )
        self._enter(TransactionState.BEGINNING)
        self.member, self._began_at = member, time.monotonic()
        self._call("begin", self.producer.begin)
        self.offsets = {}
        self._enter(TransactionState.OPEN)

    def produce(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers | None = None,
    ) -> None:
        """Add a record; waits while the producer's queue is full. Raises RecordTooLarge."""
        while True:
            try:
                try:
                    self.producer.client.produce(topic, value, key, partition, headers=headers)
                except BufferError:
                    self.producer.client.poll(0.05)
                else:
                    return
            except KafkaException as error:
                if error.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE:
                    # no new start would make it smaller; the transaction is not harmed
                    raise RecordTooLarge(topic, key, len(value or b"")) from error
                self._refused("produce", error)
            self._again("produce", "the producer's queue is full")

    def produce_packed(self, partition: int, records: PackedRecords) -> None:
        """Add records in order. Waits and raises as produce()."""
        topics, topic_of, keys, key_of, ends, values = records
        produce, start = self.producer.client.produce, 0
        # 1.3 us a record are librdkafka's binding's: nothing else is called here
        for topic, key, end in zip(topic_of, key_of, ends, strict=True):
            try:
                produce(topics[topic], values[start:end], keys[key], partition)
            except (BufferError, KafkaException):
                # once more: it waits where the queue is full, and says what is wrong
                self.produce(topics[topic], partition, keys[key], values[start:end])
            start = end

    def commit(self) -> None:
        """Commit what is open, under the member that began it; ends the worker where the broker
        refuses."""
        if self.member is None:
            return
        self.at_step("before flush")
        self._enter(TransactionState.FLUSHING)
        self._flush()
        self.at_step("after flush")
        self._enter(TransactionState.SENDING_OFFSETS)
        self._send_offsets()
        self.at_step("after send offsets")
        self._enter(TransactionState.COMMITTING)
        self._call("commit", lambda: self.producer.client.commit_transaction(CALL_TIMEOUT))
        self._enter(TransactionState.COMMITTED)
        self.at_step("after commit")
        self._renew()
        self._enter(TransactionState.NONE)
        self.member = None

    def _enter(self, state: TransactionState) -> None:
        check(self.state, state)
        self.state = state

    def _flush(self) -> None:
        # every delivery is confirmed before the offsets move; an undeliverable record makes the
        # commit abortable
        while True:
            try:
                # calls of 0.2 s and more go on after a callback has raised, and fail with
                # SystemError
                unsent = self.producer.client.flush(0.15)
            except KafkaException as error:
                self._refused("flush", error)
            if not unsent:
                break
            self._again("flush", f"the broker has {unsent} records to take")

    def _send_offsets(self) -> None:
        offsets = [
            TopicPartition(topic, partition, offset)
            for (topic, partition), offset in self.offsets.items()
        ]
        if offsets:
            metadata = metadata_bytes(self._owner())
            self._call(
                "send offsets",
                lambda: self.producer.client.send_offsets_to_transaction(
                    offsets, metadata, CALL_TIMEOUT
                ),
            )

    def overdue(self) -> str | None:
        """Say which call of an open transaction has not come back long after all are to have
        ended."""
        age = time.monotonic() - self._began_at
        if (
            self.state
            in (TransactionState.NONE, TransactionState.COMMITTED, TransactionState.RENEWING)
            or age < OVERDUE
        ):
            return None
        return f"{self.state.value} has not come back, and the transaction is {age:.0f} s old"

    def _renew(self) -> None:
        if self.producer.suspect:
            self._enter(TransactionState.RENEWING)
        try:
            self.producer.renew_if_suspect()
        except (CoordinatorSilent, KafkaException) as error:
            self._enter(TransactionState.REFUSED)
            leave(Exit.TRANSACTION_REFUSED, f"renewal of the producer: {error}")

    def _owner(self) -> Member:
        assert self.member is not None
        return self.member

    def _call(self, step: str, call: Callable[[], None]) -> None:
        while True:
            try:
                call()
            except KafkaException as exception:
                error: KafkaError = exception.args[0]
                if not error.retriable() or error.fatal() or error.txn_requires_abort():
                    self._refused(step, exception)
                log.warning("%s: %s; the same call again", step, error.str())
                self._again(step, error.str())
            else:
                return

    def _again(self, step: str, why: str) -> None:
        """Name what is waited for; ends the worker once the broker has aborted the transaction."""
        age = time.monotonic() - self._began_at
        if age > TRANSACTION_LIMIT:
            self._enter(TransactionState.REFUSED)
            leave(
                Exit.TRANSACTION_REFUSED,
                f"{step}: {why}, again and again until the transaction was {age:.0f} s old: the "
                "broker aborts it after "
                f"{TRANSACTION_TIMEOUT_MS / 1000:.0f} s; the next worker begins where the last "
                "one committed",
            )
        if age > WAITING:
            self.waiting(f"the broker, with a transaction open: {step}: {why}")

    def _refused(self, step: str, exception: KafkaException) -> NoReturn:
        self._enter(TransactionState.REFUSED)
        error: KafkaError = exception.args[0]
        if error.code() in _FENCED or error.fatal():
            self._fenced(step, error)
        if error.txn_requires_abort():
            try:
                self.producer.client.abort_transaction(CALL_TIMEOUT)
            except KafkaException as aborting:
                log.warning("abort: %s", aborting)
            else:
                self._enter(TransactionState.ABORTED)
        leave(Exit.TRANSACTION_REFUSED, f"{step}: {error.name()}: {error.str()}")

    def _fenced(self, step: str, error: KafkaError) -> NoReturn:
        age = time.monotonic() - self._began_at
        # the broker aborts no younger transaction: then somebody has just taken the id over
        patience = 0.0 if age > TRANSACTION_TIMEOUT_MS / 1000 else LISTED
        other = other_holder(self.bootstrap, self._owner().group, self.transactional_id, patience)
        if other is not None:
            leave(
                Exit.FENCED,
                f"{step}: the transactional id {self.transactional_id!r} was taken over by "
                f"{other}: give every worker a slot of its own",
            )
        leave(
            Exit.TRANSACTION_REFUSED,
            f"{step}: {error.name()}: the transaction was open for {age:.0f} s, and no other "
            "member of the group has this "
            f"slot: after {TRANSACTION_TIMEOUT_MS / 1000:.0f} s without a commit the broker "
            "aborts it; this worker or the "
            "broker stood still",
        )
