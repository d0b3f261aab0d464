"""Reads the messages of a bar topic's partition into runs of columns; what is not plain is left to
the RawReader, in its place."""

import numpy as np

from processors.decode.messages import Messages
from processors.decode.own_schema import OwnSchema, source_bytes
from processors.decode.raw_records import Undecodable, bar_revision_of
from processors.decode.reader import RawReader
from processors.kernels.avro.closed_bars import CLOSED_BAR, NEW, PLAIN, decode_closed_bars
from processors.kernels.columns import Array, Tables
from processors.kernels.name_table import NameTable
from processors.kernels.waiting.run import BarRun
from schemas.records import BarRecord
from schemas.wire import UnreadableValue

_TRADES = source_bytes("trades")


class BarColumns:
    """Reads one partition while it is assigned; its tables grow with the names that it meets."""

    def __init__(self, reader: RawReader, interval: str) -> None:
        """`reader` reads what is not plain."""
        self._reader = reader
        self._interval, self._interval_bytes = interval, source_bytes(interval)
        self.tables = Tables()
        self._own_schema = OwnSchema(reader)
        self._symbols = NameTable()

    def read(self, messages: Messages, source: str | None) -> list[BarRun | int]:
        """Return the messages in order: runs of plain records, and the indices of messages that are
        to be read one by one.

        `source` is what all records come from; nothing is plain before it is known.
        """
        if source is None or not messages:
            return list(range(len(messages)))
        header, count = self._own_schema.header(messages), len(messages)
        bars, marks = np.zeros(count, CLOSED_BAR), np.empty(count, np.uint8)
        short = np.empty(len(messages.packed), np.uint8)
        while True:
            used = decode_closed_bars(
                messages.packed, messages.ends, messages.offsets, header, self._interval_bytes,
                source_bytes(source), _TRADES, self._symbols.slots, self._symbols.bytes, bars,
                short, marks,
            )  # fmt: skip
            if not self._make_all_known(messages, marks):
                break
        return self._pieces(bars, short[:used].copy(), marks, source)

    def _make_all_known(self, messages: Messages, marks: Array) -> bool:
        """Add the symbols of all records that are NEW; return whether any is new."""
        found = False
        tried: set[bytes] = set()
        for row in np.flatnonzero(marks == NEW).tolist():
            value = messages.value(row)
            name = value[5 : 6 + (value[5] >> 1)]  # its beginning, if it is a long one
            if name not in tried and self._make_known(value):
                tried.add(name)
                found = True
        return found

    def _make_known(self, value: bytes) -> bool:
        try:
            record: BarRecord = self._reader.decoded(value)
            bar_revision_of(0, record, self._interval)
        except (Undecodable, UnreadableValue, UnicodeDecodeError):
            return False
        symbol = record.symbol.encode()
        if symbol in self._symbols:
            return False
        self._symbols.add(symbol, self.tables.symbol(record.symbol))
        return True

    def _pieces(self, bars: Array, short: Array, marks: Array, source: str) -> list[BarRun | int]:
        pieces: list[BarRun | int] = []
        first = 0
        for odd in [*np.flatnonzero(marks != PLAIN).tolist(), len(bars)]:
            if first < odd:
                pieces.append(BarRun(bars[first:odd], short, self.tables, self._interval, source))
            if odd < len(bars):
                pieces.append(odd)
            first = odd + 1
        return pieces
