"""Depth imbalance: one row per order book, with the spread, the mids and the order-flow imbalance; no trades, no time windows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from processors.feeds import EventTime, Feeds
from processors.records import Book, ControlRecord, Entries, Record, Row
from schemas.decimals import divide_half_even

TOPIC = "infoway.depth.imbalance"

Level = tuple[int, int]
"""(price, size) in units of 10^-18."""

Best = tuple[int, int, int, int]
"""Best bid, its size, best ask, its size."""

_BOOK_KEY = b"book:"
_CERTAIN = 3
"""Evidence that turns the sides around: one book whose order confirms it, or three that only hint at it, more than against it."""
_WEIGHTS = tuple(2520 // level for level in range(1, 11))
"""1/i for the i-th of ten levels, in units of 1/2520, the least common multiple of 1..10: weighted sums stay whole."""


@dataclass(slots=True)
class SymbolBook:
    """What is remembered of a symbol's books."""

    connection: str = ""
    evidence: int = 0
    """How clearly the connection's books showed list a as the asks (positive) or as the bids (negative)."""
    reversed: bool = False
    """Whether list a is read as the bids."""
    best: Best | None = None
    """Top of the book before; None where order flow must not be measured from it."""


class Depths:
    """The state of one partition: its feeds and each symbol's book before."""

    def __init__(self, feeds: Feeds, partition: int, entries: Mapping[bytes, bytes]) -> None:
        self.feeds = feeds
        self.partition = partition
        self.books: dict[str, SymbolBook] = {}
        self.changed: set[str] = set()
        for key, value in entries.items():
            if key.startswith(_BOOK_KEY):
                connection, evidence, is_reversed, best = orjson.loads(value)
                known = (
                    None
                    if best is None
                    else (int(best[0]), int(best[1]), int(best[2]), int(best[3]))
                )
                self.books[key.removeprefix(_BOOK_KEY).decode()] = SymbolBook(
                    connection, evidence, is_reversed, known
                )

    def forget_best(self, symbols: Sequence[str]) -> None:
        """Let the order flow of these symbols start anew."""
        for symbol in symbols:
            known = self.books.get(symbol)
            if known is not None and known.best is not None:
                known.best = None
                self.changed.add(symbol)


class Imbalance:
    """The agent `imbalance`: rows of `infoway.depth.imbalance`."""

    name = "imbalance"

    def __init__(self, event_time: EventTime) -> None:
        self._event_time = event_time

    def load(self, partition: int, entries: Mapping[bytes, bytes]) -> Depths:
        """Return the state of a partition from the live entries of the state topic."""
        return Depths(Feeds(self._event_time, partition, 0, entries), partition, entries)

    def apply(self, state: Depths, records: Sequence[Record]) -> list[Row]:
        """Fold records in log order; return a row per book."""
        rows: list[Row] = []
        for record in records:
            if isinstance(record, Book):
                rows.append(self._row(state, record))
            elif isinstance(record, ControlRecord):
                state.forget_best(state.feeds.control(record))
        return rows

    def dirty(self, state: Depths) -> Entries:
        """Yield what changed since the last call, and forget it."""
        yield from state.feeds.dirty()
        for symbol in sorted(state.changed):
            known = state.books[symbol]
            best = None if known.best is None else [str(units) for units in known.best]
            yield (
                _BOOK_KEY + symbol.encode(),
                orjson.dumps([known.connection, known.evidence, known.reversed, best]),
            )
        state.changed.clear()

    def _row(self, state: Depths, book: Book) -> Row:
        state.feeds.observe(book)
        known = state.books.get(book.symbol)
        if known is None:
            known = state.books[book.symbol] = SymbolBook()
        if known.connection != book.connection:
            known.connection, known.evidence, known.reversed = book.connection, 0, False
        bids, asks = sides(book, known)
        best = (*bids[0], *asks[0]) if bids and asks else None
        ofi = (
            order_flow_imbalance(known.best, best)
            if known.best is not None and best is not None
            else None
        )
        known.best = best
        state.changed.add(book.symbol)
        figures = book_figures(bids, asks)
        origin = (book.source, book.ts_recv, state.partition, book.offset)
        fields = (
            book.symbol,
            book.ts_event,
            *figures,
            ofi,
            len(bids),
            len(asks),
            book_state(bids, asks),
            *origin,
        )
        return TOPIC, book.symbol, fields


def sides(book: Book, known: SymbolBook) -> tuple[list[Level], list[Level]]:
    """Return the cleaned bids, best first, and asks, best first, counting the book as evidence for which list is which.

    The vendor's list a holds the asks unless the connection's books say otherwise. A book speaks where one list lies
    wholly above the other: with 3 if each list also runs away from the other (asks up, bids down), as every real book of
    two levels and more does; with 1 if the lists are too short or too disordered to tell; not at all if they run into each
    other, as in a crossed book read with its sides right. So no single crossed book turns the sides around: they stay as they are
    until the evidence is _CERTAIN of the other way.
    """
    a = clean(book.a, book.business)
    b = clean(book.b, book.business)
    up_a, up_b = sorted(a), sorted(b)
    if a and b:
        if up_a[0][0] > up_b[-1][0]:
            known.evidence += _weight(a, up_a, b, up_b)
        elif up_a[-1][0] < up_b[0][0]:
            known.evidence -= _weight(b, up_b, a, up_a)
    if abs(known.evidence) >= _CERTAIN:
        known.reversed = known.evidence < 0
    ascending, descending = (up_b, up_a) if known.reversed else (up_a, up_b)
    descending.reverse()
    return merged(descending), merged(ascending)


def clean(levels: list[Level], business: str) -> list[Level]:
    """Return the levels that are there: size above 0, and price above 0 but for `common`, where prices below 0 are real."""
    if business == "common":
        return [level for level in levels if level[1] > 0]
    return [level for level in levels if level[1] > 0 and level[0] > 0]


def merged(levels: list[Level]) -> list[Level]:
    """Return sorted levels with the sizes of equal prices summed."""
    sizes: dict[int, int] = {}
    for price, size in levels:
        sizes[price] = sizes.get(price, 0) + size
    return levels if len(sizes) == len(levels) else list(sizes.items())


def book_state(bids: list[Level], asks: list[Level]) -> str:
    """Return normal, one_sided, locked (best bid = best ask), crossed (best bid > best ask) or empty."""
    if not bids or not asks:
        return "one_sided" if bids or asks else "empty"
    spread = asks[0][0] - bids[0][0]
    return "normal" if spread > 0 else "locked" if spread == 0 else "crossed"


def book_figures(bids: list[Level], asks: list[Level]) -> tuple[Any, ...]:
    """Return the row's fields from best_bid to ask_volume_10, of a book in whatever state.

    With a side empty its best and all that needs both sides is None, its volumes are 0. A locked or crossed book goes by
    the same formulas as any: its spread is 0 or negative.
    """
    bid_5, ask_5 = _volume(bids, 5), _volume(asks, 5)
    bid_10, ask_10 = _volume(bids, 10), _volume(asks, 10)
    volumes = (bid_5, ask_5, bid_10, ask_10)
    if not bids or not asks:
        best_bid, best_ask = bids[0] if bids else (None, None), asks[0] if asks else (None, None)
        return (*best_bid, *best_ask, None, None, None, None, None, None, None, *volumes)
    (bid, bid_size), (ask, ask_size) = bids[0], asks[0]
    return (
        bid,
        bid_size,
        ask,
        ask_size,
        ask - bid,
        divide_half_even(bid + ask, 2),
        divide_half_even(bid * ask_size + ask * bid_size, bid_size + ask_size),
        imbalance(bid_size, ask_size),
        imbalance(bid_5, ask_5),
        imbalance(bid_10, ask_10),
        imbalance(_weighted(bids), _weighted(asks)),
        *volumes,
    )


def imbalance(bid: int, ask: int) -> float:
    """Return (bid - ask) / (bid + ask) in [-1, 1], the nearest double to the exact quotient (int / int rounds once)."""
    return (bid - ask) / (bid + ask)


def order_flow_imbalance(before: Best, now: Best) -> int:
    """Return the order-flow imbalance between two books: Cont, Kukanov, Stoikov 2014, eq. 4, sizes in units of 10^-18.

    What the best bid's queue gained, less what the best ask's queue gained; a best price that improves counts its whole
    queue, one that retreats the whole queue before.
    """
    bid_0, bid_size_0, ask_0, ask_size_0 = before
    bid, bid_size, ask, ask_size = now
    flow = 0
    if bid >= bid_0:
        flow += bid_size
    if bid <= bid_0:
        flow -= bid_size_0
    if ask <= ask_0:
        flow -= ask_size
    if ask >= ask_0:
        flow += ask_size_0
    return flow


def _weight(high: list[Level], up_high: list[Level], low: list[Level], up_low: list[Level]) -> int:
    if len(high) + len(low) == 2:
        return 1
    if high == up_high and low == up_low[::-1]:
        return _CERTAIN
    return 0 if high == up_high[::-1] and low == up_low else 1


def _volume(levels: list[Level], depth: int) -> int:
    return sum([size for _, size in levels[:depth]])


def _weighted(levels: list[Level]) -> int:
    return sum([weight * size for weight, (_, size) in zip(_WEIGHTS, levels, strict=False)])
