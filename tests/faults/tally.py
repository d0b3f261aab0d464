"""A computation that shows every fault of the engine: it numbers each key's records, writes side
rows without state, and nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from processors.model.records import Row, SourceRecord, StateChanges, Trade, Unreadable

HEAVY = b"heavy"
"""A key whose state the agent `slow` cannot write."""


@dataclass
class TallyState:
    partition: int
    counts: dict[bytes, int]
    changed: set[bytes] = field(default_factory=set)


class Tally:
    """One row a record: `partition offset count`; every 97th record also gives a row of
    `<name>-late`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def load(self, partition: int, entries: Mapping[bytes, bytes]) -> TallyState:
        return TallyState(partition, {key: int(value) for key, value in entries.items()})

    def apply(self, state: TallyState, records: Sequence[SourceRecord]) -> list[Row]:
        rows: list[Row] = []
        for record in records:
            if isinstance(record, Unreadable):
                continue
            assert isinstance(record, Trade)
            if record.symbol == "bomb" and self.name == "slow":
                raise ArithmeticError(f"cannot count {record.symbol}")
            key = record.symbol.encode()
            if key == HEAVY and self.name != "slow":
                key = b"light"
            state.counts[key] = state.counts.get(key, 0) + 1
            state.changed.add(key)
            rows.append(
                (self.name, record.symbol, (state.partition, record.offset, state.counts[key]))
            )
            if record.offset % 97 == 0:
                rows.append(
                    (f"{self.name}-late", record.symbol, (state.partition, record.offset, 0))
                )
        return rows

    def dirty(self, state: TallyState) -> StateChanges:
        if HEAVY in state.changed:
            raise ArithmeticError("cannot write heavy")
        changed, state.changed = state.changed, set()
        return [(key, b"%d" % state.counts[key]) for key in sorted(changed)]


def decode_tally(key: bytes | None, value: bytes | None, offset: int) -> SourceRecord:
    """Return the record of a drill's message; `poison` is unreadable."""
    if value == b"poison":
        return Unreadable(offset, key, value, "Poison", "put there by the drill")
    return Trade(
        offset,
        (key or b"").decode(),
        offset,
        0,
        0,
        0,
        None,
        False,
        "stock",
        "stock-1",
        "c",
        0,
        "simulated",
    )


def encode_tally(*fields: object) -> bytes:
    """Write a row's fields as text; dead letters too."""
    return " ".join(f.hex() if isinstance(f, bytes) else str(f) for f in fields).encode()
