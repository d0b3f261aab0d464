"""What the reconciliation agent keeps of a partition: bars and klines that wait for each other, and
the day's totals."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from processors.agents.bars.published import BarNumbers, Published
from processors.agents.reconciliation.figures import Figures, Status
from processors.agents.reconciliation.waiting import WaitingBars
from processors.model.begun_sessions import BegunSessions
from processors.model.event_time import Feeds
from processors.model.intervals import DAY, MINUTE
from processors.model.observation import BEGINNING, FOREVER
from processors.model.records import BarRevision

_STREAM_KEY = b"stream:"
_PAIR_KEY = b"pair:"
_JUDGED_KEY = b"judged:"

WAIT_MS = 2 * DAY
"""How long after its end a bar waits for its kline, or a kline for its bar, by either's time."""
HOUR = 60 * MINUTE
REMEMBERED_MS = 2 * DAY
"""How long, by the stream's own time, pairs that were judged and forgotten are remembered."""


@dataclass(slots=True)
class KlineSide:
    """The newest push of a kline; ts_recv in us UTC."""

    figures: Figures
    turnover_step: int
    offset: int
    ts_recv: int


@dataclass(slots=True)
class BarSide:
    """The newest revision of a bar; ts_recv in us UTC."""

    figures: Figures
    revision: int
    completeness: str
    offset: int
    ts_recv: int

    @classmethod
    def of(cls, bar: BarRevision) -> "BarSide":
        """Return the side of a bar."""
        figures = Figures(*bar.prices, bar.volume, bar.turnover)
        return cls(figures, bar.revision, bar.completeness, bar.offset, bar.ts_recv)


@dataclass(slots=True)
class Pair:
    """A bar and the kline of the same time, either of which may be missing; times in ms UTC."""

    start: int
    end: int
    kline: KlineSide | None = None
    bar: BarSide | None = None
    aligned: bool = True
    """Whether there can be a bar of ours for the kline."""
    revision: int = 0
    status: Status | None = None
    """As in the last record; None before the first."""
    shown: list[Any] = field(default_factory=list)
    """What the last record said: another one is due only where this changes."""
    counted: tuple[int, int] = (0, 0)
    """Volumes of ours and of the vendor's as they stand in the day's totals."""


@dataclass(slots=True)
class DayTotals:
    """Totals of a trade date over the bars compared so far; volumes in units of 10^-18."""

    ours: int = 0
    theirs: int = 0
    counts: dict[Status, int] = field(
        default_factory=lambda: {"equal": 0, "differs": 0, "not_comparable": 0}
    )

    def count(self, status: Status, by: int) -> None:
        """Count a comparison, or take one back."""
        self.counts[status] += by

    def add(self, ours: int, theirs: int) -> None:
        """Add volumes."""
        self.ours += ours
        self.theirs += theirs


@dataclass(slots=True)
class Stream:
    """The bars and klines of one symbol and interval; times in ms UTC."""

    symbol: str
    interval: str
    business: str = ""
    """Empty before the first kline."""
    first: int = FOREVER
    """Start of the earliest kline."""
    newest: int = BEGINNING
    """Start of the latest kline: those before it are final."""
    closed: int = BEGINNING
    """Greatest end of a closed bar."""
    expired: int = BEGINNING
    """Bars that end at or before it are no longer at hand."""
    days: dict[int, DayTotals] = field(default_factory=dict)
    """By trade date, the last few of them."""
    pairs: dict[int, Pair] = field(default_factory=dict)
    """By start."""
    oldest: int = FOREVER
    """No pair ends before it; not written."""
    # by minutes whatever the interval: sessions, and klines of no bar of ours, start on no grid
    judged: Published = field(default_factory=lambda: Published([BarNumbers(MINUTE, 2 * DAY)]))
    """The pairs that were judged and are no longer among `pairs`."""

    def is_over(self, start: int, end: int) -> bool:
        """Return whether a time was judged and forgotten, or may have been, so long ago it is."""
        if start in self.pairs:
            return False
        return self.judged.has(0, start) or end <= self.expired - REMEMBERED_MS

    def day(self, trade_date: int) -> DayTotals:
        """Return the totals of a trade date (days since 1970); those of three dates are kept."""
        found = self.days.get(trade_date)
        if found is None:
            found = self.days[trade_date] = DayTotals()
            for old in sorted(self.days)[:-3]:
                if old != trade_date:
                    del self.days[old]
        return found


class ReconciliationState:
    """The streams of one partition."""

    def __init__(
        self,
        partition: int,
        feeds: Feeds,
        sessions: BegunSessions,
        entries: Mapping[bytes, bytes],
        kept: Mapping[str, int],
        native: bool,
    ) -> None:
        """Restore what `dirty` yielded. `kept` has by interval how many bars of a stream without
        klines are kept at least; `native`: kernels have these streams. Raises
        WaitingFromTheFuture."""
        self.partition = partition
        self.feeds = feeds
        """Of the klines' own subscriptions."""
        self.sessions = sessions
        self._streams: dict[tuple[str, str], Stream] = {}
        self._changed: dict[tuple[str, str], Stream] = {}
        self._changed_pairs: dict[tuple[str, str, int], Pair | None] = {}
        self._changed_chunks: dict[tuple[str, str, int], int] = {}
        self._load(entries)
        self.waiting = {
            interval: WaitingBars(interval, most, WAIT_MS, HOUR, self.has_stream, entries)
            for interval, most in kept.items()
        }
        """By interval the bars of streams that have had no kline."""
        if not native:
            for interval, waiting in self.waiting.items():
                for symbol in waiting.names():
                    self.stream(symbol, interval)

    def has_stream(self, symbol: str, interval: str) -> bool:
        """Return whether the stream is here, and not among those that wait."""
        return (symbol, interval) in self._streams

    def stream(self, symbol: str, interval: str) -> Stream:
        """Return a stream, whose scalar fields the caller may change; one that waits is lifted."""
        stream = self._streams.get((symbol, interval))
        if stream is None:
            stream = self._streams[symbol, interval] = Stream(symbol, interval)
            if (lifted := self.waiting[interval].lift(symbol)) is not None:
                stream.closed, stream.expired = lifted.closed, lifted.expired
                for bar in lifted.bars:
                    pair = self.pair(stream, bar.ts_start, bar.ts_end)
                    pair.bar = BarSide.of(bar)
                    self.touch(stream, pair)
        self._changed[symbol, interval] = stream
        return stream

    def pair(self, stream: Stream, start: int, end: int) -> Pair:
        """Return a new pair."""
        pair = stream.pairs[start] = Pair(start, end)
        stream.oldest = min(stream.oldest, end)
        return pair

    def touch(self, stream: Stream, pair: Pair) -> None:
        """Have the pair written with the batch."""
        self._changed_pairs[stream.interval, stream.symbol, pair.start] = pair

    def drop(self, stream: Stream, pair: Pair) -> None:
        """Forget a pair, but not that it was judged."""
        del stream.pairs[pair.start]
        self._changed_pairs[stream.interval, stream.symbol, pair.start] = None
        if pair.status is None:
            return
        chunk, bits = stream.judged.add(0, pair.start)
        self._changed_chunks[stream.interval, stream.symbol, chunk] = bits
        if bits.bit_count() == 1:
            for gone in stream.judged.expire(0, stream.expired - REMEMBERED_MS):
                self._changed_chunks[stream.interval, stream.symbol, gone] = 0

    def observed(self, symbol: str, start: int, end: int) -> bool:
        """Return whether the klines' subscription was healthy for the whole time."""
        return (
            self.feeds.knows(symbol) and self.feeds.completeness(symbol, start, end) == "complete"
        )

    def dirty(self) -> Iterator[tuple[bytes, bytes | None]]:
        """Yield the keys that changed since the last call."""
        yield from self.feeds.dirty()
        yield from self.sessions.dirty()
        for stream in self._changed.values():
            days = [
                [date, str(day.ours), str(day.theirs), day.counts]
                for date, day in sorted(stream.days.items())
            ]
            value = [
                stream.business,
                stream.first,
                stream.newest,
                stream.closed,
                stream.expired,
                days,
            ]
            yield (
                b"%b%b:%b" % (_STREAM_KEY, stream.interval.encode(), stream.symbol.encode()),
                orjson.dumps(value),
            )
        self._changed.clear()
        for (interval, symbol, start), pair in self._changed_pairs.items():
            yield (
                b"%b%b:%d:%b" % (_PAIR_KEY, interval.encode(), start, symbol.encode()),
                None if pair is None else _dump(pair),
            )
        self._changed_pairs.clear()
        for (interval, symbol, chunk), bits in self._changed_chunks.items():
            key = b"%b%b:%d:%b" % (_JUDGED_KEY, interval.encode(), chunk, symbol.encode())
            yield key, b"%x" % bits if bits else None
        self._changed_chunks.clear()
        for waiting in self.waiting.values():
            yield from waiting.dirty()

    def _load(self, entries: Mapping[bytes, bytes]) -> None:
        for key, value in entries.items():
            if key.startswith(_STREAM_KEY):
                _, interval, symbol = key.decode().split(":", 2)
                business, first, newest, closed, expired, days = orjson.loads(value)
                totals = {
                    date: DayTotals(int(ours), int(theirs), counts)
                    for date, ours, theirs, counts in days
                }
                self._streams[symbol, interval] = Stream(
                    symbol, interval, business, first, newest, closed, expired, totals
                )
        for key, value in sorted(entries.items()):
            if key.startswith(_PAIR_KEY):
                _, interval, start, symbol = key.decode().split(":", 3)
                stream, pair = self._streams[symbol, interval], _restore(int(start), value)
                stream.pairs[pair.start] = pair
                stream.oldest = min(stream.oldest, pair.end)
            elif key.startswith(_JUDGED_KEY):
                _, interval, chunk, symbol = key.decode().split(":", 3)
                self._streams[symbol, interval].judged.restore(0, int(chunk), int(value, 16))


def _dump(pair: Pair) -> bytes:
    kline, bar = pair.kline, pair.bar
    return orjson.dumps(
        [
            pair.end,
            kline
            and [kline.figures.texts(), str(kline.turnover_step), kline.offset, kline.ts_recv],
            bar and [bar.figures.texts(), bar.revision, bar.completeness, bar.offset, bar.ts_recv],
            pair.aligned,
            pair.revision,
            pair.status,
            pair.shown,
            [str(volume) for volume in pair.counted],
        ]
    )


def _restore(start: int, value: bytes) -> Pair:
    end, kline, bar, aligned, revision, status, shown, counted = orjson.loads(value)
    kline_side = kline and KlineSide(_figures(kline[0]), int(kline[1]), *kline[2:])
    bar_side = bar and BarSide(_figures(bar[0]), *bar[1:])
    return Pair(
        start,
        end,
        kline_side,
        bar_side,
        aligned,
        revision,
        status,
        shown,
        (int(counted[0]), int(counted[1])),
    )


def _figures(texts: list[str]) -> Figures:
    return Figures(*map(int, texts))
