"""What the bars agent keeps of a partition: bars by symbol, what waits for each feed's event time,
their form in the state topic."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any, Protocol

import orjson

from processors.agents.bars.figures import TimeBar, dump, restore
from processors.agents.bars.published import BarNumbers, Published
from processors.kernels.columns import TradeRun
from processors.kernels.numbered_pairs import NumberedPairs
from processors.model.begun_sessions import BegunSessions
from processors.model.event_time import Feeds
from processors.model.observation import BEGINNING, FOREVER, FeedState
from processors.model.records import ControlRecord, Heal, Rows, Trade
from schemas.errors import InfowayError

_SETTINGS_KEY = b"\0bars"
_BAR_KEY = b"bar:"
_PUBLISHED_KEY = b"published:"

ClosingKey = tuple[int, int, str, int]
"""(end, level of the interval, symbol, start) of a bar: the order in which bars close."""


class BarSettingsChanged(InfowayError):
    """The state was built with other settings: its coarse bars would lack what was folded
    before."""

    def __init__(self, partition: int, built_with: Any, configured: Any) -> None:
        super().__init__(
            f"the bars' state of partition {partition} was built with {built_with}, not "
            f"{configured}: "
            "set these again, or compute anew under a fresh prefix"
        )
        self.built_with = built_with
        self.configured = configured


@dataclass(slots=True)
class BarTimers:
    """What waits for a feed's event time."""

    feed: FeedState
    boundary: int = BEGINNING
    """Watermark of the next progress record."""
    tick: int = BEGINNING
    """Event time of the next updates."""
    due: int = BEGINNING
    """Event time at which anything is to be done."""
    open: list[ClosingKey] = field(default_factory=list)
    """Heap of open bars; entries of bars that are closed or another feed's by now are passed
    over."""
    closed: list[ClosingKey] = field(default_factory=list)
    """Heap of closed bars, likewise."""


@dataclass(slots=True)
class SymbolBars:
    """The bars of a symbol, open and closed."""

    timers: BarTimers
    current: dict[int, TimeBar]
    """Per root interval the bar that trades go into: open and not folded, or NO_BAR."""
    published: Published
    """The bars that were published and are no longer among `bars`, for as long as a heal can reach
    them."""
    bars: dict[tuple[int, int], TimeBar] = field(default_factory=dict)
    """By level of the interval and start."""

    def forget_current(self) -> None:
        """Look up the bar of each root interval again at the next trade, as after a load."""
        self.current = dict.fromkeys(self.current, NO_BAR)

    def matching(self, closed: bool, begin: int = BEGINNING, end: int = FOREVER) -> list[TimeBar]:
        """Return the closed or the open bars that overlap [begin, end), in the order in which bars
        close."""
        found = [
            bar
            for bar in self.bars.values()
            if bar.closed == closed and bar.start < end and bar.end > begin
        ]
        return sorted(found, key=lambda bar: (bar.end, bar.level, bar.start))


NO_BAR = TimeBar(0, "", 0, 0)
"""Takes no trade: its interval is empty."""


class NativeState(Protocol):
    """The bars that the kernels keep, and the records that go through them: `NativePath`."""

    def begin(self) -> None:
        """Begin a call of `apply`."""
        ...

    def fold_run(self, run: TradeRun) -> None:
        """Fold a run of trades."""
        ...

    def fold_trade(self, trade: Trade) -> None:
        """Fold a trade."""
        ...

    def control(self, record: ControlRecord) -> None:
        """Take a control record."""
        ...

    def heal(self, record: Heal) -> None:
        """Take a heal."""
        ...

    def end(self) -> list[Any]:
        """Return the rows of the call."""
        ...

    def changes(self) -> Iterator[tuple[bytes, bytes | None] | NumberedPairs]:
        """Yield what changed since the last call, and forget it."""
        ...


class BarsState:
    """The bars of one partition."""

    def __init__(
        self,
        partition: int,
        feeds: Feeds,
        sessions: BegunSessions,
        intervals: Sequence[str],
        roots: Sequence[int],
        slots: Sequence[BarNumbers],
        entries: Mapping[bytes, bytes],
    ) -> None:
        """Restore what `dirty` yielded; `roots` are the levels of the intervals that take each
        trade. Raises BarSettingsChanged."""
        self.partition = partition
        self.feeds = feeds
        self.sessions = sessions
        self.symbols: dict[str, SymbolBars] = {}
        self._intervals = intervals
        self._roots = roots
        self._slots = slots
        self._settings = {"intervals": list(intervals), "roots": list(roots)}
        self._settings_written = False
        self._changed: defaultdict[str, dict[tuple[int, int], TimeBar | None]] = defaultdict(dict)
        """By symbol, level and start."""
        self._changed_chunks: dict[tuple[int, str, int], int] = {}
        self._written: defaultdict[str, set[tuple[int, int]]] = defaultdict(set)
        """Bars that the state topic has as the general path writes them."""
        self._obsolete: list[bytes] = []
        """Keys of the state topic that the general path does not write."""
        self.timers_by_feed: dict[str, BarTimers] = {}
        self.native: NativeState | None = None
        """What the kernels keep; None where the general path serves alone."""
        self.lend: Callable[[str], SymbolBars | None] = lambda symbol: None
        """Returns the bars of a symbol that are in the kernels' arrays, None if it has none
        there."""
        self._load(entries)

    def find(self, symbol: str) -> SymbolBars | None:
        """Return the bars of a symbol, None if it has none."""
        return self.symbols.get(symbol) or self.lend(symbol)

    def of(self, symbol: str) -> SymbolBars:
        """Return the bars of a symbol that the feeds know."""
        found = self.find(symbol)
        if found is None:
            timers = self.timers(self.feeds.feed_of(symbol))
            found = self.symbols[symbol] = SymbolBars(
                timers, dict.fromkeys(self._roots, NO_BAR), Published(self._slots)
            )
        return found

    def timers(self, feed: FeedState) -> BarTimers:
        """Return the timers of a feed; new ones are due at once."""
        timers = self.timers_by_feed.get(feed.name)
        if timers is None:
            timers = self.timers_by_feed[feed.name] = BarTimers(feed)
        return timers

    def schedule(self, timers: BarTimers, bar: TimeBar, longer: int = 0) -> None:
        """Let the bar wait for the feed's event time: to close, or to be dropped, `longer`
        milliseconds after its end."""
        heappush(
            timers.closed if bar.closed else timers.open,
            (bar.end + longer, bar.level, bar.symbol, bar.start),
        )

    def pop(self, timers: BarTimers, closed: bool, until: int) -> Iterator[TimeBar]:
        """Take the open or closed bars that end at or before `until` off the timers, those that
        join meanwhile included."""
        heap = timers.closed if closed else timers.open
        while heap and heap[0][0] <= until:
            bar = self._scheduled(timers, heappop(heap))
            if bar is not None and bar.closed == closed:
                yield bar

    def open_bars(self, timers: BarTimers) -> Iterator[TimeBar]:
        """Yield the open bars of a feed in the order in which they close."""
        for entry in sorted(set(timers.open)):
            bar = self._scheduled(timers, entry)
            if bar is not None and not bar.closed:
                yield bar

    def publish(self, rows: Rows, bar: TimeBar, cause: str) -> None:
        """Add the bar's next revision to the rows."""
        bar.revision += 1
        bar.published = bar.count
        bar.completeness = self.feeds.completeness(bar.symbol, bar.start, bar.end)
        self.touch(bar)
        source, interval = self.feeds.source, self._intervals[bar.level]
        assert source is not None  # a bar has had a record
        record = bar.record(interval, cause, source, rows.ts_recv, self.partition, rows.offset)
        rows.append(f"infoway.bars.{interval}", bar.symbol, record)

    def touch(self, bar: TimeBar) -> None:
        """Have the bar written with the batch."""
        bar.dirty = True
        self._changed[bar.symbol][bar.level, bar.start] = bar

    def forget(self, bar: TimeBar, healable_until: int) -> None:
        """Drop a bar, but remember that it was published, until its end is `healable_until`."""
        published = self.symbols[bar.symbol].published
        self.remember(bar.symbol, published, bar.level, bar.start, healable_until)
        self.drop(bar)

    def remember(
        self, symbol: str, published: Published, level: int, start: int, healable_until: int
    ) -> None:
        """Remember that a bar of a symbol was published, until its end is `healable_until`."""
        chunk, bits = published.add(level, start)
        self._changed_chunks[level, symbol, chunk] = bits
        if bits.bit_count() == 1:
            for gone in published.expire(level, healable_until):
                self._changed_chunks[level, symbol, gone] = 0

    def drop(self, bar: TimeBar) -> None:
        """Forget a bar without a trace."""
        del self.symbols[bar.symbol].bars[bar.level, bar.start]
        self._changed[bar.symbol][bar.level, bar.start] = None

    def forget_idle(self, timers: BarTimers, healable_until: int) -> None:
        """Forget the bars that no heal can reach any more, and the symbols that have none left."""
        for symbol, symbol_bars in list(self.symbols.items()):
            if symbol_bars.timers is timers:
                self.expire(symbol, symbol_bars.published, healable_until)
                if not symbol_bars.bars and symbol_bars.published.is_empty():
                    del self.symbols[symbol]

    def expire(self, symbol: str, published: Published, healable_until: int) -> None:
        """Forget the published bars of a symbol that no heal can reach any more."""
        for level in range(len(self._slots)):
            for gone in published.expire(level, healable_until):
                self._changed_chunks[level, symbol, gone] = 0

    def hand_over(self, symbol: str) -> None:
        """Let go of a symbol whose bars are in the kernels' arrays from now on."""
        del self.symbols[symbol]
        self._changed[symbol] = dict.fromkeys(self._written[symbol])

    def take_back(self, symbol: str, bars: Sequence[TimeBar], published: Published) -> SymbolBars:
        """Take over the bars of a symbol from the kernels' arrays."""
        timers = self.timers(self.feeds.feed_of(symbol))
        found = self.symbols[symbol] = SymbolBars(
            timers, dict.fromkeys(self._roots, NO_BAR), published
        )
        for bar in bars:
            found.bars[bar.level, bar.start] = bar
            self.schedule(timers, bar)
            self.touch(bar)
        return found

    def new_published(self) -> Published:
        """Return what remembers the published bars of a symbol that has none yet."""
        return Published(self._slots)

    def next_bar(self, timers: BarTimers, closed: bool) -> TimeBar | None:
        """Return the first open or closed bar that waits for a feed's event time."""
        heap = timers.closed if closed else timers.open
        while heap:
            bar = self._scheduled(timers, heap[0])
            if bar is not None and bar.closed == closed:
                return bar
            heappop(heap)
        return None

    def dirty(self) -> Iterator[tuple[bytes, bytes | None]]:
        """Yield the keys that changed since the last call: the settings once, the feeds', one a
        bar."""
        if not self._settings_written:
            yield _SETTINGS_KEY, orjson.dumps(self._settings)
            self._settings_written = True
        yield from self.feeds.dirty()
        yield from self.sessions.dirty()
        for symbol, changed in self._changed.items():
            written = self._written[symbol]
            for (level, start), bar in changed.items():
                key = b"%b%b:%d:%b" % (
                    _BAR_KEY,
                    self._intervals[level].encode(),
                    start,
                    symbol.encode(),
                )
                if bar is None:
                    written.discard((level, start))
                    yield key, None
                else:
                    bar.dirty = False
                    written.add((level, start))
                    yield key, dump(bar)
            if not written:
                del self._written[symbol]
        self._changed.clear()
        for key in self._obsolete:
            yield key, None
        self._obsolete.clear()
        for (level, symbol, chunk), bits in self._changed_chunks.items():
            key = b"%b%b:%d:%b" % (
                _PUBLISHED_KEY,
                self._intervals[level].encode(),
                chunk,
                symbol.encode(),
            )
            yield key, b"%x" % bits if bits else None
        self._changed_chunks.clear()

    def _load(self, entries: Mapping[bytes, bytes]) -> None:
        stored = entries.get(_SETTINGS_KEY)
        if stored is not None:
            if orjson.loads(stored) != self._settings:
                raise BarSettingsChanged(self.partition, orjson.loads(stored), self._settings)
            self._settings_written = True
        for name in self.feeds.names():
            self.timers(self.feeds.feed(name))
        for key, value in entries.items():
            if key.startswith(_BAR_KEY):
                _, name, start, symbol = key.decode().split(":", 3)
                bar = restore(self._intervals.index(name), symbol, int(start), value)
                symbol_bars = self.of(symbol)
                symbol_bars.bars[bar.level, bar.start] = bar
                self._written[symbol].add((bar.level, bar.start))
                self.schedule(symbol_bars.timers, bar)
            elif key.startswith(_PUBLISHED_KEY):
                _, name, chunk, symbol = key.decode().split(":", 3)
                self.of(symbol).published.restore(
                    self._intervals.index(name), int(chunk), int(value, 16)
                )

    def take_entries(self, bars: Iterable[tuple[bytes, TimeBar]]) -> None:
        """Take bars that the kernels have written to the state topic under these keys: they are
        the general path's from then on."""
        for key, bar in bars:
            symbol_bars = self.of(bar.symbol)
            symbol_bars.bars[bar.level, bar.start] = bar
            self.schedule(symbol_bars.timers, bar)
            self.touch(bar)
            self._obsolete.append(key)

    def _scheduled(self, timers: BarTimers, entry: ClosingKey) -> TimeBar | None:
        _, level, symbol, start = entry
        symbol_bars = self.symbols.get(symbol)
        return (
            symbol_bars.bars.get((level, start))
            if symbol_bars is not None and symbol_bars.timers is timers
            else None
        )
