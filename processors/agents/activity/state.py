"""What the activity agent keeps of a partition: the open bars by trade date, what waits for each
feed's event time, their stored form."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import orjson

from processors.agents.bars.state import BarSettingsChanged
from processors.model.begun_sessions import BegunSessions
from processors.model.event_time import Feeds
from processors.model.observation import BEGINNING, FeedState
from processors.model.records import Trade

if TYPE_CHECKING:
    from processors.agents.activity.native import NativeActivityBars

_SETTINGS_KEY = b"\0activity"
_BAR_KEY = b"bar:"


@dataclass(slots=True, eq=False)
class ActivityBar:
    """One bar: times in ms, prices and volumes in units of 10^-18, turnover exact in units of
    10^-36; open and close by the log.

    The fields stand in the order in which `dump` writes them, and the kernel's BAR has them.
    """

    index: int
    revision: int = 0
    published: int = 0
    """The count of trades in its last record."""
    count: int = 0
    ts_recv: int = 0
    """Greatest receive time of its trades, microseconds."""
    ts_first: int = 0
    ts_last: int = 0
    open: int = 0
    high: int = 0
    low: int = 0
    close: int = 0
    volume: int = 0
    turnover: int = 0
    buy: int = 0
    sell: int = 0

    def add(self, trade: Trade, turnover: int) -> None:
        """Take the next trade of the log, whose price x volume is `turnover`."""
        event, price, volume = trade.ts_event, trade.price, trade.volume
        if self.count == 0:
            self.ts_first = self.ts_last = event
            self.open = self.high = self.low = price
        elif event > self.ts_last:
            self.ts_last = event
        elif event < self.ts_first:
            self.ts_first = event
        if price > self.high:
            self.high = price
        elif price < self.low:
            self.low = price
        self.close = price
        self.volume += volume
        self.turnover += turnover
        if trade.direction == 1:
            self.buy += volume
        elif trade.direction == 2:
            self.sell += volume
        self.count += 1
        if trade.ts_recv > self.ts_recv:
            self.ts_recv = trade.ts_recv


@dataclass(slots=True, eq=False)
class OpenDay:
    """A symbol's trade date (days since 1970) whose session ends at `end` (ms), and its open bar
    per threshold."""

    symbol: str
    trade_date: int
    bars: list[ActivityBar]
    end: int = BEGINNING
    dirty: bool = False
    """Whether it changed since it was last written to the state."""


@dataclass(slots=True)
class DayTimers:
    """What waits for a feed's event time."""

    feed: FeedState
    tick: int = BEGINNING
    """Event time of the next updates."""
    due: int = BEGINNING
    """Event time at which anything is to be done."""
    days: list[tuple[int, str, int]] = field(default_factory=list)
    """Heap of (end, symbol, trade date); entries of days that are gone, end later or are another
    feed's by now are passed over."""


@dataclass(slots=True)
class SymbolDays:
    """The trade dates of a symbol that trades may still come for, and the session of its last
    trade."""

    timers: DayTimers
    days: dict[int, OpenDay] = field(default_factory=dict)
    business: str = ""
    start: int = 0
    end: int = 0
    today: OpenDay | None = None


class ActivityState:
    """The open bars of one partition."""

    def __init__(
        self,
        partition: int,
        feeds: Feeds,
        sessions: BegunSessions,
        names: Sequence[str],
        entries: Mapping[bytes, bytes],
    ) -> None:
        """Restore what `dirty` yielded, but for the timers; raises
        BarSettingsChanged."""
        self.partition = partition
        self.feeds = feeds
        self.sessions = sessions
        self.symbols: dict[str, SymbolDays] = {}
        self.timers_by_feed: dict[str, DayTimers] = {}
        self.changed: dict[tuple[str, int], OpenDay | None] = {}
        self.native: NativeActivityBars | None = None
        """What the kernel has; None where the general path serves alone."""
        self.lend: Callable[[str, bool], None] = lambda symbol, for_update: None
        """Takes the bars of a symbol out of the kernel's arrays, if they are there, into its
        OpenDay; for an update only if there may be something to publish."""
        self._names = list(names)
        self._settings_written = _SETTINGS_KEY in entries
        if self._settings_written and orjson.loads(entries[_SETTINGS_KEY]) != self._names:
            raise BarSettingsChanged(partition, orjson.loads(entries[_SETTINGS_KEY]), self._names)
        for name in feeds.names():
            self.timers(feeds.feed(name))
        for key, value in entries.items():
            if key.startswith(_BAR_KEY):
                _, name, trade_date, symbol = key.decode().split(":", 3)
                day = self.day(symbol, int(trade_date))
                day.end, day.bars[self._names.index(name)] = restore(value)

    def timers(self, feed: FeedState) -> DayTimers:
        """Return the timers of a feed; new ones are due at once."""
        timers = self.timers_by_feed.get(feed.name)
        if timers is None:
            timers = self.timers_by_feed[feed.name] = DayTimers(feed)
        return timers

    def day(self, symbol: str, trade_date: int) -> OpenDay:
        """Return the day of a symbol that the feeds know, made where there is none, without an
        end."""
        known = self.symbols.get(symbol)
        if known is None:
            known = self.symbols[symbol] = SymbolDays(self.timers(self.feeds.feed_of(symbol)))
        day = known.days.get(trade_date)
        if day is None:
            day = known.days[trade_date] = OpenDay(
                symbol, trade_date, [ActivityBar(0) for _ in self._names]
            )
        return day

    def waiting(self, timers: DayTimers, entry: tuple[int, str, int]) -> OpenDay | None:
        """Return the day of an entry of the timers, None for one to pass over."""
        end, symbol, trade_date = entry
        known = self.symbols.get(symbol)
        day = known.days.get(trade_date) if known is not None and known.timers is timers else None
        return day if day is not None and day.end == end else None

    def touch(self, day: OpenDay) -> None:
        """Have the day written with the batch."""
        day.dirty = True
        self.changed[day.symbol, day.trade_date] = day

    def drop(self, day: OpenDay) -> None:
        """Forget a day."""
        known = self.symbols[day.symbol]
        del known.days[day.trade_date]
        if not known.days:
            del self.symbols[day.symbol]
        self.changed[day.symbol, day.trade_date] = None

    def dirty(self) -> Iterator[tuple[bytes, bytes | None]]:
        """Yield the keys that changed since the last call: the settings once, the feeds', one a bar
        name, symbol and trade date."""
        if not self._settings_written:
            yield _SETTINGS_KEY, orjson.dumps(self._names)
            self._settings_written = True
        yield from self.feeds.dirty()
        yield from self.sessions.dirty()
        for (symbol, trade_date), day in self.changed.items():
            if day is not None:
                day.dirty = False
            for index, name in enumerate(self._names):
                key = b"%b%b:%d:%b" % (_BAR_KEY, name.encode(), trade_date, symbol.encode())
                yield key, None if day is None else dump(day.end, day.bars[index])
        self.changed.clear()


def dump(end: int, bar: ActivityBar) -> bytes:
    """Return the end of a bar's session and all of the bar; big integers as texts, since orjson has
    64 bits."""
    if bar.count == 0:
        return orjson.dumps((end, bar.index))
    exact = (bar.open, bar.high, bar.low, bar.close, bar.volume, bar.turnover, bar.buy, bar.sell)
    return orjson.dumps(
        (
            end,
            bar.index,
            bar.revision,
            bar.published,
            bar.count,
            bar.ts_recv,
            bar.ts_first,
            bar.ts_last,
            *map(str, exact),
        )
    )


def restore(value: bytes) -> tuple[int, ActivityBar]:
    """Return the end of the session and the bar that `dump` wrote."""
    end, *numbers = orjson.loads(value)
    return end, ActivityBar(*map(int, numbers))
