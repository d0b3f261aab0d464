"""One Kafka transaction at a time: outputs, state and source offsets together, fenced by the generation of the group.

The order of a commit is flush, send offsets, commit. The other way round a zombie's offsets would be accepted, the
group would move on, and the zombie's records would land after those of its successor.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import confluent_kafka as ck
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from processors.engine.exits import Exit, leave
from processors.engine.group import Member, metadata_bytes
from schemas.security import client

Headers = list[tuple[str, str | bytes | None]]

log = logging.getLogger(__name__)

CALL_TIMEOUT = 5.0
"""Seconds that one librdkafka call may take before it is made again."""

TRANSACTION_TIMEOUT_MS = 10_000
"""After this the broker aborts what a dead worker left open, and its successor can load the state."""


def transactional_conf(bootstrap: str, transactional_id: str) -> dict[str, Any]:
    """Return the configuration of the transactional producer."""
    return {
        **client(bootstrap),
        "transactional.id": transactional_id,
        "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
        "partitioner": "murmur2_random",
        "compression.type": "lz4",
        "linger.ms": 2,
        # the broker answers CONCURRENT_TRANSACTIONS while it finishes the commit before: 100 ms a retry otherwise
        "retry.backoff.ms": 5,
        "retry.backoff.max.ms": 50,
        "queue.buffering.max.messages": 200_000,
        "queue.buffering.max.kbytes": 262_144,
    }


@dataclass
class Transactions:
    """The worker's transactional producer and the transaction that it has open, if any.

    Every method is called by one thread at a time: the engine holds its lock.
    """

    producer: ck.Producer
    transactional_id: str
    at_step: Callable[[str], None] = lambda step: None
    """Called with the name of each step of a commit: where the fault tests kill the worker."""
    member: Member | None = None
    """Whose transaction is open; None when none is."""
    offsets: dict[tuple[str, int], int] = field(default_factory=dict)

    @classmethod
    def start(cls, bootstrap: str, transactional_id: str) -> "Transactions":
        """Connect, and fence what a predecessor of the same transactional id left open."""
        producer = ck.Producer(transactional_conf(bootstrap, transactional_id), logger=log)
        transactions = cls(producer, transactional_id)
        transactions._call("init_transactions", lambda: producer.init_transactions(30))
        return transactions

    def begin(self, member: Member) -> None:
        """Open a transaction for this member of this generation; everything in it is bound to them."""
        assert self.member is None
        if not member.valid:
            raise ValueError(
                f"a transaction needs a real member of the group, not {member}: the broker would not fence it"
            )
        self._call("begin", self.producer.begin_transaction)
        self.member = member
        self.offsets = {}

    def produce(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers | None = None,
    ) -> None:
        """Add a record; waits while the producer's queue is full."""
        while True:
            try:
                self.producer.produce(topic, value, key, partition, headers=headers)
            except BufferError:
                self.producer.poll(0.05)
            except KafkaException as error:
                self._refused("produce", error)
            else:
                return

    def commit(self) -> None:
        """Commit what is open, under the member that began it; ends the worker where the broker refuses."""
        if self.member is None:
            return
        self.at_step("before flush")
        self._flush()
        self.at_step("after flush")
        self._send_offsets()
        self.at_step("after send offsets")
        self._call("commit", lambda: self.producer.commit_transaction(CALL_TIMEOUT))
        self.at_step("after commit")
        self.member = None

    def _flush(self) -> None:
        # every delivery is confirmed before the offsets move; an undeliverable record makes the commit abortable
        while self.producer.flush(CALL_TIMEOUT):
            log.warning("waiting for the broker to take %d records", len(self.producer))

    def _send_offsets(self) -> None:
        offsets = [
            TopicPartition(topic, partition, offset)
            for (topic, partition), offset in self.offsets.items()
        ]
        if offsets:
            metadata = metadata_bytes(self._owner())
            self._call(
                "send offsets",
                lambda: self.producer.send_offsets_to_transaction(offsets, metadata, CALL_TIMEOUT),
            )

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
            else:
                return

    def _refused(self, step: str, exception: KafkaException) -> None:
        error: KafkaError = exception.args[0]
        if error.code() in (KafkaError._FENCED, KafkaError.PRODUCER_FENCED):
            leave(
                Exit.FENCED,
                f"{step}: the transactional id {self.transactional_id!r} was taken over: give every worker a slot of its own",
            )
        if error.txn_requires_abort():
            try:
                self.producer.abort_transaction(CALL_TIMEOUT)
            except KafkaException as aborting:
                log.warning("abort: %s", aborting)
        leave(Exit.TRANSACTION_REFUSED, f"{step}: {error.name()}: {error.str()}")
