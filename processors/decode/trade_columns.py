"""Reads the messages of a raw trade partition into runs of columns; what is not plain is left to
the RawReader, in its place."""

from bisect import bisect_left

import numpy as np

from processors.decode.messages import Messages
from processors.decode.own_schema import OwnSchema, origin_bytes, source_bytes
from processors.decode.raw_records import MOST_TRADE_TYPE, Undecodable, trade_of
from processors.decode.reader import RawReader
from processors.decode.trades import TradeReader
from processors.kernels.avro import trades as decode
from processors.kernels.avro.trades import LANE_FACTS, SESSION, decode_trades
from processors.kernels.columns import TRADE, Array, Lane, Tables, TradeRun
from processors.kernels.name_table import NameTable
from processors.kernels.observed import grown
from schemas.records import RawTradeRecord
from schemas.times import MAX_FUTURE_MS
from schemas.wire import UnreadableValue

assert decode.MOST_TRADE_TYPE == MOST_TRADE_TYPE
_LONGEST_SYMBOL, _LONGEST_LANE = 400, 600
"""Characters: together those that a record may have at most."""


class TradeColumns:
    """Reads one partition while it is assigned; its tables grow with the names that it meets."""

    def __init__(self, reader: RawReader, trades: TradeReader) -> None:
        """`reader` reads what is not plain by `trades`, which counts what is plain and odd too."""
        self._reader = reader
        self._trades = trades
        self.tables = Tables()
        self._own_schema = OwnSchema(reader)
        self._source: str | None = None
        self._source_bytes = np.zeros(0, np.uint8)
        self._symbols = NameTable()
        self._origins = NameTable()
        self._facts: Array = np.zeros(16, LANE_FACTS)
        self._sessions: Array = np.zeros(64 if trades.uses_sessions else 0, SESSION)
        self._businesses: dict[str, int] = {}

    def read(self, messages: Messages, source: str | None) -> list[TradeRun | int]:
        """Return the messages in order: runs of plain trades, and the indices of messages that are
        to be read one by one.

        `source` is what all records come from; nothing is plain before it is known.
        """
        if source is None or not messages:
            return list(range(len(messages)))
        if source != self._source:
            self._source = source
            self._source_bytes = source_bytes(source)
            self._origins = NameTable()
        header, count = self._own_schema.header(messages), len(messages)
        trades, marks, looks = (
            np.empty(count, TRADE),
            np.empty(count, np.uint8),
            np.empty(count, np.uint8),
        )
        while True:
            decode_trades(
                messages.packed,
                messages.ends,
                messages.offsets,
                header,
                self._source_bytes,
                self._symbols.slots,
                self._symbols.bytes,
                self._origins.slots,
                self._origins.bytes,
                self._facts,
                self._sessions,
                MAX_FUTURE_MS,
                trades,
                marks,
                looks,
            )
            if not self._make_all_known(messages, marks):
                break
        self._count(messages, trades, marks, looks)
        return self._pieces(messages, trades, marks)

    def _make_all_known(self, messages: Messages, marks: Array) -> bool:
        """Add the names of all trades that are NEW; return whether any is new."""
        found = False
        tried: set[bytes] = set()
        for row in np.flatnonzero(marks == decode.NEW).tolist():
            value = messages.value(row)
            symbol = value[5 : 6 + (value[5] >> 1)]  # its beginning, if it is a long one
            if symbol not in tried and self._make_known(int(messages.offsets[row]), value):
                tried.add(symbol)
                found = True
        return found

    def _make_known(self, offset: int, value: bytes) -> bool:
        """Add the names of a trade to the tables; return whether any is new."""
        try:
            raw: RawTradeRecord = self._reader.decoded(value)
            trade = trade_of(offset, raw)
        except (Undecodable, UnreadableValue, UnicodeDecodeError):
            return False
        lane = Lane(trade.business, trade.feed, trade.connection, trade.source)
        if (
            trade.source != self._source
            or len(trade.symbol) > _LONGEST_SYMBOL
            or sum(map(len, lane)) > _LONGEST_LANE
        ):
            return False
        symbol, origin = trade.symbol.encode(), origin_bytes(*lane[:3])
        found = symbol not in self._symbols or origin not in self._origins
        index = self.tables.symbol(trade.symbol)
        self._symbols.add(symbol, index)
        if len(self._sessions) and index >= len(self._sessions):
            self._sessions = grown(self._sessions, 2 * index)
        index = self.tables.lane(lane)
        self._origins.add(origin, index)
        if index >= len(self._facts):
            self._facts = grown(self._facts, 2 * index)
        business = self._businesses.setdefault(lane.business, len(self._businesses))
        self._facts[index] = business, lane.business == "common"
        return found

    def _count(self, messages: Messages, trades: Array, marks: Array, looks: Array) -> None:
        """Count of the plain trades what the TradeReader counts of those that it reads."""
        looks[marks != decode.PLAIN] = 0
        counted = self._trades
        counted.turnover_mismatches += int(np.count_nonzero(looks & decode.TURNOVER_DIFFERS))
        for row in np.flatnonzero(looks & decode.LOOK_SESSION).tolist():
            self._count_session(trades[row])
        for row in np.flatnonzero(looks & decode.LOOK_TURNOVER).tolist():
            raw: RawTradeRecord = self._reader.decoded(messages.value(row))
            counted.count_turnover(raw, trade_of(int(messages.offsets[row]), raw))

    def _count_session(self, trade: Array) -> None:
        lane, symbol, event = int(trade["lane"]), int(trade["symbol"]), int(trade["ts_event"])
        known = self._sessions[symbol]
        business = self._facts[lane]["business"]
        if known["begin"] <= event < known["end"] and known["business"] == business:
            return  # counted by a trade of the same batch
        session = self._trades.count_session(
            self.tables.lanes[lane].business, self.tables.symbols[symbol], event
        )
        if session is not None:
            self._sessions[symbol] = session.start, session.end, business

    def _pieces(self, messages: Messages, trades: Array, marks: Array) -> list[TradeRun | int]:
        def trade_type_of(offset: int) -> str | None:
            at = bisect_left(messages.offsets, offset)
            raw: RawTradeRecord = self._reader.decoded(messages.value(at))
            return raw.trade_type

        pieces: list[TradeRun | int] = []
        first = 0
        for odd in [*np.flatnonzero(marks != decode.PLAIN).tolist(), len(messages)]:
            if first < odd:
                pieces.append(TradeRun(trades[first:odd], self.tables, trade_type_of))
            if odd < len(messages):
                pieces.append(odd)
            first = odd + 1
        return pieces
