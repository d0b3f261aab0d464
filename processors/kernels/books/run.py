"""Order books as columns: what passes between the data plane and the depth agent's kernel.

A run holds plain books only. Prices of a book are mantissas of one scale, sizes of another: of
`12.3` and `12.30` with scale 2 both are 1230.
"""

from dataclasses import dataclass

import numpy as np

from processors.kernels.columns import MOST_MANTISSA, Array, Lane, Tables, shortest
from processors.model.records import Book, SourceRecord
from schemas.decimals import SCALE

BOOK = np.dtype(
    [
        ("offset", np.int64),
        ("ts_event", np.int64),
        ("ts_recv", np.int64),
        ("first", np.int64),
        ("symbol", np.int32),
        ("lane", np.int32),
        ("a", np.int8),
        ("b", np.int8),
        ("price_scale", np.int8),
        ("size_scale", np.int8),
    ],
    align=True,
)
"""One book: ts_event in ms, ts_recv in us; symbol and lane as indices into the partition's Tables;
where its levels begin, how many of list a come first, and how many of list b follow."""

MOST_LEVELS = 64
"""Levels of a list that a column counts."""
LEVEL_COLUMNS = 2
PRICE, SIZE = 0, 1
"""The columns of a level."""


@dataclass(slots=True)
class BookRun:
    """Plain books of one partition in log order, at least one. No record lies between two of
    them."""

    books: Array
    """Of dtype BOOK."""
    levels: Array
    """int64 of shape (levels, 2): price and size of each level, in the vendor's order."""
    tables: Tables

    def __len__(self) -> int:
        return len(self.books)

    @property
    def first_offset(self) -> int:
        """The offset of the first book."""
        return int(self.books["offset"][0])

    @property
    def last_offset(self) -> int:
        """The offset of the last book."""
        return int(self.books["offset"][-1])

    def since(self, offset: int) -> "BookRun | None":
        """Return the books from an offset on; None if there are none."""
        return self._part(int(np.searchsorted(self.books["offset"], offset)), len(self))

    def before(self, offset: int) -> "BookRun | None":
        """Return the books before an offset; None if there are none."""
        return self._part(0, int(np.searchsorted(self.books["offset"], offset)))

    def _part(self, first: int, after: int) -> "BookRun | None":
        if first >= after:
            return None
        return BookRun(self.books[first:after], self.levels, self.tables)

    def book(self, index: int) -> Book:
        """Return a book as the general path reads it."""
        (
            offset, ts_event, ts_recv, first, symbol, lane, asks, bids, price_scale, size_scale,
        ) = self.books[index].item()  # fmt: skip
        price_unit, size_unit = 10 ** (SCALE - price_scale), 10 ** (SCALE - size_scale)
        levels = [
            (price * price_unit, size * size_unit)
            for price, size in self.levels[first : first + asks + bids].tolist()
        ]
        origin = self.tables.lanes[lane]
        return Book(
            offset,
            self.tables.symbols[symbol],
            ts_event,
            levels[:asks],
            levels[asks:],
            origin.business,
            origin.feed,
            origin.connection,
            ts_recv,
            origin.source,
        )

    def all_books(self) -> list[Book]:
        """Return every book as the general path reads it."""
        return [self.book(index) for index in range(len(self))]

    def all_records(self) -> list[SourceRecord]:
        """Return every record as the general path reads it."""
        return [*self.all_books()]

    @classmethod
    def of(cls, tables: Tables, book: Book) -> "BookRun | None":
        """Return a run of one book; None if it has more levels than a column counts, or numbers of
        more digits than one holds."""
        if max(len(book.a), len(book.b)) > MOST_LEVELS:
            return None
        levels = [*book.a, *book.b]
        price_scale = max((shortest(price)[1] for price, _ in levels), default=0)
        size_scale = max((shortest(size)[1] for _, size in levels), default=0)
        price_unit, size_unit = 10 ** (SCALE - price_scale), 10 ** (SCALE - size_scale)
        plain = [(price // price_unit, size // size_unit) for price, size in levels]
        totals = [
            sum(size for _, size in side if size > 0)
            for side in (plain[: len(book.a)], plain[len(book.a) :])
        ]
        numbers = (abs(number) for level in plain for number in level)
        if max((*numbers, *totals)) > MOST_MANTISSA:
            return None
        row = (
            book.offset, book.ts_event, book.ts_recv, 0,
            tables.symbol(book.symbol),
            tables.lane(Lane(book.business, book.feed, book.connection, book.source)),
            len(book.a), len(book.b), price_scale, size_scale,
        )  # fmt: skip
        rows = np.array(plain, np.int64).reshape(-1, LEVEL_COLUMNS)
        return cls(np.array([row], BOOK), rows, tables)
