"""The bars agent's computation: which bar a trade belongs to, when a bar closes, what revises it, how far a feed is done.

A bar is closed where its symbol's watermark has reached its end, or the symbol has ended; what comes after revises it.
The finest interval takes each trade; a coarser bar is folded from finer ones as they close. Where the feed was not
healthy, the vendor's kline takes a bar's place (`Heal`), and the coarser bars are corrected by what that changes.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from processors.bar_state import NO_BAR, BarsState, Clock, SymbolBars
from processors.feeds import BEGINNING, FOREVER, EventTime, Feeds
from processors.intervals import DAY, MINUTE, ladder
from processors.ohlcv import Bar
from processors.records import ControlRecord, Heal, Record, Row, Trade
from schemas.decimals import UNIT, divide_half_even

_LONGEST_SESSION = 2 * DAY
_HEALABLE = 2 * DAY
"""How long after its end a bar that is not complete can still be healed, in event time."""


class Session(Protocol):
    """A market's session: `trade_date` in days since 1970, [start, end) in ms on whole minutes."""

    @property
    def trade_date(self) -> int: ...
    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...


class SessionFinder(Protocol):
    """Where sessions are looked up."""

    def session_of(self, business: str, symbol: str, ts_ms: int) -> Session | None:
        """Return the session that the time belongs to, None between sessions."""
        ...


class Bars:
    """Time bars of every interval, the progress of feeds, and the trades that came too late."""

    name = "bars"

    def __init__(
        self,
        intervals: Sequence[str],
        calendars: SessionFinder,
        event_time: EventTime,
        update_ms: int | None = None,
    ) -> None:
        """Raise ValueError for wrong intervals.

        With `update_ms` open bars that changed are published whenever the feed's event time reaches a multiple of it; then
        every interval takes each trade, since a coarse bar must be whole while it is open.
        """
        if update_ms is not None and update_ms <= 0:
            raise ValueError(
                f"update_ms={update_ms}: expected milliseconds above 0, or None for no updates"
            )
        self._ladder = ladder(intervals, folded=update_ms is None)
        finest, coarsest = self._ladder.intervals[0], self._ladder.intervals[-1]
        self._grid = MINUTE if finest.is_session else finest.length
        # bars are dropped when the watermark crosses the grid, so one may outlive the horizon by as much
        self._reach = (
            _HEALABLE + (_LONGEST_SESSION if coarsest.is_session else coarsest.length) + self._grid
        )
        self._above = ladder(intervals).coarser
        self._names = [interval.name for interval in self._ladder.intervals]
        self._places = {name: place for place, name in enumerate(self._names)}
        self._topics = [f"infoway.bars.{name}" for name in self._names]
        self._calendars = calendars
        self._event_time = event_time
        self._delay = event_time.watermark_delay_ms
        self._update_ms = update_ms

    def load(self, partition: int, entries: Mapping[bytes, bytes]) -> BarsState:
        """Return the state that `dirty` yielded; raises BarSettingsChanged."""
        feeds = Feeds(self._event_time, partition, self._reach, entries)
        state = BarsState(partition, feeds, self._names, self._ladder.roots, entries)
        for clock in state.clocks.values():
            self._wind(clock)
        return state

    def apply(self, state: BarsState, records: Sequence[Record]) -> list[Row]:
        """Fold records of the partition in log order; return bars, progress and late trades, in order. Raises SourcesMixed."""
        state.rows = []
        for record in records:
            if isinstance(record, Trade):
                state.offset, state.ts_recv = record.offset, record.ts_recv
                self._trade(state, record)
            elif isinstance(record, ControlRecord):
                state.offset, state.ts_recv = record.offset, record.control.ts_recv
                self._control(state, record)
            elif isinstance(record, Heal):
                state.offset, state.ts_recv = record.offset, record.ts_recv
                self._heal(state, record)
        return state.rows

    def dirty(self, state: BarsState) -> Iterator[tuple[bytes, bytes | None]]:
        """Yield what changed since the last call, and forget it."""
        return state.dirty()

    def _trade(self, state: BarsState, trade: Trade) -> None:
        if not state.feeds.accept(trade):
            if not trade.repeat:
                self._refuse(state, trade)
            return
        symbol_bars = state.symbols.get(trade.symbol)
        if symbol_bars is None:
            symbol_bars = state.of(trade.symbol)
        event = trade.ts_event
        for place, bar in symbol_bars.current.items():
            if bar.start <= event < bar.end:
                bar.add(trade)
                if not bar.dirty:
                    state.touch(bar)
            else:
                self._place(state, symbol_bars, place, trade)
        clock = state.clocks.get(trade.feed)
        if clock is None:
            clock = state.clock(state.feeds.feed(trade.feed))
        if clock.feed.event >= clock.due:
            self._advance(state, clock)

    def _place(self, state: BarsState, symbol_bars: SymbolBars, place: int, trade: Trade) -> None:
        bar = self._bar_at(state, symbol_bars, trade.symbol, place, trade.ts_event)
        if bar is None or self._is_in_kline(symbol_bars, bar, trade.ts_event):
            return
        if bar.folded:
            piece = Bar(bar.place, bar.symbol, bar.start, bar.end)
            piece.add(trade)
            self._fold(state, symbol_bars, bar, piece)
        else:
            bar.add(trade)
            state.touch(bar)
            if bar.start > symbol_bars.current[place].start and bar.provenance == "trades":
                symbol_bars.current[place] = bar

    def _is_in_kline(self, symbol_bars: SymbolBars, bar: Bar, event: int) -> bool:
        """Return whether a kline stands in this bar for the time of a trade: it has the trade already."""
        if bar.provenance != "mixed":
            return bar.provenance == "klines"
        finer = (place for place, coarser in enumerate(self._above) if bar.place in coarser)
        pieces = (
            symbol_bars.bars.get((place, event - event % self._ladder.intervals[place].length))
            for place in finer
        )
        return any(
            piece is not None and self._is_in_kline(symbol_bars, piece, event) for piece in pieces
        )

    def _heal(self, state: BarsState, heal: Heal) -> None:
        place, feeds = self._places.get(heal.interval), state.feeds
        if place is None or not feeds.knows(heal.symbol):
            return
        oldest = feeds.watermark_of(heal.symbol) - self._event_time.revision_horizon_ms - _HEALABLE
        traded = heal.volume or heal.turnover or min(heal.prices) != max(heal.prices)
        # the trades are the better truth where all were seen; older than that is not remembered
        if (
            not traded
            or heal.ts_end <= oldest
            or feeds.completeness(heal.symbol, heal.ts_start, heal.ts_end) == "complete"
        ):
            return
        symbol_bars = state.of(heal.symbol)
        bar = self._bar_at(state, symbol_bars, heal.symbol, place, heal.ts_start)
        assert bar is not None  # only a session interval has times without a bar, and no heal
        figures = (*heal.prices, heal.volume, heal.turnover * UNIT)
        if bar.provenance == "klines" and figures == (
            bar.open,
            bar.high,
            bar.low,
            bar.close,
            bar.volume,
            bar.turnover,
        ):
            return
        grown = bar.replace(heal)
        self._show_healed(state, symbol_bars, bar)
        if bar.folded or self._update_ms is not None:
            self._correct(state, symbol_bars, bar, bar.place, *grown)

    def _correct(
        self,
        state: BarsState,
        symbol_bars: SymbolBars,
        healed: Bar,
        place: int,
        volume: int,
        turnover: int,
    ) -> None:
        for coarser in self._above[place]:
            bar = self._bar_at(state, symbol_bars, healed.symbol, coarser, healed.start)
            if bar is None or bar.provenance == "klines":
                continue
            bar.correct(healed, volume, turnover)
            self._show_healed(state, symbol_bars, bar)
            if bar.folded or self._update_ms is not None:
                self._correct(state, symbol_bars, healed, coarser, volume, turnover)

    def _show_healed(self, state: BarsState, symbol_bars: SymbolBars, bar: Bar) -> None:
        if symbol_bars.current.get(bar.place) is bar:
            symbol_bars.current[bar.place] = NO_BAR
        if bar.closed:
            self._publish(state, bar, "healed")
        else:
            state.touch(bar)

    def _refuse(self, state: BarsState, trade: Trade) -> None:
        watermark = state.feeds.watermark_of(trade.symbol)
        fields = (
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
        state.rows.append(("infoway.late", trade.symbol, fields))

    def _control(self, state: BarsState, record: ControlRecord) -> None:
        feeds = state.feeds
        for symbol in feeds.control(record):
            symbol_bars = state.symbols.get(symbol)
            if symbol_bars is not None:
                self._follow(state, symbol, symbol_bars)
                for bar in symbol_bars.matching(closed=True):
                    if bar.completeness != feeds.completeness(symbol, bar.start, bar.end):
                        self._publish(state, bar, "gap")
                while feeds.ended(symbol) and (still_open := symbol_bars.matching(closed=False)):
                    self._close(state, still_open[0])
        clock = state.clock(feeds.feed(record.control.feed))
        # without a time of its own yet a feed moves nothing, though a symbol may have come to it with open bars
        if clock.feed.event != BEGINNING and clock.feed.event >= clock.due:
            self._advance(state, clock)
        if record.control.kind == "end" and clock.feed.event != BEGINNING:
            self._progress(state, clock)

    def _follow(self, state: BarsState, symbol: str, symbol_bars: SymbolBars) -> None:
        """Put a symbol's bars on the clock of its feed; those that only its end had closed are open again when it has begun."""
        feeds = state.feeds
        clock = state.clock(feeds.feed_of(symbol))
        moved, watermark = clock is not symbol_bars.clock, feeds.watermark_of(symbol)
        symbol_bars.clock = clock
        for bar in symbol_bars.bars.values():
            reopened = bar.closed and bar.end > watermark and not feeds.ended(symbol)
            if reopened:
                bar.closed = False
                state.touch(bar)
            if moved or reopened:
                self._schedule(state, clock, bar)

    def _advance(self, state: BarsState, clock: Clock) -> None:
        watermark = clock.feed.event - self._delay
        for bar in state.pop(clock, closed=False, until=watermark):
            self._close(state, bar)
        if self._update_ms is not None and clock.feed.event >= clock.tick:
            for bar in state.open_bars(clock):
                if bar.count != bar.published:
                    self._publish(state, bar, "update")
        if watermark >= clock.boundary:
            self._progress(state, clock)
            unrevisable = watermark - self._event_time.revision_horizon_ms
            for bar in state.pop(clock, closed=True, until=unrevisable):
                if bar.completeness == "complete" or bar.end + _HEALABLE <= unrevisable:
                    state.drop(bar)
                else:
                    state.schedule(clock, bar, _HEALABLE)
        self._wind(clock)

    def _wind(self, clock: Clock) -> None:
        event = clock.feed.event
        clock.boundary = _next(event - self._delay, self._grid)
        clock.tick = FOREVER if self._update_ms is None else _next(event, self._update_ms)
        clock.due = min(clock.boundary + self._delay, clock.tick)
        if clock.open:
            clock.due = min(clock.due, clock.open[0][0] + self._delay)

    def _progress(self, state: BarsState, clock: Clock) -> None:
        name = clock.feed.name
        state.rows.append(
            (
                "infoway.progress",
                name,
                (state.partition, name, clock.feed.event - self._delay, state.offset),
            )
        )

    def _close(self, state: BarsState, bar: Bar) -> None:
        symbol_bars = state.symbols[bar.symbol]
        bar.closed = True
        self._schedule(state, symbol_bars.clock, bar)
        if symbol_bars.current.get(bar.place) is bar:
            symbol_bars.current[bar.place] = NO_BAR
        if not bar.folded:
            bar.folded = True
            for place in self._ladder.coarser[bar.place]:
                coarse = self._bar_at(
                    state, symbol_bars, bar.symbol, place, bar.start, open_anyway=True
                )
                if coarse is not None:
                    self._fold(state, symbol_bars, coarse, bar)
        self._publish(state, bar, "healed" if bar.provenance == "klines" else "close")

    def _fold(self, state: BarsState, symbol_bars: SymbolBars, bar: Bar, piece: Bar) -> None:
        if bar.provenance == "klines":
            return
        bar.fold(piece)
        if bar.closed:
            self._publish(state, bar, "late")
        else:
            state.touch(bar)
        if bar.folded:
            for place in self._ladder.coarser[bar.place]:
                coarse = self._bar_at(state, symbol_bars, bar.symbol, place, piece.ts_first)
                if coarse is not None:
                    self._fold(state, symbol_bars, coarse, piece)

    def _bar_at(
        self,
        state: BarsState,
        symbol_bars: SymbolBars,
        symbol: str,
        place: int,
        event: int,
        open_anyway: bool = False,
    ) -> Bar | None:
        """Return the bar of an event time, made where there is none; None outside of the market's sessions.

        A new bar whose time is over is closed from the start, unless `open_anyway`: a finer bar closes into it, and its turn comes.
        """
        interval = self._ladder.intervals[place]
        trade_date: int | None = None
        if interval.is_session:
            session = self._calendars.session_of(symbol_bars.clock.feed.business, symbol, event)
            if session is None:
                return None
            start, end, trade_date = session.start, session.end, session.trade_date
            if start % MINUTE or end % MINUTE:
                raise ValueError(f"{symbol}: the session [{start}, {end}) is not on whole minutes")
        else:
            start = event - event % interval.length
            end = start + interval.length
        bar = symbol_bars.bars.get((place, start))
        if bar is None:
            closed = not open_anyway and (
                end <= state.feeds.watermark_of(symbol) or state.feeds.ended(symbol)
            )
            bar = symbol_bars.bars[place, start] = Bar(
                place, symbol, start, end, trade_date, closed, folded=closed
            )
            self._schedule(state, symbol_bars.clock, bar)
        return bar

    def _schedule(self, state: BarsState, clock: Clock, bar: Bar) -> None:
        state.schedule(clock, bar)
        if not bar.closed:
            clock.due = min(clock.due, bar.end + self._delay)

    def _publish(self, state: BarsState, bar: Bar, cause: str) -> None:
        bar.revision += 1
        bar.published = bar.count
        bar.completeness = state.feeds.completeness(bar.symbol, bar.start, bar.end)
        state.touch(bar)
        fields = bar.fields(
            self._names[bar.place],
            cause,
            state.feeds.source,
            state.ts_recv,
            state.partition,
            state.offset,
        )
        state.rows.append((self._topics[bar.place], bar.symbol, fields))


def _next(now: int, step: int) -> int:
    return (now // step + 1) * step
