"""What the bars agent keeps of a partition: bars by symbol, what waits for each feed's event time, their form in the state topic."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

import orjson

from processors.feeds import BEGINNING, Feed, Feeds
from processors.ohlcv import Bar, dump, restore
from processors.records import Row

_SETTINGS_KEY = b"\0bars"
_BAR_KEY = b"bar:"

Entry = tuple[int, int, str, int]
"""(end, place of the interval, symbol, start) of a bar: the order in which bars close."""


class BarSettingsChanged(Exception):
    """The state was built with other settings: its coarse bars would lack what was folded before."""

    def __init__(self, partition: int, built_with: Any, configured: Any) -> None:
        super().__init__(
            f"the bars' state of partition {partition} was built with {built_with}, not {configured}: "
            "set these again, or compute anew under a fresh prefix"
        )
        self.built_with = built_with
        self.configured = configured


@dataclass(slots=True)
class Clock:
    """What waits for a feed's event time."""

    feed: Feed
    boundary: int = BEGINNING
    """Watermark of the next progress record."""
    tick: int = BEGINNING
    """Event time of the next updates."""
    due: int = BEGINNING
    """Event time at which anything is to be done."""
    open: list[Entry] = field(default_factory=list)
    """Heap of open bars; entries of bars that are closed or another feed's by now are passed over."""
    closed: list[Entry] = field(default_factory=list)
    """Heap of closed bars, likewise."""


@dataclass(slots=True)
class SymbolBars:
    """The bars of a symbol, open and closed."""

    clock: Clock
    current: dict[int, Bar]
    """Per root interval the bar that trades go into: open and not folded, or NO_BAR."""
    bars: dict[tuple[int, int], Bar] = field(default_factory=dict)
    """By place of the interval and start."""

    def matching(self, closed: bool) -> list[Bar]:
        """Return the closed or the open bars in the order in which bars close."""
        return sorted(
            (bar for bar in self.bars.values() if bar.closed == closed),
            key=lambda bar: (bar.end, bar.place),
        )


NO_BAR = Bar(0, "", 0, 0)
"""Takes no trade: its interval is empty."""


class BarsState:
    """The bars of one partition, and the record at hand."""

    def __init__(
        self,
        partition: int,
        feeds: Feeds,
        intervals: Sequence[str],
        roots: Sequence[int],
        entries: Mapping[bytes, bytes],
    ) -> None:
        """Restore what `dirty` yielded; `roots` are the places of the intervals that take each trade. Raises BarSettingsChanged."""
        self.partition = partition
        self.feeds = feeds
        self.symbols: dict[str, SymbolBars] = {}
        self.rows: list[Row] = []
        self.offset = 0
        self.ts_recv = 0
        self._intervals = intervals
        self._roots = roots
        self._settings = {"intervals": list(intervals), "roots": list(roots)}
        self._settings_written = False
        self._changed: dict[tuple[int, str, int], Bar | None] = {}
        self.clocks: dict[str, Clock] = {}
        self._load(entries)

    def of(self, symbol: str) -> SymbolBars:
        """Return the bars of a symbol that the feeds know."""
        found = self.symbols.get(symbol)
        if found is None:
            clock = self.clock(self.feeds.feed_of(symbol))
            found = self.symbols[symbol] = SymbolBars(clock, dict.fromkeys(self._roots, NO_BAR))
        return found

    def clock(self, feed: Feed) -> Clock:
        """Return the clock of a feed; a new one is due at once."""
        clock = self.clocks.get(feed.name)
        if clock is None:
            clock = self.clocks[feed.name] = Clock(feed)
        return clock

    def schedule(self, clock: Clock, bar: Bar, longer: int = 0) -> None:
        """Let the bar wait for the feed's event time: to close, or to be dropped, `longer` milliseconds after its end."""
        heappush(
            clock.closed if bar.closed else clock.open,
            (bar.end + longer, bar.place, bar.symbol, bar.start),
        )

    def pop(self, clock: Clock, closed: bool, until: int) -> Iterator[Bar]:
        """Take the open or closed bars that end at or before `until` off the clock, those that join meanwhile included."""
        heap = clock.closed if closed else clock.open
        while heap and heap[0][0] <= until:
            bar = self._scheduled(clock, heappop(heap))
            if bar is not None and bar.closed == closed:
                yield bar

    def open_bars(self, clock: Clock) -> Iterator[Bar]:
        """Yield the open bars of a clock in the order in which they close."""
        for entry in sorted(set(clock.open)):
            bar = self._scheduled(clock, entry)
            if bar is not None and not bar.closed:
                yield bar

    def touch(self, bar: Bar) -> None:
        """Have the bar written with the batch."""
        bar.dirty = True
        self._changed[bar.place, bar.symbol, bar.start] = bar

    def drop(self, bar: Bar) -> None:
        """Forget a bar."""
        del self.symbols[bar.symbol].bars[bar.place, bar.start]
        self._changed[bar.place, bar.symbol, bar.start] = None

    def dirty(self) -> Iterator[tuple[bytes, bytes | None]]:
        """Yield the keys that changed since the last call: the settings once, the feeds', one a bar."""
        if not self._settings_written:
            yield _SETTINGS_KEY, orjson.dumps(self._settings)
            self._settings_written = True
        yield from self.feeds.dirty()
        for (place, symbol, start), bar in self._changed.items():
            key = b"%b%b:%d:%b" % (
                _BAR_KEY,
                self._intervals[place].encode(),
                start,
                symbol.encode(),
            )
            if bar is None:
                yield key, None
            else:
                bar.dirty = False
                yield key, dump(bar)
        self._changed.clear()

    def _load(self, entries: Mapping[bytes, bytes]) -> None:
        stored = entries.get(_SETTINGS_KEY)
        if stored is not None:
            if orjson.loads(stored) != self._settings:
                raise BarSettingsChanged(self.partition, orjson.loads(stored), self._settings)
            self._settings_written = True
        for name in self.feeds.names():
            self.clock(self.feeds.feed(name))
        for key, value in entries.items():
            if key.startswith(_BAR_KEY):
                _, name, start, symbol = key.decode().split(":", 3)
                bar = restore(self._intervals.index(name), symbol, int(start), value)
                symbol_bars = self.of(symbol)
                symbol_bars.bars[bar.place, bar.start] = bar
                self.schedule(symbol_bars.clock, bar)

    def _scheduled(self, clock: Clock, entry: Entry) -> Bar | None:
        _, place, symbol, start = entry
        symbol_bars = self.symbols[symbol]
        return symbol_bars.bars.get((place, start)) if symbol_bars.clock is clock else None
