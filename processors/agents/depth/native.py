"""The depth agent's state in arrays, and its runs through the kernel; what stops the kernel goes
through `general`."""

from collections.abc import Iterable, Iterator, Mapping, Set

import numpy as np

from processors.agents.depth.general import fold as fold_book
from processors.agents.depth.state import BOOK_KEY, Best, SymbolBook, packed, stored_books
from processors.kernels.books.fold import BEFORE, FOLDED, FULL, ORIGIN, SIDES, fold
from processors.kernels.books.run import BookRun
from processors.kernels.columns import Array, EncodedRows, Tables
from processors.kernels.names import Names, with_room
from processors.kernels.observed import Observed
from processors.model.event_time import EventTime, Feeds
from processors.model.records import Row
from schemas.topics import DEPTH_IMBALANCE

_TYPICAL_ROW = 320
"""Bytes that are set aside for a row."""
_MOST_SIZE = 1 << 125
"""A size before that is not less is Python's: the order flow against it might need more than 127
bits."""
_WORD = (1 << 64) - 1


class NativeDepthState:
    """The state of one partition, as DepthState has it, in arrays by the symbol's slot."""

    def __init__(
        self,
        feeds: Feeds,
        settings: EventTime,
        partition: int,
        entries: Mapping[bytes, bytes],
        swapped: Set[str],
    ) -> None:
        self.feeds = feeds
        self.partition = partition
        self._swapped = swapped
        self._observed = Observed(feeds, settings)
        self._before: Array = np.zeros(64, BEFORE)
        self._large: dict[str, Best] = {}
        """The best of symbols whose numbers the arrays do not hold."""
        self._connections: dict[str, int] = {"": 0}
        self._connection_names = [""]
        self._origins: Array = np.zeros(4, ORIGIN)
        self._known_lanes = 0
        self._sources: dict[str, int] = {}
        self._source_names, self._symbol_names = Names(), Names()
        self._tables: Tables | None = None
        self._sides: Array = np.zeros(SIDES, np.int64)
        for symbol, known, is_old in stored_books(entries):
            self._put(symbol, known, is_old)

    def fold_run(self, run: BookRun, rows: list[Row | EncodedRows]) -> None:
        """Fold a run, and append its rows."""
        observed = self._observed
        self._follow(run.tables)
        books = run.books
        ends = np.empty(len(books), np.int64)
        first = 0
        while first < len(books):
            progress = np.array([first, 0], np.int64)
            values = np.empty((len(books) - first) * _TYPICAL_ROW, np.uint8)
            observed.before()
            while (
                reason := fold(
                    books,
                    run.levels,
                    observed.feeds,
                    observed.feed_of_lane,
                    self._origins,
                    observed.slot_of,
                    self._before,
                    self._symbol_names.packed,
                    self._symbol_names.ends,
                    self._source_names.packed,
                    self._source_names.ends,
                    self._sides,
                    self.partition,
                    values,
                    ends,
                    progress,
                )
            ) == FULL:
                values = np.concatenate((values, np.empty_like(values), np.empty(4096, np.uint8)))
            observed.after()
            stop, used = progress.tolist()
            if stop > first:
                rows.append(_encoded(run, first, stop, ends, values[:used]))
            if reason != FOLDED:
                rows.append(fold_book(self, run.book(stop), self._swapped))
                stop += 1
            first = stop

    def book(self, symbol: str) -> SymbolBook:
        """Return what is remembered of a symbol's books, to be changed and kept."""
        slot = self._observed.slots.get(symbol)
        return SymbolBook() if slot is None else self._get(slot)

    def keep(self, symbol: str, known: SymbolBook) -> None:
        """Remember a symbol's book, after the feeds have observed it."""
        self._put(symbol, known, changed=True)
        self._observed.refresh_lanes()

    def interrupted(self, symbols: Iterable[str]) -> None:
        """After a control record: start the order flow of these symbols again with their next
        books."""
        self._observed.refresh_lanes()
        for symbol in symbols:
            slot = self._observed.slots.get(symbol)
            if slot is None:
                continue
            row = self._before[slot]
            if row["has_best"] or row["general"]:
                self._large.pop(symbol, None)
                row["has_best"] = row["general"] = 0
                row["changed"] = 1

    def dirty(self) -> Iterator[tuple[bytes, bytes | None]]:
        """Yield what changed since the last call, and forget it."""
        yield from self.feeds.dirty()
        changed = self._before["changed"]
        slots = np.flatnonzero(changed).tolist()
        names = self._observed.names
        for slot in sorted(slots, key=names.__getitem__):
            yield BOOK_KEY + names[slot].encode(), packed(self._get(slot))
        changed[:] = 0

    def _get(self, slot: int) -> SymbolBook:
        (
            bid_high, bid_low, bid_size_high, bid_size_low,
            ask_high, ask_low, ask_size_high, ask_size_low,
            connection, bid_negative, ask_negative, has_best, settled, is_reversed, general, _,
        ) = self._before[slot].item()  # fmt: skip
        best: Best | None = None
        if general:
            best = self._large[self._observed.names[slot]]
        elif has_best:
            bid, ask = bid_high << 64 | bid_low, ask_high << 64 | ask_low
            best = (
                -bid if bid_negative else bid,
                bid_size_high << 64 | bid_size_low,
                -ask if ask_negative else ask,
                ask_size_high << 64 | ask_size_low,
            )
        return SymbolBook(
            self._connection_names[connection], bool(settled), bool(is_reversed), best
        )

    def _put(self, symbol: str, known: SymbolBook, changed: bool) -> None:
        slot = self._observed.slot(symbol)
        self._before = with_room(self._before, slot + 1)
        best = known.best or (0, 0, 0, 0)
        bid, bid_size, ask, ask_size = map(abs, best)
        is_large = max(bid_size, ask_size) >= _MOST_SIZE
        if is_large:
            self._large[symbol] = best
            bid = bid_size = ask = ask_size = 0
        else:
            self._large.pop(symbol, None)
        self._before[slot] = (
            bid >> 64, bid & _WORD, bid_size >> 64, bid_size & _WORD,
            ask >> 64, ask & _WORD, ask_size >> 64, ask_size & _WORD,
            self._connection(known.connection), best[0] < 0, best[2] < 0,
            known.best is not None, known.settled, known.reversed, is_large, changed,
        )  # fmt: skip

    def _connection(self, name: str) -> int:
        found = self._connections.get(name)
        if found is None:
            found = self._connections[name] = len(self._connection_names)
            self._connection_names.append(name)
        return found

    def _follow(self, tables: Tables) -> None:
        """Let the indices of the tables be known, those that are new since the last run too."""
        if tables is not self._tables:
            self._tables = tables
            self._symbol_names, self._known_lanes = Names(), 0
        self._symbol_names.add(tables.keys[len(self._symbol_names) :])
        for lane in tables.lanes[self._known_lanes :]:
            self._origins = with_room(self._origins, self._known_lanes + 1)
            if lane.source not in self._sources:
                self._sources[lane.source] = len(self._sources)
                self._source_names.add((lane.source.encode(),))
            self._origins[self._known_lanes] = (
                self._connection(lane.connection),
                self._sources[lane.source],
                lane.business in self._swapped,
                lane.business == "common",
            )
            self._known_lanes += 1
        self._observed.follow(tables)


def _encoded(run: BookRun, first: int, stop: int, ends: Array, values: Array) -> EncodedRows:
    tables = run.tables
    return EncodedRows(
        (DEPTH_IMBALANCE,),
        np.zeros(stop - first, np.int8),
        tables.symbols,
        tables.keys,
        run.books["symbol"][first:stop],
        ends[first:stop],
        values,
    )
