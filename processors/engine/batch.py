"""Records of one partition that are applied together, and how a batch is cut where an agent has
failed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, Self, get_args

from processors.engine.failures import Failure
from processors.engine.sources import SourcePartition
from processors.engine.transactions.group import Member
from processors.model.records import SourceRecord


class Run(Protocol):
    """Consecutive records as columns: a TradeRun or a BookRun; at least one."""

    def __len__(self) -> int: ...

    @property
    def first_offset(self) -> int:
        """The offset of the first record."""
        ...

    @property
    def last_offset(self) -> int:
        """The offset of the last record."""
        ...

    def since(self, offset: int) -> Self | None:
        """Return the records from an offset on; None if there are none."""
        ...

    def before(self, offset: int) -> Self | None:
        """Return the records before an offset; None if there are none."""
        ...

    def all_records(self) -> list[SourceRecord]:
        """Return every record as the general path reads it."""
        ...


Piece = SourceRecord | Run
"""What a batch is made of, in log order."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive records of one partition, fetched under one assignment."""

    source_partition: SourcePartition
    member: Member
    continues: int
    """The offset that follows the batch before in this assignment: nothing lies between it and the
    first record."""
    pieces: Sequence[Piece]
    next_offset: int
    """Where the partition goes on: at its end, behind what is no record (the markers of
    transactions)."""
    _records: list[SourceRecord] = field(default_factory=list, compare=False)

    def one_by_one(self) -> "Batch":
        """Return the batch without runs; agents that take none share what is made here once."""
        if not has_runs(self.pieces):
            return self
        if not self._records:
            self._records.extend(expanded(self.pieces))
        return replace(self, pieces=self._records)


_SINGLE = frozenset(get_args(SourceRecord))


def has_runs(pieces: Iterable[Piece]) -> bool:
    """Return whether any of the pieces is a run."""
    return not _SINGLE.issuperset(map(type, pieces))


def expanded(pieces: Iterable[Piece]) -> list[SourceRecord]:
    """Return the pieces' records, each as the general path reads it."""
    records: list[SourceRecord] = []
    for piece in pieces:
        if isinstance(piece, SourceRecord):
            records.append(piece)
        else:
            records += piece.all_records()
    return records


def count_of(pieces: Sequence[Piece]) -> int:
    """Return how many records the pieces have."""
    if not has_runs(pieces):
        return len(pieces)
    return sum(1 if isinstance(piece, SourceRecord) else len(piece) for piece in pieces)


def since(pieces: Sequence[Piece], offset: int) -> list[Piece]:
    """Return what lies at an offset or behind it."""
    kept: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, SourceRecord):
            if piece.offset >= offset:
                kept.append(piece)
        elif piece.last_offset >= offset and (part := piece.since(offset)) is not None:
            kept.append(part)
    return kept


def before(pieces: Sequence[Piece], offset: int) -> list[Piece]:
    """Return what lies before an offset."""
    kept: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, SourceRecord):
            if piece.offset < offset:
                kept.append(piece)
        elif (part := piece.before(offset)) is not None:
            kept.append(part)
    return kept


Span = tuple[int, int]
"""The first and the last of consecutive offsets."""


def span_of(batch: Batch, pieces: Sequence[Piece]) -> Span:
    """Return the offsets of a batch's records that are applied; of the whole batch if none are."""
    if not pieces:
        return batch.continues, batch.next_offset - 1
    first, last = pieces[0], pieces[-1]
    return (
        first.offset if isinstance(first, SourceRecord) else first.first_offset,
        last.offset if isinstance(last, SourceRecord) else last.last_offset,
    )


def parts_of(batch: Batch, failure: Failure | None) -> list[Batch]:
    """Cut a batch where the agent has failed: one record a part, or nothing from the record on at
    which it stops."""
    if failure is None or (batch.continues > failure.last and not failure.stops):
        return [batch]
    if failure.stops:
        return [
            replace(
                batch,
                pieces=before(batch.pieces, failure.first),
                next_offset=min(batch.next_offset, failure.first),
                _records=[],
            )
        ]
    parts: list[Batch] = []
    continues = batch.continues
    for record in expanded(before(batch.pieces, failure.last + 1)):
        after = record.offset + 1
        parts.append(
            replace(batch, continues=continues, pieces=[record], next_offset=after, _records=[])
        )
        continues = after
    rest = since(batch.pieces, failure.last + 1)
    return [*parts, replace(batch, continues=continues, pieces=rest, _records=[])]
