"""Reads the messages of a raw depth partition into runs of columns; what is not plain is left to
the RawReader, in its place."""

import numpy as np

from processors.decode.messages import Messages
from processors.decode.own_schema import OwnSchema, origin_bytes, source_bytes
from processors.decode.raw_records import Undecodable, book_of
from processors.decode.reader import RawReader
from processors.kernels.avro.books import decode_books
from processors.kernels.avro.trades import NEW, PLAIN
from processors.kernels.books.run import BOOK, LEVEL_COLUMNS, BookRun
from processors.kernels.columns import Array, Lane, Tables
from processors.kernels.name_table import NameTable
from schemas.records import RawDepthRecord
from schemas.times import MAX_FUTURE_MS
from schemas.wire import UnreadableValue


class BookColumns:
    """Reads one partition while it is assigned; its tables grow with the names that it meets."""

    def __init__(self, reader: RawReader) -> None:
        """`reader` reads what is not plain."""
        self._reader = reader
        self.tables = Tables()
        self._own_schema = OwnSchema(reader)
        self._source: str | None = None
        self._symbols, self._origins = NameTable(), NameTable()

    def read(self, messages: Messages, source: str | None) -> list[BookRun | int]:
        """Return the messages in order: runs of plain books, and the indices of messages that are
        to be read one by one.

        `source` is what all records come from; nothing is plain before it is known. A plain book
        has at most 64 levels a list, numbers of at most 18 digits at the book's scales, and sizes
        of a list that sum to as many.
        """
        if source is None or not messages:
            return list(range(len(messages)))
        if source != self._source:
            self._source = source
            self._origins = NameTable()
        header, count = self._own_schema.header(messages), len(messages)
        books, marks = np.zeros(count, BOOK), np.empty(count, np.uint8)
        books["offset"] = messages.offsets
        # a level takes four bytes at least: two lengths and two digits
        levels = np.empty((len(messages.packed) // 4 + 1, LEVEL_COLUMNS), np.int64)
        while True:
            used = decode_books(
                messages.packed,
                messages.ends,
                header,
                source_bytes(source),
                self._symbols.slots,
                self._symbols.bytes,
                self._origins.slots,
                self._origins.bytes,
                MAX_FUTURE_MS,
                books,
                levels,
                marks,
            )
            if not self._make_all_known(messages, marks):
                break
        return self._pieces(books, levels[:used].copy(), marks)

    def _make_all_known(self, messages: Messages, marks: Array) -> bool:
        """Add the names of all books that are NEW; return whether any is new."""
        new = np.flatnonzero(marks == NEW).tolist()
        found = [self._make_known(messages.value(row)) for row in new]
        return any(found)

    def _make_known(self, value: bytes) -> bool:
        """Add the names of a book to the tables; return whether any is new."""
        try:
            raw: RawDepthRecord = self._reader.decoded(value)
            book_of(0, raw)
        except (Undecodable, UnreadableValue):
            return False
        symbol = raw.symbol.encode()
        origin = origin_bytes(raw.business, raw.feed, raw.connection)
        if symbol in self._symbols and origin in self._origins:
            return False
        self._symbols.add(symbol, self.tables.symbol(raw.symbol))
        lane = Lane(raw.business, raw.feed, raw.connection, raw.source)
        self._origins.add(origin, self.tables.lane(lane))
        return True

    def _pieces(self, books: Array, levels: Array, marks: Array) -> list[BookRun | int]:
        pieces: list[BookRun | int] = []
        first = 0
        for odd in [*np.flatnonzero(marks != PLAIN).tolist(), len(books)]:
            if first < odd:
                pieces.append(BookRun(books[first:odd], levels, self.tables))
            if odd < len(books):
                pieces.append(odd)
            first = odd + 1
        return pieces
