"""A bar of ours beside the vendor's kline: equal, different, or not comparable and why; no state
and no log."""

from dataclasses import dataclass
from typing import Literal, Protocol

from processors.model.intervals import DAY
from processors.model.trading_days import Session

Status = Literal["equal", "differs", "not_comparable"]
Reason = Literal["alignment", "auction", "expired", "gap", "unit"]
Comparison = tuple[Status, Reason | None]


@dataclass(frozen=True, slots=True)
class Figures:
    """What is compared of a bar and a kline, in units of 10^-18."""

    open: int
    high: int
    low: int
    close: int
    volume: int
    turnover: int

    def texts(self) -> list[str]:
        """Return the six numbers as texts: JSON's integers have 64 bits."""
        return [str(number) for number in (*self.prices, self.volume, self.turnover)]

    @property
    def prices(self) -> tuple[int, int, int, int]:
        """Open, high, low, close."""
        return self.open, self.high, self.low, self.close


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a comparison has to know of the market and of the observation.

    healthy   whether our bar is complete, and the klines' own subscription lived through its time
    auctions  whether an auction's prints may stand in this bar, or in the one beside it
    session   whether the bar is a whole session, all auctions included
    expired   whether a bar of ours could have been here and is no longer at hand
    """

    healthy: bool
    auctions: bool
    session: bool
    expired: bool = False


def compare(
    ours: Figures | None, theirs: Figures | None, turnover_step: int, market: Circumstances
) -> Comparison:
    """Judge a bar of ours and a final kline, one of them at least; `turnover_step` is the kline's
    last written digit.

    A kline that says that nothing was traded equals no bar. Turnover is equal where it differs by
    less than the step, since the vendor cuts or rounds its own.
    """
    if ours is None:
        assert theirs is not None
        if theirs.volume == 0:
            return "equal", None
        if market.expired:
            return "not_comparable", "expired"
    elif theirs is not None and ours.prices == theirs.prices:
        same_turnover = abs(ours.turnover - theirs.turnover) < turnover_step
        if same_turnover and ours.volume == theirs.volume:
            return "equal", None
        if market.healthy and same_turnover and _counted_in_lots(ours.volume, theirs.volume):
            return "not_comparable", "unit"
    if not market.healthy:
        return "not_comparable", "gap"
    if market.auctions and (not market.session or _has_more(ours, theirs)):
        return "not_comparable", "auction"
    return "differs", None


def touches_auction(session: Session | None, start: int, end: int) -> bool:
    """Return whether [start, end) is not inside of continuous trading: it has, or borders on, an
    auction's prints."""
    if session is None or not session.continuous:
        return False
    return not any(begins < start and end < ends for begins, ends in session.continuous)


class SessionsByDate(Protocol):
    """Where the session of a trade date is looked up."""

    def session_on(self, business: str, symbol: str, trade_date: int) -> Session | None:
        """Return the session of a trade date, None if it has none."""
        ...


def session_of_day(
    calendars: SessionsByDate, business: str, symbol: str, ts: int
) -> Session | None:
    """Return the session that a daily kline with this start (ms UTC) stands for, None where it is
    that of no session.

    The vendor may name a session by its open, by midnight in the market or by midnight UTC: all of
    them lie in the day before the session's continuous trading. A market that never closes has to
    turn when ours does.
    """
    for trade_date in (ts // DAY, ts // DAY + 1):
        session = calendars.session_on(business, symbol, trade_date)
        if session is None:
            continue
        if ts == session.start:
            return session
        opens = session.continuous[0][0] if session.continuous else session.start
        if ts < session.end:
            return session if session.continuous and opens - DAY < ts <= opens else None
    return None


def _has_more(ours: Figures | None, theirs: Figures | None) -> bool:
    """Return whether our session has more volume: that a kline without the auctions explains, and
    nothing else of it."""
    return ours is not None and theirs is not None and ours.volume > theirs.volume


def _counted_in_lots(one: int, other: int) -> bool:
    """Return whether one volume is a whole multiple of the other, as shares are of lots."""
    return one != other and min(one, other) > 0 and max(one, other) % min(one, other) == 0
