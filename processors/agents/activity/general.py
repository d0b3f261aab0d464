"""The general path of activity bars, in Python's integers: which bar a trade belongs to, when it is
full, when its trade date is over.

It is the reference of the kernel. Beside it, it serves for whatever is rare; without it, it serves
alone.

A trade belongs wholly to the bar that is open for its trade date when it comes, also where it
overshoots the threshold; so a bar that is closed is never revised. A bar that is not full closes
when no trade of its date can be accepted any more.
"""

from collections.abc import Iterable, Mapping, Sequence
from heapq import heappop, heappush

from processors.agents.activity.state import ActivityBar, ActivityState, DayTimers, OpenDay
from processors.agents.activity.thresholds import thresholds
from processors.model.begun_sessions import BegunSessions, SessionFinder
from processors.model.event_time import EventTime, Feeds
from processors.model.observation import BEGINNING, FOREVER
from processors.model.records import ControlRecord, Rows, SourceRecord, Trade
from processors.model.trading_days import LONGEST_SESSION_MS
from schemas.decimals import UNIT, divide_half_even
from schemas.records import ActivityBarRecord


class GeneralActivityBars:
    """Bars of every threshold, and the trade dates that they are of."""

    def __init__(
        self,
        bars: Sequence[str],
        calendars: SessionFinder,
        event_time: EventTime,
        update_ms: int | None = None,
    ) -> None:
        """Raise ValueError, for names ActivityBarsWrong.

        With `update_ms` open bars that changed are published whenever the feed's event time reaches
        a multiple of it.
        """
        if update_ms is not None and update_ms <= 0:
            raise ValueError(
                f"update_ms={update_ms}: expected milliseconds above 0, or None for no updates"
            )
        self.thresholds = thresholds(bars)
        self._calendars = calendars
        self.event_time = event_time
        self._tolerance = event_time.watermark_delay_ms + event_time.revision_horizon_ms
        self._update_ms = update_ms

    def load(self, partition: int, entries: Mapping[bytes, bytes]) -> ActivityState:
        """Return the state that `dirty` yielded; raises BarSettingsChanged."""
        feeds = Feeds(self.event_time, partition, LONGEST_SESSION_MS, entries)
        sessions = BegunSessions(self._calendars, "activity", partition, entries)
        state = ActivityState(
            partition, feeds, sessions, [threshold.name for threshold in self.thresholds], entries
        )
        for known in state.symbols.values():
            for day in known.days.values():
                self._schedule(known.timers, day)
        for timers in state.timers_by_feed.values():
            self._set_due(timers)
        return state

    def take(self, state: ActivityState, rows: Rows, record: SourceRecord) -> None:
        """Fold a record of the partition, the next of the log. Raises SourcesMixed."""
        if isinstance(record, Trade):
            rows.offset, rows.ts_recv = record.offset, record.ts_recv
            self._trade(state, rows, record)
        elif isinstance(record, ControlRecord):
            self.control(state, rows, record)

    def _trade(self, state: ActivityState, rows: Rows, trade: Trade) -> None:
        if not state.feeds.accept(trade):
            return
        known = state.symbols.get(trade.symbol)
        if (
            known is not None
            and known.start <= trade.ts_event < known.end
            and trade.business == known.business
        ):
            day = known.today
        else:
            day = self._day_of(state, trade)
        if day is not None:
            self._fold(state, rows, day, trade)
        timers = state.timers_by_feed.get(trade.feed)
        if timers is None:
            timers = state.timers(state.feeds.feed(trade.feed))
        if timers.feed.latest_event_ms >= timers.due:
            self.advance(state, rows, timers)

    def _day_of(self, state: ActivityState, trade: Trade) -> OpenDay | None:
        session = state.sessions.session_of(trade.business, trade.symbol, trade.ts_event)
        if session is None:
            return None
        day = state.day(trade.symbol, session.trade_date)
        known = state.symbols[trade.symbol]
        known.business, known.start, known.end, known.today = (
            trade.business,
            session.start,
            session.end,
            day,
        )
        if session.end > day.end:  # a new day
            day.end = session.end
            self._schedule(known.timers, day)
        return day

    def _fold(self, state: ActivityState, rows: Rows, day: OpenDay, trade: Trade) -> None:
        turnover = trade.price * trade.volume
        for index, threshold in enumerate(self.thresholds):
            bar = day.bars[index]
            bar.add(trade, turnover)
            if threshold.total(bar) >= threshold.limit:
                self._publish(state, rows, day, index, "close")
                day.bars[index] = ActivityBar(bar.index + 1)
        if not day.dirty:
            state.touch(day)

    def control(self, state: ActivityState, rows: Rows, record: ControlRecord) -> Iterable[str]:
        """Take a control record; return the symbols whose coverage it changed. Raises
        SourcesMixed."""
        rows.offset, rows.ts_recv = record.offset, record.control.ts_recv
        feeds = state.feeds
        changed = feeds.control(record)
        for symbol in changed:
            known = state.symbols.get(symbol)
            if known is None:
                continue
            timers = state.timers(feeds.feed_of(symbol))
            if timers is not known.timers:
                known.timers = timers
                for day in known.days.values():
                    self._schedule(timers, day)
            if record.control.kind == "end":
                for trade_date in sorted(known.days):
                    self._update(state, rows, known.days[trade_date])
        timers = state.timers(feeds.feed(record.control.feed))
        # without a time of its own yet a feed moves nothing, though a symbol may have come to it
        # with open bars
        if timers.feed.latest_event_ms != BEGINNING and timers.feed.latest_event_ms >= timers.due:
            self.advance(state, rows, timers)
        return changed

    def advance(self, state: ActivityState, rows: Rows, timers: DayTimers) -> None:
        """Do what is due at the event time of a feed: close bars whose trade date is over, publish
        updates."""
        event = timers.feed.latest_event_ms
        while timers.days and timers.days[0][0] <= event - self._tolerance:
            day = state.waiting(timers, heappop(timers.days))
            if day is not None:
                self._end(state, rows, day)
        if self._update_ms is not None and event >= timers.tick:
            for entry in sorted(set(timers.days)):
                day = state.waiting(timers, entry)
                if day is not None:
                    self._update(state, rows, day)
        self._set_due(timers)

    def _set_due(self, timers: DayTimers) -> None:
        timers.tick = (
            FOREVER
            if self._update_ms is None
            else (timers.feed.latest_event_ms // self._update_ms + 1) * self._update_ms
        )
        timers.due = min(
            timers.tick, timers.days[0][0] + self._tolerance if timers.days else FOREVER
        )

    def _schedule(self, timers: DayTimers, day: OpenDay) -> None:
        heappush(timers.days, (day.end, day.symbol, day.trade_date))
        timers.due = min(timers.due, day.end + self._tolerance)

    def _end(self, state: ActivityState, rows: Rows, day: OpenDay) -> None:
        state.lend(day.symbol, False)
        for index, bar in enumerate(day.bars):
            if bar.count:
                self._publish(state, rows, day, index, "session_end")
        state.drop(day)

    def _update(self, state: ActivityState, rows: Rows, day: OpenDay) -> None:
        state.lend(day.symbol, True)
        for index, bar in enumerate(day.bars):
            if bar.count != bar.published:
                self._publish(state, rows, day, index, "update")
                state.touch(day)

    def _publish(
        self, state: ActivityState, rows: Rows, day: OpenDay, index: int, cause: str
    ) -> None:
        bar, threshold = day.bars[index], self.thresholds[index]
        bar.revision += 1
        bar.published = bar.count
        source = state.feeds.source
        assert source is not None  # a bar has had a record
        record = ActivityBarRecord(
            day.symbol,
            threshold.kind,
            threshold.value,
            day.trade_date,
            bar.index,
            bar.open,
            bar.high,
            bar.low,
            bar.close,
            bar.volume,
            divide_half_even(bar.turnover, UNIT),
            divide_half_even(bar.turnover, bar.volume) if bar.volume else None,
            bar.buy,
            bar.sell,
            bar.count,
            bar.ts_first,
            bar.ts_last,
            bar.revision,
            cause != "update",
            cause,
            state.feeds.completeness(day.symbol, bar.ts_first, bar.ts_last + 1),
            source,
            max(bar.ts_recv, rows.ts_recv),
            state.partition,
            rows.offset,
        )
        rows.append(f"infoway.bars.{threshold.name}", day.symbol, record)
