"""From any book to its row, in Python's integers: for books that are not plain, and the reference
for the kernel."""

from collections.abc import Set
from dataclasses import replace
from typing import Protocol

from processors.agents.depth.figures import (
    book_figures,
    book_state,
    order_flow_imbalance,
    sides,
)
from processors.agents.depth.state import SymbolBook
from processors.model.event_time import Feeds
from processors.model.records import Book, Row
from schemas.records import DepthImbalanceRecord
from schemas.topics import DEPTH_IMBALANCE


class Books(Protocol):
    """The state of a partition, as far as a book needs it."""

    feeds: Feeds
    partition: int

    def book(self, symbol: str) -> SymbolBook:
        """Return what is remembered of a symbol's books, to be changed and kept."""

    def keep(self, symbol: str, known: SymbolBook) -> None:
        """Remember a symbol's book."""


def fold(state: Books, book: Book, swapped: Set[str]) -> Row:
    """Take a book into the state and return its row; `swapped` names the businesses whose list a
    holds the bids. Raises SourcesMixed."""
    state.feeds.observe(book)
    known = state.book(book.symbol)
    if known.connection != book.connection:
        known.connection, known.settled, known.reversed = book.connection, False, False
    if book.business in swapped:
        book = replace(book, a=book.b, b=book.a)
    bids, asks = sides(book, known)
    best = (*bids[0], *asks[0]) if bids and asks else None
    ofi = (
        order_flow_imbalance(known.best, best)
        if known.best is not None and best is not None
        else None
    )
    known.best = best
    state.keep(book.symbol, known)
    record = DepthImbalanceRecord(
        book.symbol,
        book.ts_event,
        *book_figures(bids, asks),
        ofi,
        len(bids),
        len(asks),
        book_state(bids, asks),
        book.source,
        book.ts_recv,
        state.partition,
        book.offset,
    )
    return DEPTH_IMBALANCE, book.symbol, record
