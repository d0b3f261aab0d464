"""What is applied while a commit is under way: it waits for the next transaction, in its order."""

from collections.abc import Callable
from dataclasses import dataclass, field

from processors.engine.assigned import Agent, AssignedState
from processors.engine.batch import Span
from processors.engine.sources import SourcePartition
from processors.engine.transactions.group import Member
from processors.engine.transactions.transactions import Headers, PackedRecords, Transactions

MOST_BYTES = 16 << 20
"""So much may wait before nothing more is applied; the batch that goes beyond is kept whole."""
_OVERHEAD = 200
"""Bytes that a record takes beside its key and value."""


@dataclass(frozen=True, slots=True)
class Applied:
    """Which records of a source an agent has applied: where it fails, that is written down."""

    agent: Agent
    partition: int
    assigned: AssignedState
    topic: str
    span: Span


@dataclass(slots=True)
class HeldRows:
    """Takes records as a transaction does, for one that has not begun."""

    member: Member | None = None
    """For whom it is to begin; None while nothing was applied."""
    offsets: dict[SourcePartition, int] = field(default_factory=dict)
    size: int = 0
    """Bytes."""
    _batches: list[tuple[Applied, list[Callable[[Transactions], None]]]] = field(
        default_factory=list
    )

    @property
    def full(self) -> bool:
        """Whether no more is to be applied until the commit has ended."""
        return self.size >= MOST_BYTES

    def begin_batch(self, applied: Applied) -> None:
        """Say what the records that follow come from."""
        self._batches.append((applied, []))

    def produce(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers | None = None,
    ) -> None:
        """Keep a record."""
        _, calls = self._batches[-1]
        calls.append(lambda into: into.produce(topic, partition, key, value, headers))
        self.size += len(key or b"") + len(value or b"") + _OVERHEAD

    def produce_packed(self, partition: int, records: PackedRecords) -> None:
        """Keep records."""
        _, calls = self._batches[-1]
        calls.append(lambda into: into.produce_packed(partition, records))
        self.size += len(records.values) + _OVERHEAD * len(records.ends)

    def hand_over(
        self, transactions: Transactions, failed: Callable[[Applied, Exception], None]
    ) -> None:
        """Begin the transaction and add everything to it; where a record cannot be added, `failed`
        is called with what it came from."""
        if self.member is None:
            return
        transactions.begin(self.member)
        transactions.offsets.update(self.offsets)
        for applied, calls in self._batches:
            try:
                for add_to in calls:
                    add_to(transactions)
            except Exception as error:  # noqa: BLE001 as in the transaction itself: the agent's
                failed(applied, error)
