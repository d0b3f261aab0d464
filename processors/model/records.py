"""What the computation reads and writes: decoded raw records in, rows of derived topics out; no
bytes, no Kafka.

Prices and volumes are integers in units of 10^-18 (`schemas.decimals`), so turnover p x v is exact
in units of 10^-36. Not frozen: an instance is made per record on the hot path, and a frozen
dataclass takes four times as long to make.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from schemas.control import Control
from schemas.records import (
    ActivityBarRecord,
    BarRecord,
    DepthImbalanceRecord,
    LateTradeRecord,
    ProgressRecord,
    ReconciliationRecord,
    VwapRecord,
)


@dataclass(slots=True)
class Trade:
    """One trade: ts_event in ms UTC, ts_recv in us UTC, price and volume in units of 10^-18,
    direction 0, 1, 2."""

    offset: int
    symbol: str
    ts_event: int
    price: int
    volume: int
    direction: int
    trade_type: str | None
    repeat: bool
    business: str
    feed: str
    connection: str
    ts_recv: int
    source: str


@dataclass(slots=True)
class Book:
    """One order book as pushed: (price, size) in units of 10^-18 per level, in the vendor's order,
    lists a and b."""

    offset: int
    symbol: str
    ts_event: int
    a: list[tuple[int, int]]
    b: list[tuple[int, int]]
    business: str
    feed: str
    connection: str
    ts_recv: int
    source: str


@dataclass(slots=True)
class ControlRecord:
    """A control record at its place in the log; `symbol` is None for a mark, which stands for all
    of the feed."""

    offset: int
    symbol: str | None
    control: Control


@dataclass(slots=True)
class Kline:
    """One push of the vendor's kline: ts_start in ms UTC, numbers in units of 10^-18,
    `turnover_step` its last written digit."""

    offset: int
    symbol: str
    interval: str
    ts_start: int
    prices: tuple[int, int, int, int]
    """Open, high, low, close."""
    volume: int
    turnover: int
    turnover_step: int
    business: str
    feed: str
    connection: str
    ts_recv: int
    source: str

    @property
    def ts_event(self) -> int:
        """The latest time that a kline without a time of its own proves: its start."""
        return self.ts_start


@dataclass(slots=True)
class BarRevision:
    """A record of `infoway.bars.<interval>`: numbers in units of 10^-18, ts_start and ts_end in ms
    UTC, ts_recv in us UTC."""

    offset: int
    symbol: str
    interval: str
    ts_start: int
    ts_end: int
    prices: tuple[int, int, int, int]
    """Open, high, low, close."""
    volume: int
    turnover: int
    revision: int
    from_trades: bool
    """Whether it is closed and made of trades alone."""
    completeness: str
    source: str
    ts_recv: int


@dataclass(slots=True)
class Heal:
    """The vendor's final kline for a bar that the feed did not fully observe; times and numbers as
    a Kline's, ts_end exclusive."""

    offset: int
    symbol: str
    interval: str
    ts_start: int
    ts_end: int
    prices: tuple[int, int, int, int]
    """Open, high, low, close."""
    volume: int
    turnover: int
    business: str
    ts_recv: int


@dataclass(slots=True)
class Unreadable:
    """A raw record that could not be decoded; the computation passes over it, the engine
    dead-letters it."""

    offset: int
    key: bytes | None
    value: bytes
    error_class: str
    error_text: str
    headers: tuple[tuple[str, str | bytes | None], ...] = ()
    """The raw record's, which the dead letter keeps."""


SourceRecord = Trade | Book | Kline | BarRevision | Heal | ControlRecord | Unreadable

SOURCES = ("live", "simulated", "replay")
"""What the records of a partition may come from, one of them all of them; `rest` gives klines and
heals beside each."""


def source_of(record: SourceRecord) -> str | None:
    """Return where a record comes from; None for what belongs to any source."""
    if isinstance(record, Trade):  # nearly all are
        return record.source
    if isinstance(record, Book | BarRevision):
        return record.source
    if isinstance(record, ControlRecord):
        return record.control.source
    if isinstance(record, Kline) and record.source != "rest":
        return record.source
    return None


DerivedRecord = (
    ActivityBarRecord
    | BarRecord
    | DepthImbalanceRecord
    | LateTradeRecord
    | ProgressRecord
    | ReconciliationRecord
    | VwapRecord
)

Row = tuple[str, str, DerivedRecord]
"""(topic of the contract, key, record)."""


@dataclass(slots=True)
class Rows:
    """The rows of one call of `apply`, and the source record that causes the next of them."""

    rows: list[Row] = field(default_factory=list)
    offset: int = 0
    ts_recv: int = 0
    """When the source record was received, microseconds."""

    def append(self, topic: str, key: str, record: DerivedRecord) -> None:
        """Add a row."""
        self.rows.append((topic, key, record))


StateChanges = Iterable[tuple[bytes, bytes | None]]
"""State as it stands in the state topic: keys and values; None removes a key."""


class SourcesMixed(Exception):
    """A record of another source than the state was built from: replayed and live data would be
    folded into one."""

    def __init__(self, built_from: str, found: str, partition: int, offset: int | None) -> None:
        where = (
            f"partition {partition}" if offset is None else f"partition {partition} offset {offset}"
        )
        super().__init__(
            f"{where} is of source {found!r}, the state was built from {built_from!r}: give "
            "each source a topic prefix of its own"
        )
        self.built_from = built_from
        self.found = found


StateT = TypeVar("StateT")


class Computation(Protocol, Generic[StateT]):
    """One agent's pure part. The state is that of one source partition; the engine loads, keeps and
    drops it."""

    name: str
    # One with `takes_runs` set to true gets runs of columns beside single records, and may return
    # `kernels.columns.EncodedRows` beside rows. One with `changes` returns there what `dirty` does,
    # and may have `kernels.numbered_pairs.NumberedPairs` among it.

    def load(self, partition: int, entries: Mapping[bytes, bytes]) -> StateT:
        """Return the state of a partition from the state topic's live entries (none for a new
        partition)."""
        ...

    def apply(self, state: StateT, records: Sequence[SourceRecord]) -> list[Row]:
        """Fold records of one partition, in log order, into the state; return the rows to publish,
        in order.

        The rows depend on the log alone: cutting it into other batches gives the same rows.
        """
        ...

    def dirty(self, state: StateT) -> StateChanges:
        """Return what changed since the last call, at most one entry a key, and forget it; asked
        once a transaction, at its end."""
        ...
