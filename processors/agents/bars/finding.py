"""Which bar an event time belongs to, by the ladder and the market's sessions; makes the bar where
there is none."""

from collections.abc import Sequence

from processors.agents.bars.figures import TimeBar
from processors.agents.bars.state import BarsState, BarTimers, SymbolBars
from processors.model.intervals import MINUTE, Interval
from processors.model.trading_days import Session

Bounds = tuple[int, int, int | None]
"""Start and end of a bar in ms UTC, and the trade date of a session."""


class BarFinder:
    """Finds and makes the bars of an agent's intervals."""

    def __init__(self, intervals: Sequence[Interval], watermark_delay_ms: int) -> None:
        self._intervals = intervals
        self._delay = watermark_delay_ms
        self._has_sessions = intervals[-1].is_session

    def bar_at(
        self,
        state: BarsState,
        symbol_bars: SymbolBars,
        symbol: str,
        level: int,
        event: int,
        open_anyway: bool = False,
    ) -> TimeBar | None:
        """Return the bar of an event time as `bar_within`; None outside of the market's sessions,
        too."""
        bounds = self.bounds(state, symbol_bars, symbol, level, event)
        return (
            None
            if bounds is None
            else self.bar_within(state, symbol_bars, symbol, level, bounds, event, open_anyway)
        )

    def bounds(
        self, state: BarsState, symbol_bars: SymbolBars, symbol: str, level: int, event: int
    ) -> Bounds | None:
        """Return start, end and trade date of the bar that an event time belongs to, None between
        sessions."""
        interval = self._intervals[level]
        if not interval.is_session:
            start = event - event % interval.length_ms
            return start, start + interval.length_ms, None
        session = session_of(state, symbol_bars.timers.feed.business, symbol, event)
        return None if session is None else (session.start, session.end, session.trade_date)

    def bar_within(
        self,
        state: BarsState,
        symbol_bars: SymbolBars,
        symbol: str,
        level: int,
        bounds: Bounds,
        event: int,
        open_anyway: bool = False,
    ) -> TimeBar | None:
        """Return the bar that starts there, made where there is none; None for one that was
        published and forgotten.

        A new bar whose time is over is closed from the start, unless `open_anyway`: a finer bar
        closes into it, and its turn comes.
        """
        start, end, trade_date = bounds
        bar = symbol_bars.bars.get((level, start))
        if bar is None:
            if symbol_bars.published.has(level, start):
                return None
            if self._has_sessions and not self._intervals[level].is_session:
                # a session begins with its first trade, not only when the first bar is folded into
                # it
                state.sessions.session_of(symbol_bars.timers.feed.business, symbol, event)
            closed = not open_anyway and (
                end <= state.feeds.watermark_of(symbol) or state.feeds.ended(symbol)
            )
            bar = symbol_bars.bars[level, start] = TimeBar(
                level, symbol, start, end, trade_date, closed, folded=closed
            )
            self.schedule(state, symbol_bars.timers, bar)
        return bar

    def schedule(self, state: BarsState, timers: BarTimers, bar: TimeBar) -> None:
        """Let the bar wait for its feed, whose timers may be due earlier now."""
        state.schedule(timers, bar)
        if not bar.closed:
            timers.due = min(timers.due, bar.end + self._delay)


def session_of(state: BarsState, business: str, symbol: str, event: int) -> Session | None:
    """Return the session of an event time, which has begun from now on; None between sessions.
    Raises ValueError if it is not on whole minutes."""
    session = state.sessions.session_of(business, symbol, event)
    if session is not None and (session.start % MINUTE or session.end % MINUTE):
        raise ValueError(
            f"{symbol}: the session [{session.start}, {session.end}) is not on whole minutes"
        )
    return session
