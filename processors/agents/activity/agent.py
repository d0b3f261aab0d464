"""The activity agent: bars of so many trades, so much volume or turnover, in log order; no time bars, no late topic.

A trade belongs wholly to the bar that is open for its trade date when it comes, also where it overshoots the threshold;
so a bar that is closed is never revised. A bar that is not full closes when no trade of its date can be accepted any more.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from operator import attrgetter

from processors.activity_state import ActivityBar, ActivityState, Clock, Day
from processors.bars import SessionFinder
from processors.feeds import BEGINNING, FOREVER, EventTime, Feeds
from processors.records import ControlRecord, Record, Row, Trade
from schemas.decimals import LIMIT, UNIT, divide_half_even, to_units

_LONGEST_SESSION_MS = 48 * 3_600_000

_NAME = re.compile(r"(tick|volume|turnover)-((?:0|[1-9][0-9]{0,19})(?:\.[0-9]{1,18})?)", re.ASCII)


class ActivityBarsWrong(ValueError):
    """Names that no activity bars can be made of; the message lists every mistake and what is allowed."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """What completes the bars of a name: `value` in units of 10^-18, `limit` in those of the total that it is held against."""

    name: str
    kind: str
    value: int
    limit: int
    total: Callable[[ActivityBar], int]


def thresholds(names: Sequence[str]) -> tuple[Threshold, ...]:
    """Return what completes the bars of these names, by kind and size; raises ActivityBarsWrong."""
    mistakes: list[str] = [] if names else ["none given"]
    found: dict[tuple[str, int], Threshold] = {}
    for name in names:
        match = _NAME.fullmatch(name)
        kind, value = (match[1], to_units(match[2])) if match else ("", 0)
        if value == 0 or (kind == "tick" and value % UNIT):
            mistakes.append(repr(name))
        elif (kind, value) in found:
            mistakes.append(f"{name!r} (the same as {found[kind, value].name!r})")
        else:
            limit = {"tick": value // UNIT, "volume": value, "turnover": value * UNIT}[kind]
            found[kind, value] = Threshold(
                name, kind, value, limit, attrgetter("count" if kind == "tick" else kind)
            )
    if mistakes:
        raise ActivityBarsWrong(
            f"activity bars: {', '.join(mistakes)}; allowed, each once: tick-<trades>, volume-<volume> and turnover-<turnover>, a plain "
            f"decimal above 0 and below {LIMIT // UNIT} with at most 18 digits behind the point, whole for tick: tick-1000, "
            "volume-0.5, turnover-1000000"
        )
    return tuple(found[place] for place in sorted(found))


class ActivityBars:
    """The agent `activity`: rows of `infoway.bars.<name>`, `tick-1000`, `volume-0.5` or `turnover-1000000`."""

    name = "activity"

    def __init__(
        self,
        bars: Sequence[str],
        calendars: SessionFinder,
        event_time: EventTime,
        update_ms: int | None = None,
    ) -> None:
        """Raise ValueError, for names ActivityBarsWrong.

        With `update_ms` open bars that changed are published whenever the feed's event time reaches a multiple of it.
        """
        if update_ms is not None and update_ms <= 0:
            raise ValueError(
                f"update_ms={update_ms}: expected milliseconds above 0, or None for no updates"
            )
        self._thresholds = thresholds(bars)
        self._calendars = calendars
        self._event_time = event_time
        self._tolerance = event_time.watermark_delay_ms + event_time.revision_horizon_ms
        self._update_ms = update_ms

    def load(self, partition: int, entries: Mapping[bytes, bytes]) -> ActivityState:
        """Return the state that `dirty` yielded; raises BarSettingsChanged."""
        feeds = Feeds(self._event_time, partition, _LONGEST_SESSION_MS, entries)
        state = ActivityState(
            partition, feeds, [threshold.name for threshold in self._thresholds], entries
        )
        for known in state.symbols.values():
            for day in known.days.values():
                self._schedule(known.clock, day)
        for clock in state.clocks.values():
            self._wind(clock)
        return state

    def apply(self, state: ActivityState, records: Sequence[Record]) -> list[Row]:
        """Fold records of the partition in log order; return the bars to publish, in order. Raises SourcesMixed."""
        state.rows = []
        for record in records:
            if isinstance(record, Trade):
                state.offset, state.ts_recv = record.offset, record.ts_recv
                self._trade(state, record)
            elif isinstance(record, ControlRecord):
                state.offset, state.ts_recv = record.offset, record.control.ts_recv
                self._control(state, record)
        return state.rows

    def dirty(self, state: ActivityState) -> Iterator[tuple[bytes, bytes | None]]:
        """Yield what changed since the last call, and forget it."""
        return state.dirty()

    def _trade(self, state: ActivityState, trade: Trade) -> None:
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
            self._fold(state, day, trade)
        clock = state.clocks.get(trade.feed)
        if clock is None:
            clock = state.clock(state.feeds.feed(trade.feed))
        if clock.feed.event >= clock.due:
            self._advance(state, clock)

    def _day_of(self, state: ActivityState, trade: Trade) -> Day | None:
        session = self._calendars.session_of(trade.business, trade.symbol, trade.ts_event)
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
        # a new day, or one that ends later by a corrected calendar
        if session.end > day.end:
            day.end = session.end
            self._schedule(known.clock, day)
        return day

    def _fold(self, state: ActivityState, day: Day, trade: Trade) -> None:
        turnover = trade.price * trade.volume
        for place, threshold in enumerate(self._thresholds):
            bar = day.bars[place]
            bar.add(trade, turnover)
            if threshold.total(bar) >= threshold.limit:
                self._publish(state, day, place, "close")
                day.bars[place] = ActivityBar(bar.index + 1)
        if not day.dirty:
            state.touch(day)

    def _control(self, state: ActivityState, record: ControlRecord) -> None:
        feeds = state.feeds
        for symbol in feeds.control(record):
            known = state.symbols.get(symbol)
            if known is None:
                continue
            clock = state.clock(feeds.feed_of(symbol))
            if clock is not known.clock:
                known.clock = clock
                for day in known.days.values():
                    self._schedule(clock, day)
            if record.control.kind == "end":
                for trade_date in sorted(known.days):
                    self._update(state, known.days[trade_date])
        clock = state.clock(feeds.feed(record.control.feed))
        # without a time of its own yet a feed moves nothing, though a symbol may have come to it with open bars
        if clock.feed.event != BEGINNING and clock.feed.event >= clock.due:
            self._advance(state, clock)

    def _advance(self, state: ActivityState, clock: Clock) -> None:
        event = clock.feed.event
        while clock.days and clock.days[0][0] <= event - self._tolerance:
            day = state.waiting(clock, heappop(clock.days))
            if day is not None:
                self._end(state, day)
        if self._update_ms is not None and event >= clock.tick:
            for entry in sorted(set(clock.days)):
                day = state.waiting(clock, entry)
                if day is not None:
                    self._update(state, day)
        self._wind(clock)

    def _wind(self, clock: Clock) -> None:
        clock.tick = (
            FOREVER
            if self._update_ms is None
            else (clock.feed.event // self._update_ms + 1) * self._update_ms
        )
        clock.due = min(clock.tick, clock.days[0][0] + self._tolerance if clock.days else FOREVER)

    def _schedule(self, clock: Clock, day: Day) -> None:
        heappush(clock.days, (day.end, day.symbol, day.trade_date))
        clock.due = min(clock.due, day.end + self._tolerance)

    def _end(self, state: ActivityState, day: Day) -> None:
        for place, bar in enumerate(day.bars):
            if bar.count:
                self._publish(state, day, place, "session_end")
        state.drop(day)

    def _update(self, state: ActivityState, day: Day) -> None:
        for place, bar in enumerate(day.bars):
            if bar.count != bar.published:
                self._publish(state, day, place, "update")
                state.touch(day)

    def _publish(self, state: ActivityState, day: Day, place: int, cause: str) -> None:
        bar, threshold = day.bars[place], self._thresholds[place]
        bar.revision += 1
        bar.published = bar.count
        fields = (
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
            state.feeds.source,
            max(bar.ts_recv, state.ts_recv),
            state.partition,
            state.offset,
        )
        state.rows.append((f"infoway.bars.{threshold.name}", day.symbol, fields))
