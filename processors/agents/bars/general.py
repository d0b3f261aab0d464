"""The general path of bars, in Python's integers: which bar a trade belongs to, when a bar closes,
what revises it, how far a feed is done.

It is the reference of the kernels. Beside them it serves for whatever is rare, and for symbols
whose numbers do not fit; without them it serves alone.

A bar is closed where its symbol's watermark has reached its end, or the symbol has ended; what
comes after revises it. The finest interval takes each trade; a coarser bar is folded from finer
ones as they close. Where the feed was not healthy, the vendor's kline takes a bar's place (`Heal`),
and the coarser bars are corrected by what that changes.
"""

from collections.abc import Mapping, Sequence

from processors.agents.bars.figures import TimeBar
from processors.agents.bars.finding import BarFinder
from processors.agents.bars.forgotten import ForgottenBars
from processors.agents.bars.healing import HEALABLE_MS, Healing
from processors.agents.bars.published import BarNumbers
from processors.agents.bars.state import NO_BAR, BarsState, BarTimers, SymbolBars
from processors.model.begun_sessions import BegunSessions, SessionFinder
from processors.model.event_time import EventTime, Feeds
from processors.model.intervals import DAY, MINUTE, ladder
from processors.model.observation import BEGINNING, FOREVER, Interruption
from processors.model.records import ControlRecord, Heal, Rows, SourceRecord, Trade
from processors.model.trading_days import LONGEST_SESSION_MS
from schemas.decimals import UNIT, divide_half_even
from schemas.records import LateTradeRecord, ProgressRecord
from schemas.topics import LATE_TRADES, PROGRESS


class GeneralBars:
    """Time bars of every interval, the progress of feeds, and the trades that came too late."""

    def __init__(
        self,
        intervals: Sequence[str],
        calendars: SessionFinder,
        event_time: EventTime,
        update_ms: int | None = None,
        forgotten: ForgottenBars | None = None,
    ) -> None:
        """Raise ValueError for wrong intervals; heals and gaps that come too late for a bar are
        counted in `forgotten`.

        With `update_ms` open bars that changed are published whenever the feed's event time reaches
        a multiple of it; then every interval takes each trade, since a coarse bar must be whole
        while it is open.
        """
        if update_ms is not None and update_ms <= 0:
            raise ValueError(
                f"update_ms={update_ms}: expected milliseconds above 0, or None for no updates"
            )
        self.ladder = ladder(intervals, folded=update_ms is None)
        finest, coarsest = self.ladder.intervals[0], self.ladder.intervals[-1]
        self.grid_ms = MINUTE if finest.is_session else finest.length_ms
        # bars are dropped when the watermark crosses the grid, so one may outlive the horizon by as
        # much
        self._reach = (
            HEALABLE_MS
            + (LONGEST_SESSION_MS if coarsest.is_session else coarsest.length_ms)
            + self.grid_ms
        )
        self._slots = [
            BarNumbers(MINUTE, LONGEST_SESSION_MS)
            if interval.is_session
            else BarNumbers(interval.length_ms, interval.length_ms)
            for interval in self.ladder.intervals
        ]
        self.forgotten = forgotten or ForgottenBars()
        self.names = [interval.name for interval in self.ladder.intervals]
        self._calendars = calendars
        self.event_time = event_time
        self._delay = event_time.watermark_delay_ms
        self.update_ms = update_ms
        self.finder = BarFinder(self.ladder.intervals, self._delay)
        self.healing = Healing(
            ladder(intervals),
            update_ms is None,
            self.finder,
            self.forgotten,
            event_time.revision_horizon_ms,
        )

    def load(self, partition: int, entries: Mapping[bytes, bytes]) -> BarsState:
        """Return the state that `dirty` yielded; raises BarSettingsChanged."""
        feeds = Feeds(self.event_time, partition, self._reach, entries)
        sessions = BegunSessions(self._calendars, "bars", partition, entries)
        return BarsState(
            partition, feeds, sessions, self.names, self.ladder.roots, self._slots, entries
        )

    def set_due(self, state: BarsState) -> None:
        """Set when anything is to be done next for each feed, after a load."""
        for timers in state.timers_by_feed.values():
            self._set_due(timers)

    def take(self, state: BarsState, rows: Rows, record: SourceRecord) -> None:
        """Fold a record of the partition, the next of the log. Raises SourcesMixed."""
        if isinstance(record, Trade):
            rows.offset, rows.ts_recv = record.offset, record.ts_recv
            self._trade(state, rows, record)
        elif isinstance(record, ControlRecord):
            rows.offset, rows.ts_recv = record.offset, record.control.ts_recv
            self._control(state, rows, record)
        elif isinstance(record, Heal):
            self.heal(state, rows, record)

    def _trade(self, state: BarsState, rows: Rows, trade: Trade) -> None:
        if not state.feeds.accept(trade):
            if not trade.repeat:
                self.refuse(state, rows, trade)
            return
        self.fold(state, rows, trade)
        timers = state.timers_by_feed.get(trade.feed)
        if timers is None:
            timers = state.timers(state.feeds.feed(trade.feed))
        if timers.feed.latest_event_ms >= timers.due:
            self._advance(state, rows, timers)

    def fold(self, state: BarsState, rows: Rows, trade: Trade) -> None:
        """Fold a trade that the feeds have accepted."""
        symbol_bars = state.symbols.get(trade.symbol)
        if symbol_bars is None:
            symbol_bars = state.of(trade.symbol)
        event = trade.ts_event
        for level, bar in symbol_bars.current.items():
            if bar.start <= event < bar.end:
                bar.add(trade)
                if not bar.dirty:
                    state.touch(bar)
            else:
                self._add_to_other_bar(state, rows, symbol_bars, level, trade)

    def heal(self, state: BarsState, rows: Rows, record: Heal) -> None:
        """Take a heal."""
        rows.offset, rows.ts_recv = record.offset, record.ts_recv
        self.healing.heal(state, rows, record)

    def _add_to_other_bar(
        self, state: BarsState, rows: Rows, symbol_bars: SymbolBars, level: int, trade: Trade
    ) -> None:
        bounds = self.finder.bounds(state, symbol_bars, trade.symbol, level, trade.ts_event)
        if bounds is None:
            return
        bar = self.finder.bar_within(
            state, symbol_bars, trade.symbol, level, bounds, trade.ts_event
        )
        if bar is None or self.healing.is_in_kline(symbol_bars, bar, trade.ts_event):
            return
        if bar.folded:
            piece = TimeBar(bar.level, bar.symbol, bar.start, bar.end)
            piece.add(trade)
            self._fold(state, rows, symbol_bars, bar, piece)
        else:
            bar.add(trade)
            state.touch(bar)
            # a bar that began in another business's session may end elsewhere: each of its trades
            # is looked up
            if (
                bar.start > symbol_bars.current[level].start
                and bar.end == bounds[1]
                and bar.provenance == "trades"
            ):
                symbol_bars.current[level] = bar

    def refuse(self, state: BarsState, rows: Rows, trade: Trade) -> None:
        """Write a trade that the feeds did not accept to the late trades."""
        watermark = state.feeds.watermark_of(trade.symbol)
        record = LateTradeRecord(
            trade.symbol,
            trade.ts_event,
            trade.price,
            trade.volume,
            divide_half_even(trade.price * trade.volume, UNIT),
            trade.direction,
            trade.trade_type,
            trade.feed,
            watermark,
            watermark - trade.ts_event,
            trade.source,
            trade.ts_recv,
            state.partition,
            trade.offset,
        )
        rows.append(LATE_TRADES, trade.symbol, record)

    def _control(self, state: BarsState, rows: Rows, record: ControlRecord) -> None:
        self.follow_symbols(state, rows, record)
        timers = state.timers(state.feeds.feed(record.control.feed))
        # without a time of its own yet a feed moves nothing, though a symbol may have come to it
        # with open bars
        if timers.feed.latest_event_ms != BEGINNING and timers.feed.latest_event_ms >= timers.due:
            self._advance(state, rows, timers)
        if record.control.kind == "end" and timers.feed.latest_event_ms != BEGINNING:
            self.progress(state, rows, timers)

    def follow_symbols(self, state: BarsState, rows: Rows, record: ControlRecord) -> set[str]:
        """Take a control record into the feeds, and revise the bars of the symbols whose coverage
        it changed; return these. Raises SourcesMixed."""
        feeds = state.feeds
        changed = feeds.control(record)
        for symbol, interruption in changed.items():
            symbol_bars = state.find(symbol)
            if symbol_bars is not None:
                self._follow(state, symbol, symbol_bars, interruption)
                self._count_forgotten(state, rows, symbol, symbol_bars, interruption)
                for bar in symbol_bars.matching(
                    closed=True, begin=interruption.begin, end=interruption.end
                ):
                    if bar.completeness != feeds.completeness(symbol, bar.start, bar.end):
                        state.publish(rows, bar, "gap")
                        # one that is complete now need not wait for a heal
                        self.finder.schedule(state, symbol_bars.timers, bar)
                while feeds.ended(symbol) and (still_open := symbol_bars.matching(closed=False)):
                    self.close(state, rows, still_open[0])
        return set(changed)

    def _count_forgotten(
        self,
        state: BarsState,
        rows: Rows,
        symbol: str,
        symbol_bars: SymbolBars,
        interruption: Interruption,
    ) -> None:
        begin, end, _ = interruption
        for level, start in symbol_bars.published.overlapping(begin, end):
            bounds = self.finder.bounds(state, symbol_bars, symbol, level, start)
            if bounds is not None and bounds[1] > begin:
                self.forgotten.gap(symbol, self.names[level], start, rows.offset)

    def _follow(
        self, state: BarsState, symbol: str, symbol_bars: SymbolBars, interruption: Interruption
    ) -> None:
        """Put a symbol's bars on the timers of its feed; reopen those that only its end had
        closed when it has begun."""
        feeds = state.feeds
        timers = state.timers(feeds.feed_of(symbol))
        moved, watermark = timers is not symbol_bars.timers, feeds.watermark_of(symbol)
        symbol_bars.timers = timers
        if moved:
            # the other feed may be of another business, whose session has other bounds
            symbol_bars.forget_current()
        elif interruption.end != FOREVER:
            # no end has closed a bar before its time: a reconnect need not look at those of two
            # days
            return
        for bar in symbol_bars.bars.values():
            reopened = bar.closed and bar.end > watermark and not feeds.ended(symbol)
            if reopened:
                bar.closed = False
                state.touch(bar)
            if moved or reopened:
                self.finder.schedule(state, timers, bar)

    def _advance(self, state: BarsState, rows: Rows, timers: BarTimers) -> None:
        watermark = timers.feed.latest_event_ms - self._delay
        for bar in state.pop(timers, closed=False, until=watermark):
            self.close(state, rows, bar)
        if self.update_ms is not None and timers.feed.latest_event_ms >= timers.tick:
            for bar in state.open_bars(timers):
                if bar.count != bar.published:
                    state.publish(rows, bar, "update")
        if watermark >= timers.boundary:
            self.progress(state, rows, timers)
            self.drop_closed(state, timers)
            # the boundary follows the watermark before this one
            if watermark // DAY != (timers.boundary - 1) // DAY:
                state.forget_idle(timers, self.healable_until(timers))
        self._set_due(timers)

    def drop_closed(self, state: BarsState, timers: BarTimers) -> None:
        """Drop the closed bars of a feed that nothing can revise any more."""
        healable_until = self.healable_until(timers)
        for bar in state.pop(timers, closed=True, until=healable_until + HEALABLE_MS):
            if bar.end <= healable_until:
                state.drop(bar)
            elif bar.completeness == "complete":
                state.forget(bar, healable_until)
            else:
                state.schedule(timers, bar, HEALABLE_MS)

    def healable_until(self, timers: BarTimers) -> int:
        """Return until which end, in ms, the bars of a feed are out of every heal's reach."""
        watermark = timers.feed.latest_event_ms - self._delay
        return watermark - self.event_time.revision_horizon_ms - HEALABLE_MS

    def _set_due(self, timers: BarTimers) -> None:
        event = timers.feed.latest_event_ms
        timers.boundary = _next(event - self._delay, self.grid_ms)
        timers.tick = FOREVER if self.update_ms is None else _next(event, self.update_ms)
        timers.due = min(timers.boundary + self._delay, timers.tick)
        if timers.open:
            timers.due = min(timers.due, timers.open[0][0] + self._delay)

    def progress(self, state: BarsState, rows: Rows, timers: BarTimers) -> None:
        """Say how far a feed is done."""
        name = timers.feed.name
        rows.append(
            PROGRESS,
            name,
            ProgressRecord(
                state.partition, name, timers.feed.latest_event_ms - self._delay, rows.offset
            ),
        )

    def close(self, state: BarsState, rows: Rows, bar: TimeBar) -> None:
        """Close an open bar, whose turn it is."""
        symbol_bars = state.symbols[bar.symbol]
        bar.closed = True
        self.finder.schedule(state, symbol_bars.timers, bar)
        if symbol_bars.current.get(bar.level) is bar:
            symbol_bars.current[bar.level] = NO_BAR
        if not bar.folded:
            bar.folded = True
            for level in self.ladder.coarser[bar.level]:
                coarse = self.finder.bar_at(
                    state, symbol_bars, bar.symbol, level, bar.start, open_anyway=True
                )
                if coarse is not None:
                    self._fold(state, rows, symbol_bars, coarse, bar)
        state.publish(rows, bar, "healed" if bar.provenance == "klines" else "close")

    def _fold(
        self, state: BarsState, rows: Rows, symbol_bars: SymbolBars, bar: TimeBar, piece: TimeBar
    ) -> None:
        if bar.provenance == "klines":
            return
        bar.fold(piece)
        if bar.closed:
            state.publish(rows, bar, "late")
        else:
            state.touch(bar)
        if bar.folded:
            for level in self.ladder.coarser[bar.level]:
                coarse = self.finder.bar_at(state, symbol_bars, bar.symbol, level, piece.ts_first)
                if coarse is not None:
                    self._fold(state, rows, symbol_bars, coarse, piece)


def _next(now: int, step: int) -> int:
    return (now // step + 1) * step
