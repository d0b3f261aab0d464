"""Bars of a bar topic as columns: what passes between the data plane and the reconciliation
agent."""

from dataclasses import dataclass
from typing import cast

import numpy as np

from processors.kernels.avro.closed_bars import CLOSED_BAR
from processors.kernels.columns import Array, Tables
from processors.model.records import BarRevision, SourceRecord
from schemas.topics import load_schema
from schemas.wire import Fields, compile_decoder, compile_encoder

_HEADER = bytes(5)
_NAMES = (
    "symbol", "ts_start", "ts_end", "open", "high", "low", "close", "volume", "turnover",
    "revision", "completeness", "ts_recv",
)  # fmt: skip
_types = {field["name"]: field["type"] for field in load_schema("bar")["fields"]}
SHORT_FORM = {"fields": [{"name": name, "type": _types[name]} for name in _NAMES]}
"""What is kept of a closed bar, as an Avro record."""
_encode, _decode = compile_encoder(SHORT_FORM, 0), compile_decoder(SHORT_FORM)


@dataclass(slots=True)
class BarRun:
    """Records of one bar topic and partition in log order, at least one. No record lies between two
    of them."""

    bars: Array
    """Of dtype CLOSED_BAR."""
    short: Array
    """The short forms, uint8."""
    tables: Tables
    interval: str
    source: str

    def __len__(self) -> int:
        return len(self.bars)

    @property
    def first_offset(self) -> int:
        """The offset of the first record."""
        return int(self.bars["offset"][0])

    @property
    def last_offset(self) -> int:
        """The offset of the last record."""
        return int(self.bars["offset"][-1])

    def since(self, offset: int) -> "BarRun | None":
        """Return the records from an offset on; None if there are none."""
        return self._part(int(np.searchsorted(self.bars["offset"], offset)), len(self))

    def before(self, offset: int) -> "BarRun | None":
        """Return the records before an offset; None if there are none."""
        return self._part(0, int(np.searchsorted(self.bars["offset"], offset)))

    def _part(self, first: int, after: int) -> "BarRun | None":
        if first >= after:
            return None
        return BarRun(self.bars[first:after], self.short, self.tables, self.interval, self.source)

    def record(self, index: int) -> BarRevision:
        """Return a record as the general path reads it; of one that does not count the figures are
        0."""
        bar = self.bars[index]
        symbol, offset = self.tables.symbols[int(bar["symbol"])], int(bar["offset"])
        if not bar["counts"]:
            times = int(bar["ts_start"]), int(bar["ts_end"])
            return BarRevision(
                offset, symbol, self.interval, *times, (0, 0, 0, 0), 0, 0, 0, False, "",
                self.source, 0,
            )  # fmt: skip
        short = self.short[int(bar["first"]) : int(bar["after"])].tobytes()
        return bar_of(_decode(_HEADER + short), offset, self.interval, self.source)

    def all_records(self) -> list[SourceRecord]:
        """Return every record as the general path reads it."""
        return [self.record(index) for index in range(len(self))]

    @classmethod
    def of(cls, tables: Tables, bar: BarRevision) -> "BarRun":
        """Return a run of one closed bar that is made of trades alone."""
        short = _encode(
            bar.symbol, bar.ts_start, bar.ts_end, *bar.prices, bar.volume, bar.turnover,
            bar.revision, bar.completeness, bar.ts_recv,
        )[len(_HEADER) :]  # fmt: skip
        symbol = tables.symbol(bar.symbol)
        row = (bar.offset, bar.ts_start, bar.ts_end, 0, len(short), symbol, 1)
        return cls(
            np.array([row], CLOSED_BAR), np.frombuffer(short, np.uint8), tables, bar.interval,
            bar.source,
        )  # fmt: skip


def bar_of(found: Fields, offset: int, interval: str, source: str) -> BarRevision:
    """Return the bar of a short form that was read."""
    return BarRevision(
        offset,
        cast(str, found["symbol"]),
        interval,
        found["ts_start"],
        found["ts_end"],
        (found["open"], found["high"], found["low"], found["close"]),
        found["volume"],
        found["turnover"],
        found["revision"],
        True,
        found["completeness"],
        source,
        found["ts_recv"],
    )
