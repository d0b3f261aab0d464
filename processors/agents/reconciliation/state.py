"""What the reconciliation agent keeps of a partition: bars and klines that wait for each other, and the day's totals."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from processors.comparison import Figures, Status
from processors.feeds import BEGINNING, FOREVER, Feeds
from processors.records import Row

_STREAM_KEY = b"stream:"
_PAIR_KEY = b"pair:"


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
class Day:
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
    days: dict[int, Day] = field(default_factory=dict)
    """By trade date, the last few of them."""
    pairs: dict[int, Pair] = field(default_factory=dict)
    """By start."""

    def day(self, trade_date: int) -> Day:
        """Return the totals of a trade date (days since 1970); those of three dates are kept."""
        found = self.days.get(trade_date)
        if found is None:
            found = self.days[trade_date] = Day()
            for old in sorted(self.days)[:-3]:
                if old != trade_date:
                    del self.days[old]
        return found


class ReconciliationState:
    """The streams of one partition."""

    def __init__(self, partition: int, feeds: Feeds, entries: Mapping[bytes, bytes]) -> None:
        """Restore what `dirty` yielded."""
        self.partition = partition
        self.feeds = feeds
        """Of the klines' own subscriptions."""
        self.rows: list[Row] = []
        self._streams: dict[tuple[str, str], Stream] = {}
        self._changed: dict[tuple[str, str], Stream] = {}
        self._changed_pairs: dict[tuple[str, str, int], Pair | None] = {}
        self._load(entries)

    def stream(self, symbol: str, interval: str) -> Stream:
        """Return a stream, whose scalar fields the caller may change."""
        stream = self._streams.get((symbol, interval))
        if stream is None:
            stream = self._streams[symbol, interval] = Stream(symbol, interval)
        self._changed[symbol, interval] = stream
        return stream

    def pair(self, stream: Stream, start: int, end: int) -> Pair:
        """Return a new pair."""
        pair = stream.pairs[start] = Pair(start, end)
        return pair

    def touch(self, stream: Stream, pair: Pair) -> None:
        """Have the pair written with the batch."""
        self._changed_pairs[stream.interval, stream.symbol, pair.start] = pair

    def drop(self, stream: Stream, pair: Pair) -> None:
        """Forget a pair."""
        del stream.pairs[pair.start]
        self._changed_pairs[stream.interval, stream.symbol, pair.start] = None

    def observed(self, symbol: str, start: int, end: int) -> bool:
        """Return whether the klines' subscription was healthy for the whole time."""
        return (
            self.feeds.knows(symbol) and self.feeds.completeness(symbol, start, end) == "complete"
        )

    def dirty(self) -> Iterator[tuple[bytes, bytes | None]]:
        """Yield the keys that changed since the last call."""
        yield from self.feeds.dirty()
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

    def _load(self, entries: Mapping[bytes, bytes]) -> None:
        for key, value in entries.items():
            if key.startswith(_STREAM_KEY):
                _, interval, symbol = key.decode().split(":", 2)
                business, first, newest, closed, expired, days = orjson.loads(value)
                totals = {
                    date: Day(int(ours), int(theirs), counts) for date, ours, theirs, counts in days
                }
                self._streams[symbol, interval] = Stream(
                    symbol, interval, business, first, newest, closed, expired, totals
                )
        for key, value in sorted(entries.items()):
            if key.startswith(_PAIR_KEY):
                _, interval, start, symbol = key.decode().split(":", 3)
                self._streams[symbol, interval].pairs[int(start)] = _restore(int(start), value)


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
    open_, high, low, close, volume, turnover = map(int, texts)
    return Figures((open_, high, low, close), volume, turnover)
