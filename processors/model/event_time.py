"""Event time of one partition: watermarks, lateness and completeness, the same for every agent; no
bar and no window.

Times are milliseconds UTC. The greatest event time of a feed comes from its trades, books and
marks; the last sign of life is the producer's clock at receipt.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import orjson

from processors.model.observation import (
    BEGINNING,
    FOREVER,
    Completeness,
    Cover,
    FeedState,
    Interruption,
    SymbolObservation,
)
from processors.model.records import Book, ControlRecord, Kline, SourcesMixed, Trade
from processors.model.strays import STRAYS, is_older

_FEEDS_KEY = b"\0feeds"
_SYMBOL_KEY = b"\0symbol:"
_INTERRUPTIONS_KEY = b"\0lost:"


@dataclass(frozen=True, slots=True)
class EventTime:
    """How event time is judged, in milliseconds."""

    watermark_delay_ms: int = 2_000
    """The watermark is the feed's greatest event time less this."""
    revision_horizon_ms: int = 600_000
    """A trade older than the watermark less this is too late for everything."""
    feed_latency_ms: int = 1_000
    """What a feed sent so long before its last sign of life may be lost with it."""


class Feeds:
    """The feeds and symbols of one partition, folded record by record in log order.

    Every record of the partition goes through exactly one of `accept`, `observe` and `control`,
    once.
    """

    def __init__(
        self, settings: EventTime, partition: int, reach_ms: int, entries: Mapping[bytes, bytes]
    ) -> None:
        """Restore what `dirty` yielded; `reach_ms` is the length of the longest bar or window that
        asks for completeness."""
        self.partition = partition
        self.source: str | None = None
        self._delay = settings.watermark_delay_ms
        self._horizon = settings.revision_horizon_ms
        self._tolerance = settings.watermark_delay_ms + settings.revision_horizon_ms
        self._latency = settings.feed_latency_ms
        self._reach = settings.revision_horizon_ms + reach_ms
        self._feeds: dict[str, FeedState] = {}
        self._symbols: dict[str, SymbolObservation] = {}
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
                trade.feed,
                trade.business,
                trade.connection,
                trade.source,
                trade.offset,
                trade.ts_recv,
            )
        self._feeds_changed = True
        last_alive_ms = trade.ts_recv // 1000
        if last_alive_ms > feed.last_alive_ms:
            feed.last_alive_ms = last_alive_ms
        if trade.repeat:
            return False
        event = trade.ts_event
        observation = self._symbols.get(trade.symbol)
        if observation is None:
            observation = self._first_seen(trade.symbol, feed, event)
        if (
            event < observation.feed.latest_event_ms - self._tolerance
            or event < observation.least_watermark_ms - self._horizon
        ):
            return False
        if event > feed.latest_push_ms:
            feed.latest_push_ms = event
            if event > feed.latest_event_ms:
                feed.latest_event_ms = event
        return True

    def observe(self, record: Book | Kline) -> None:
        """Take a book or a kline as a sign of life and of event time; nothing is too late for them.
        Raises SourcesMixed."""
        feed = self._meet(
            record.feed,
            record.business,
            record.connection,
            record.source,
            record.offset,
            record.ts_recv,
        )
        feed.last_alive_ms = max(feed.last_alive_ms, record.ts_recv // 1000)
        feed.latest_event_ms = max(feed.latest_event_ms, record.ts_event)
        if isinstance(record, Book):
            feed.latest_push_ms = max(feed.latest_push_ms, record.ts_event)
        if record.symbol not in self._symbols:
            self._first_seen(record.symbol, feed, record.ts_event)

    def control(self, record: ControlRecord) -> dict[str, Interruption]:
        """Take a control record; return the symbols, sorted, whose coverage it changed, and since
        and until when. Raises SourcesMixed.

        A begin, end or gap without a symbol stands for all symbols of its feed.
        """
        control = record.control
        killed = control.ts_from is None and control.kind in ("begin", "gap")
        begins = control.kind == "begin"
        feed = self._meet(
            control.feed,
            control.business,
            control.connection,
            control.source,
            record.offset,
            control.ts_recv,
            killed,
            begins,
        )
        changed: dict[str, Interruption] = {}
        if control.kind in ("begin", "end", "gap"):
            for symbol in self.symbols_of(feed.name) if record.symbol is None else (record.symbol,):
                if control.kind == "begin":
                    changed[symbol] = self._begin(symbol, feed, control.ts, control.ts_from)
                elif symbol in self._symbols:
                    observation = self._symbols[symbol]
                    if control.kind == "gap":
                        since = (
                            self._silent_since(observation, None)
                            if control.ts_from is None
                            else control.ts_from
                        )
                        changed[symbol] = self._interrupt(observation, since, control.ts)
                    elif observation.feed is feed and not observation.ended:
                        # a producer's clock may be slow: what the feed has delivered was observed,
                        # whatever the clock says
                        changed[symbol] = observation.end(
                            max(control.ts - self._latency, feed.latest_event_ms)
                        )
                        self._symbols_changed.add(symbol)
        if control.kind in ("begin", "end", "mark"):
            feed.last_alive_ms = max(feed.last_alive_ms, control.ts_recv // 1000)
        if control.kind == "mark":
            feed.latest_event_ms = max(feed.latest_event_ms, control.ts)
        return changed

    def names(self) -> list[str]:
        """Return the names of the feeds that records of this partition have named, sorted."""
        return sorted(self._feeds)

    def feed(self, name: str) -> FeedState:
        """Return a feed that a record of this partition has named."""
        return self._feeds[name]

    def feed_of(self, symbol: str) -> FeedState:
        """Return the feed that carries a symbol of this partition, or carried it last."""
        return self._symbols[symbol].feed

    def least_watermark_of(self, symbol: str) -> int:
        """Return the symbol's watermark when it left its feed before."""
        return self._symbols[symbol].least_watermark_ms

    def moved(
        self, feed: str, latest_event_ms: int, last_alive_ms: int, latest_push_ms: int
    ) -> None:
        """Take the times of a feed that kernels have moved."""
        known = self._feeds[feed]
        found = (latest_event_ms, last_alive_ms, latest_push_ms)
        if found != (known.latest_event_ms, known.last_alive_ms, known.latest_push_ms):
            known.latest_event_ms, known.last_alive_ms, known.latest_push_ms = found
            self._feeds_changed = True

    def knows(self, symbol: str) -> bool:
        """Return whether a record of this partition has named the symbol."""
        return symbol in self._symbols

    def symbols_of(self, feed: str) -> list[str]:
        """Return the symbols of this partition that the feed carries, sorted."""
        return sorted(
            symbol for symbol, observation in self._symbols.items() if observation.feed.name == feed
        )

    def watermark(self, feed: str) -> int:
        """Return the feed's watermark; far below every time before its first record."""
        return self._feeds[feed].latest_event_ms - self._delay

    def watermark_of(self, symbol: str) -> int:
        """Return the watermark that judges a symbol of this partition: its feed's, never less than
        on the feed before."""
        observation = self._symbols[symbol]
        return max(observation.feed.latest_event_ms - self._delay, observation.least_watermark_ms)

    def ended(self, symbol: str) -> bool:
        """Return whether the symbol ended in order and has not begun again."""
        return self._symbols[symbol].ended

    def complete_from(self, symbol: str) -> int:
        """Return the time from which on a symbol was observed without an interruption so far."""
        return self._symbols[symbol].complete_from_ms

    def completeness(self, symbol: str, start: int, end: int) -> Completeness:
        """Return how [start, end) of a symbol was observed, by the log so far; a gap wins over
        partial."""
        observation = self._symbols[symbol]
        # nearly always, and a call less
        if start >= observation.complete_from_ms:
            return "complete"
        return observation.completeness(start, end)

    def cover(self, symbol: str, start: int, end: int) -> Cover:
        """Return the completeness of [start, end), and of which other spans it is the same."""
        return self._symbols[symbol].cover(start, end)

    def dirty(self) -> Iterator[tuple[bytes, bytes | None]]:
        """Yield the state's keys that changed since the last call, with their values, and forget
        it."""
        if self._feeds_changed:
            feeds = {
                feed.name: [
                    feed.business,
                    feed.connection,
                    feed.latest_event_ms,
                    feed.last_alive_ms,
                    feed.latest_push_ms,
                ]
                for feed in self._feeds.values()
            }
            yield (
                _FEEDS_KEY,
                orjson.dumps({"source": self.source, "feeds": feeds}, option=orjson.OPT_SORT_KEYS),
            )
            self._feeds_changed = False
        changed = sorted(self._symbols_changed)
        for symbol in changed:
            yield _SYMBOL_KEY + symbol.encode(), self._symbols[symbol].dump()
        for symbol in changed:
            for chunk, value in self._symbols[symbol].dirty_chunks():
                yield b"%b%d:%b" % (_INTERRUPTIONS_KEY, chunk, symbol.encode()), value
        self._symbols_changed.clear()

    def _load(self, entries: Mapping[bytes, bytes]) -> None:
        if _FEEDS_KEY in entries:
            stored = orjson.loads(entries[_FEEDS_KEY])
            self.source = stored["source"]
            self._feeds = {
                name: _feed_state(name, *values) for name, values in stored["feeds"].items()
            }
        for key, value in entries.items():
            if key.startswith(_SYMBOL_KEY):
                symbol = key.removeprefix(_SYMBOL_KEY).decode()
                feed, ended, least_watermark_ms, silent_since_ms, outer = orjson.loads(value)
                observation = self._symbols[symbol] = SymbolObservation(
                    symbol, self._feeds[feed], ended, least_watermark_ms, silent_since_ms
                )
                observation.restore(outer)
                if observation.changed_chunks:
                    self._symbols_changed.add(symbol)
        for key, value in entries.items():
            if key.startswith(_INTERRUPTIONS_KEY):
                symbol = key.decode().split(":", 2)[2]
                self._symbols[symbol].restore_chunk(orjson.loads(value))
        for observation in self._symbols.values():
            observation.settle()

    def _meet(
        self,
        name: str,
        business: str,
        connection: str,
        source: str,
        offset: int,
        received_us: int,
        killed: bool = False,
        begins: bool = False,
    ) -> FeedState:
        """Return the feed; `killed`: nobody tells until when its last connection has seen what
        happened.

        Only a begin makes an older connection the feed's, where the clock was set back between two
        producers: with any other record, one that was redriven or is another producer's, the feed
        would lose its connection over and over.
        """
        if source != self.source:
            if self.source is not None:
                raise SourcesMixed(self.source, source, self.partition, offset)
            self.source = source
        self._feeds_changed = True
        feed = self._feeds.get(name)
        if feed is None:
            feed = self._feeds[name] = FeedState(name, business, connection)
        elif (
            feed.connection != connection
            and not begins
            and is_older(name, connection, feed.connection)
        ):
            STRAYS.count(name, connection, feed.connection, received_us)
        elif feed.connection != connection:
            # symbols begin one after the other on a new connection, and each has been silent since
            # the old one's end
            for observation in self._symbols.values():
                if observation.feed is feed and observation.silent_since_ms is None:
                    observation.silent_since_ms = (
                        observation.observed_until_ms() if killed else feed.last_alive_ms
                    )
                    self._symbols_changed.add(observation.symbol)
            feed.connection = connection
        return feed

    def _first_seen(self, symbol: str, feed: FeedState, since: int) -> SymbolObservation:
        observation = self._symbols[symbol] = SymbolObservation(symbol, feed)
        self._interrupt(observation, BEGINNING, since, "partial")
        return observation

    def _begin(self, symbol: str, feed: FeedState, ts: int, ts_from: int | None) -> Interruption:
        observation = self._symbols.get(symbol)
        if observation is None:
            self._first_seen(symbol, feed, ts)
            return Interruption(BEGINNING, ts, "partial")
        if observation.ended_at_ms is not None:
            since, observation.ended_at_ms = observation.ended_at_ms, None
            self._interrupt(observation, since, ts, "partial")
            interruption = Interruption(min(since, ts), FOREVER, "partial")
        else:
            interruption = self._interrupt(
                observation, self._silent_since(observation, ts_from), ts
            )
        if observation.feed is not feed:
            observation.least_watermark_ms = self.watermark_of(symbol)
            observation.feed = feed
        observation.ended = False
        observation.silent_since_ms = None
        return interruption

    def _silent_since(self, observation: SymbolObservation, ts_from: int | None) -> int:
        feed, since = observation.feed, observation.silent_since_ms
        if since is None:
            since = observation.observed_until_ms() if ts_from is None else feed.last_alive_ms
        return (since if ts_from is None else min(since, ts_from)) - self._latency

    def _interrupt(
        self, observation: SymbolObservation, begin: int, end: int, kind: Completeness = "gap"
    ) -> Interruption:
        self._symbols_changed.add(observation.symbol)
        forgotten_until_ms = observation.feed.latest_event_ms - self._delay - self._reach
        return observation.interrupt(begin, end, kind, forgotten_until_ms)


def _feed_state(
    name: str,
    business: str,
    connection: str,
    latest_event_ms: int,
    last_alive_ms: int,
    latest_push_ms: int,
) -> FeedState:
    # a version before kept whether its event time was that of a push, not which
    if isinstance(latest_push_ms, bool):
        latest_push_ms = latest_event_ms if latest_push_ms else BEGINNING
    return FeedState(name, business, connection, latest_event_ms, last_alive_ms, latest_push_ms)
