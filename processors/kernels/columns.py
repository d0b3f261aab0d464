"""Trades as columns, and encoded rows: what passes between the data plane, the kernels and the
engine.

A run holds plain trades only. Numbers are mantissas with a scale: `12.30` is 1230 with scale 2.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from processors.model.records import SourceRecord, Trade
from schemas.decimals import SCALE

TRADE = np.dtype(
    [
        ("offset", np.int64),
        ("ts_event", np.int64),
        ("ts_recv", np.int64),
        ("price", np.int64),
        ("volume", np.int64),
        ("symbol", np.int32),
        ("lane", np.int32),
        ("price_scale", np.int8),
        ("volume_scale", np.int8),
        ("direction", np.int8),
        ("repeat", np.int8),
    ],
    align=True,
)
"""One trade: ts_event in ms, ts_recv in us; price and volume as mantissas of at most 18 digits;
symbol and lane as indices into the partition's Tables."""

MOST_MANTISSA = 10**18 - 1
"""The greatest mantissa of a number in a column."""

Array = npt.NDArray[Any]

Record = Any
"""One record of an array with fields, which it points to."""


class Lane(NamedTuple):
    """What names the origin of a record; records of one connection share it."""

    business: str
    feed: str
    connection: str
    source: str


class Tables:
    """The symbols and lanes of one source partition while it is assigned; both only grow.

    The data plane and all agents of the partition share them.
    """

    def __init__(self) -> None:
        self.symbols: list[str] = []
        self.keys: list[bytes] = []
        """The symbols as keys of Kafka records."""
        self.lanes: list[Lane] = []
        # the thread that reads messages and the agents make entries
        self._making = threading.Lock()
        self._symbol_index: dict[str, int] = {}
        self._lane_index: dict[Lane, int] = {}

    def symbol(self, name: str) -> int:
        """Return the index of a symbol, made if there is none."""
        index = self._symbol_index.get(name)
        if index is None:
            with self._making:
                index = self._symbol_index.get(name, len(self.symbols))
                if index == len(self.symbols):
                    self.keys.append(name.encode())
                    self.symbols.append(name)
                    self._symbol_index[name] = index
        return index

    def lane(self, lane: Lane) -> int:
        """Return the index of a lane, made if there is none."""
        index = self._lane_index.get(lane)
        if index is None:
            with self._making:
                index = self._lane_index.get(lane, len(self.lanes))
                if index == len(self.lanes):
                    self.lanes.append(lane)
                    self._lane_index[lane] = index
        return index


@dataclass(slots=True)
class TradeRun:
    """Plain trades of one partition in log order, at least one. No record lies between two of
    them."""

    trades: Array
    """Of dtype TRADE."""
    tables: Tables
    trade_type_of: Callable[[int], str | None] = lambda offset: None
    """Returns the trade type of the trade at an offset of the run."""

    def __len__(self) -> int:
        return len(self.trades)

    @property
    def first_offset(self) -> int:
        """The offset of the first trade."""
        return int(self.trades["offset"][0])

    @property
    def last_offset(self) -> int:
        """The offset of the last trade."""
        return int(self.trades["offset"][-1])

    def since(self, offset: int) -> "TradeRun | None":
        """Return the trades from an offset on; None if there are none."""
        return self._part(int(np.searchsorted(self.trades["offset"], offset)), len(self))

    def before(self, offset: int) -> "TradeRun | None":
        """Return the trades before an offset; None if there are none."""
        return self._part(0, int(np.searchsorted(self.trades["offset"], offset)))

    def _part(self, first: int, after: int) -> "TradeRun | None":
        if first >= after:
            return None
        return TradeRun(self.trades[first:after], self.tables, self.trade_type_of)

    def trade(self, index: int) -> Trade:
        """Return a trade as the general path reads it."""
        (
            offset, ts_event, ts_recv, price, volume, symbol, lane, price_scale, volume_scale,
            direction, repeat,
        ) = self.trades[index].item()  # fmt: skip
        origin = self.tables.lanes[lane]
        return Trade(
            offset,
            self.tables.symbols[symbol],
            ts_event,
            price * 10 ** (SCALE - price_scale),
            volume * 10 ** (SCALE - volume_scale),
            direction,
            self.trade_type_of(offset),
            bool(repeat),
            origin.business,
            origin.feed,
            origin.connection,
            ts_recv,
            origin.source,
        )

    def all_trades(self) -> list[Trade]:
        """Return every trade as the general path reads it."""
        return [self.trade(index) for index in range(len(self))]

    def all_records(self) -> list[SourceRecord]:
        """Return every record as the general path reads it."""
        return [*self.all_trades()]

    @classmethod
    def of(cls, tables: Tables, trade: Trade) -> "TradeRun | None":
        """Return a run of one trade; None if a number of it has more digits than a column holds."""
        price, price_scale = shortest(trade.price)
        volume, volume_scale = shortest(trade.volume)
        if max(abs(price), volume) > MOST_MANTISSA:
            return None
        row = (
            trade.offset, trade.ts_event, trade.ts_recv, price, volume,
            tables.symbol(trade.symbol),
            tables.lane(Lane(trade.business, trade.feed, trade.connection, trade.source)),
            price_scale, volume_scale, trade.direction, trade.repeat,
        )  # fmt: skip
        trade_type = trade.trade_type
        return cls(np.array([row], TRADE), tables, lambda offset: trade_type)


def shortest(units: int) -> tuple[int, int]:
    """Return a number in units of 10^-18 as a mantissa and the least scale that holds it."""
    scale = SCALE
    while scale and units % 10 == 0:
        units //= 10
        scale -= 1
    return units, scale


@dataclass(slots=True)
class EncodedRows:
    """Rows that a kernel has encoded, in order; they stand beside plain rows in what `apply`
    returns."""

    topics: Sequence[str]
    """Names in the contract."""
    topic: Array
    """Per row the index of its topic, int8."""
    symbols: Sequence[str]
    keys: Sequence[bytes]
    symbol: Array
    """Per row the index of its key, int32."""
    ends: Array
    """Per row where its value ends in `values`, int64."""
    values: Array
    """Bytes, uint8. Each value begins with HEADER bytes, which the engine fills with the wire
    format's header of its topic."""

    def __len__(self) -> int:
        return len(self.ends)

    def bodies(self) -> list[tuple[str, str, bytes]]:
        """Return (topic of the contract, symbol, Avro body) of each row, for tests."""
        found, start = [], 0
        packed = self.values.tobytes()
        for topic, symbol, end in zip(
            self.topic.tolist(), self.symbol.tolist(), self.ends.tolist(), strict=True
        ):
            found.append((self.topics[topic], self.symbols[symbol], packed[start + HEADER : end]))
            start = end
        return found


HEADER = 5
"""Bytes of the wire format's header: magic and schema id."""
