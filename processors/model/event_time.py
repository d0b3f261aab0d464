"""Event time of one partition: watermarks, lateness and completeness, the same for every agent; no bar and no window.

Times are milliseconds UTC. The greatest event time of a feed comes from its trades, books and marks; the last sign of
life is the producer's clock at receipt.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import orjson

from processors.records import Book, ControlRecord, Kline, SourcesMixed, Trade

Completeness = Literal["complete", "partial", "gap"]
Interruption = tuple[int, int, Completeness]
"""[from, to) in which a symbol was not fully observed, and how."""

BEGINNING = -(1 << 62)
FOREVER = 1 << 62

_FEEDS_KEY = b"\0feeds"
_SYMBOL_KEY = b"\0symbol:"


@dataclass(frozen=True, slots=True)
class EventTime:
    """How event time is judged, in milliseconds."""

    watermark_delay_ms: int = 2_000
    """The watermark is the feed's greatest event time less this."""
    revision_horizon_ms: int = 600_000
    """A trade older than the watermark less this is too late for everything."""
    feed_latency_ms: int = 1_000
    """What a feed sent so long before its last sign of life may be lost with it."""


@dataclass(slots=True)
class Feed:
    """One feed on one partition."""

    name: str
    business: str
    connection: str
    event: int = BEGINNING
    """Greatest event time."""
    life: int = BEGINNING
    """Last sign of life."""
    clocked: bool = False
    """Whether its event time is that of trades or books: a kline has no time of its own."""

    @property
    def seen(self) -> int:
        """Until when the feed was observed for sure: life is of the producer's clock, and may be of long after what was delivered."""
        return min(self.life, self.event) if self.clocked else self.life


@dataclass(slots=True)
class Coverage:
    """How a symbol of the partition was observed."""

    symbol: str
    feed: Feed
    """The feed that carries the symbol, or carried it last."""
    ended: bool = False
    floor: int = BEGINNING
    """The symbol's watermark when it left its feed before: it never goes back."""
    lost: int | None = None
    """The last sign of life of the connection that carried the symbol, once another has taken that one's place."""
    interruptions: list[Interruption] = field(default_factory=list)
    clear: int = BEGINNING
    """Where the last interruption ends."""


class Feeds:
    """The feeds and symbols of one partition, folded record by record in log order.

    Every record of the partition goes through exactly one of `accept`, `observe` and `control`, once.
    """

    def __init__(
        self, settings: EventTime, partition: int, reach_ms: int, entries: Mapping[bytes, bytes]
    ) -> None:
        """Restore what `dirty` yielded; `reach_ms` is the length of the longest bar or window that asks for completeness."""
        self.partition = partition
        self.source: str | None = None
        self._delay = settings.watermark_delay_ms
        self._horizon = settings.revision_horizon_ms
        self._tolerance = settings.watermark_delay_ms + settings.revision_horizon_ms
        self._latency = settings.feed_latency_ms
        self._reach = settings.revision_horizon_ms + reach_ms
        self._feeds: dict[str, Feed] = {}
        self._symbols: dict[str, Coverage] = {}
        self._feeds_changed = False
        self._symbols_changed: set[str] = set()
        self._load(entries)

    def accept(self, trade: Trade) -> bool:
        """Return whether the trade counts: it is no repeat and not too late by the log before it.

        Too late: ts_event < watermark of the symbol - revision horizon. Raises SourcesMixed.
        """
        feed = self._feeds.get(trade.feed)
        if feed is None or trade.connection != feed.connection or trade.source != self.source:
            feed = self._meet(
                trade.feed, trade.business, trade.connection, trade.source, trade.offset
            )
        self._feeds_changed = True
        life = trade.ts_recv // 1000
        if life > feed.life:
            feed.life = life
        if trade.repeat:
            return False
        event = trade.ts_event
        coverage = self._symbols.get(trade.symbol)
        if coverage is None:
            coverage = self._first_seen(trade.symbol, feed, event)
        if event < coverage.feed.event - self._tolerance or event < coverage.floor - self._horizon:
            return False
        if event > feed.event:
            feed.event, feed.clocked = event, True
        return True

    def observe(self, record: Book | Kline) -> None:
        """Take a book or a kline as a sign of life and of event time; nothing is too late for them. Raises SourcesMixed."""
        feed = self._meet(
            record.feed, record.business, record.connection, record.source, record.offset
        )
        feed.life = max(feed.life, record.ts_recv // 1000)
        feed.event = max(feed.event, record.ts_event)
        feed.clocked = feed.clocked or isinstance(record, Book)
        if record.symbol not in self._symbols:
            self._first_seen(record.symbol, feed, record.ts_event)

    def control(self, record: ControlRecord) -> Sequence[str]:
        """Take a control record; return the symbols, sorted, whose coverage it changed. Raises SourcesMixed.

        A begin, end or gap without a symbol stands for all symbols of its feed.
        """
        control = record.control
        killed = control.ts_from is None and control.kind in ("begin", "gap")
        feed = self._meet(
            control.feed,
            control.business,
            control.connection,
            control.source,
            record.offset,
            killed,
        )
        changed: list[str] = []
        if control.kind in ("begin", "end", "gap"):
            for symbol in self.symbols_of(feed.name) if record.symbol is None else (record.symbol,):
                if control.kind == "begin":
                    self._begin(symbol, feed, control.ts, control.ts_from)
                    changed.append(symbol)
                elif symbol in self._symbols:
                    coverage = self._symbols[symbol]
                    if control.kind == "gap":
                        self._interrupt(
                            coverage,
                            self._silent_since(coverage, None)
                            if control.ts_from is None
                            else control.ts_from,
                            control.ts,
                        )
                        changed.append(symbol)
                    elif coverage.feed is feed and not coverage.ended:
                        coverage.ended = True
                        # a producer's clock may be slow: what the feed has delivered was observed, whatever the clock says
                        self._interrupt(
                            coverage,
                            max(control.ts - self._latency, feed.event),
                            FOREVER,
                            "partial",
                        )
                        changed.append(symbol)
        if control.kind in ("begin", "end", "mark"):
            feed.life = max(feed.life, control.ts_recv // 1000)
        if control.kind == "mark":
            feed.event = max(feed.event, control.ts)
        return changed

    def names(self) -> list[str]:
        """Return the names of the feeds that records of this partition have named, sorted."""
        return sorted(self._feeds)

    def feed(self, name: str) -> Feed:
        """Return a feed that a record of this partition has named."""
        return self._feeds[name]

    def feed_of(self, symbol: str) -> Feed:
        """Return the feed that carries a symbol of this partition, or carried it last."""
        return self._symbols[symbol].feed

    def knows(self, symbol: str) -> bool:
        """Return whether a record of this partition has named the symbol."""
        return symbol in self._symbols

    def symbols_of(self, feed: str) -> list[str]:
        """Return the symbols of this partition that the feed carries, sorted."""
        return sorted(
            symbol for symbol, coverage in self._symbols.items() if coverage.feed.name == feed
        )

    def watermark(self, feed: str) -> int:
        """Return the feed's watermark; far below every time before its first record."""
        return self._feeds[feed].event - self._delay

    def watermark_of(self, symbol: str) -> int:
        """Return the watermark that judges a symbol of this partition: its feed's, never less than on the feed before."""
        coverage = self._symbols[symbol]
        return max(coverage.feed.event - self._delay, coverage.floor)

    def ended(self, symbol: str) -> bool:
        """Return whether the symbol ended in order and has not begun again."""
        return self._symbols[symbol].ended

    def completeness(self, symbol: str, start: int, end: int) -> Completeness:
        """Return how [start, end) of a symbol was observed, by the log so far; a gap wins over partial."""
        coverage = self._symbols[symbol]
        if start >= coverage.clear:
            return "complete"
        found: Completeness = "complete"
        for begin, to, kind in coverage.interruptions:
            if begin < end and to > start and found != "gap":
                found = kind
        return found

    def dirty(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield the state's keys that changed since the last call, with their values, and forget it."""
        if self._feeds_changed:
            feeds = {
                feed.name: [feed.business, feed.connection, feed.event, feed.life, feed.clocked]
                for feed in self._feeds.values()
            }
            yield (
                _FEEDS_KEY,
                orjson.dumps({"source": self.source, "feeds": feeds}, option=orjson.OPT_SORT_KEYS),
            )
            self._feeds_changed = False
        for symbol in sorted(self._symbols_changed):
            coverage = self._symbols[symbol]
            value = [
                coverage.feed.name,
                coverage.ended,
                coverage.floor,
                coverage.lost,
                coverage.interruptions,
            ]
            yield _SYMBOL_KEY + symbol.encode(), orjson.dumps(value)
        self._symbols_changed.clear()

    def _load(self, entries: Mapping[bytes, bytes]) -> None:
        if _FEEDS_KEY in entries:
            stored = orjson.loads(entries[_FEEDS_KEY])
            self.source = stored["source"]
            self._feeds = {name: Feed(name, *values) for name, values in stored["feeds"].items()}
        for key, value in entries.items():
            if key.startswith(_SYMBOL_KEY):
                symbol = key.removeprefix(_SYMBOL_KEY).decode()
                feed, ended, floor, lost, found = orjson.loads(value)
                interruptions: list[Interruption] = [(begin, to, kind) for begin, to, kind in found]
                clear = max((to for _, to, _ in interruptions), default=BEGINNING)
                self._symbols[symbol] = Coverage(
                    symbol, self._feeds[feed], ended, floor, lost, interruptions, clear
                )

    def _meet(
        self,
        name: str,
        business: str,
        connection: str,
        source: str,
        offset: int,
        killed: bool = False,
    ) -> Feed:
        """Return the feed; `killed`: nobody tells until when its last connection has seen what happened."""
        if source != self.source:
            if self.source is not None:
                raise SourcesMixed(self.source, source, self.partition, offset)
            self.source = source
        self._feeds_changed = True
        feed = self._feeds.get(name)
        if feed is None:
            feed = self._feeds[name] = Feed(name, business, connection)
        elif feed.connection != connection:
            # symbols begin one after the other on a new connection, and each has been silent since the old one's end
            for coverage in self._symbols.values():
                if coverage.feed is feed and coverage.lost is None:
                    coverage.lost = feed.seen if killed else feed.life
                    self._symbols_changed.add(coverage.symbol)
            feed.connection = connection
        return feed

    def _first_seen(self, symbol: str, feed: Feed, since: int) -> Coverage:
        coverage = self._symbols[symbol] = Coverage(symbol, feed)
        self._interrupt(coverage, BEGINNING, since, "partial")
        return coverage

    def _begin(self, symbol: str, feed: Feed, ts: int, ts_from: int | None) -> None:
        coverage = self._symbols.get(symbol)
        if coverage is None:
            self._first_seen(symbol, feed, ts)
            return
        if coverage.ended:
            ended = next(known for known in coverage.interruptions if known[1] == FOREVER)
            coverage.interruptions.remove(ended)
            self._interrupt(coverage, ended[0], ts, "partial")
        else:
            self._interrupt(coverage, self._silent_since(coverage, ts_from), ts)
        if coverage.feed is not feed:
            coverage.floor = self.watermark_of(symbol)
            coverage.feed = feed
        coverage.ended = False
        coverage.lost = None

    def _silent_since(self, coverage: Coverage, ts_from: int | None) -> int:
        feed, since = coverage.feed, coverage.lost
        if since is None:
            since = feed.seen if ts_from is None else feed.life
        return (since if ts_from is None else min(since, ts_from)) - self._latency

    def _interrupt(
        self, coverage: Coverage, begin: int, to: int, kind: Completeness = "gap"
    ) -> None:
        # a producer's clock set back must not make a loss vanish
        begin, to = min(begin, to), max(begin, to)
        reached = coverage.feed.event - self._delay - self._reach
        coverage.interruptions = [known for known in coverage.interruptions if known[1] > reached]
        coverage.interruptions.append((begin, to, kind))
        coverage.clear = max(known[1] for known in coverage.interruptions)
        self._symbols_changed.add(coverage.symbol)
