"""The sessions of an agent's partition that have begun: they keep the hours they began with.

They are part of the agent's state, so a changed calendar takes effect from the next trade date, in
every restart and on every worker alike. A trade date begins with the first time asked for that lies
in its session.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import orjson

from processors.model.intervals import MINUTE
from processors.model.sessions import exchange_of
from processors.model.trading_days import Session

_KEY = b"\0sessions"
_NEVER = (-1, "", "")
_DATES_KEPT = 8
"""Trade dates of a market that stay fixed: more than late trades and heals reach back."""


class SessionFinder(Protocol):
    """Where sessions are looked up: `Calendars`."""

    fingerprint: str

    def session_of(self, business: str, symbol: str, ts_ms: int) -> Session | None:
        """Return the session that the time belongs to, None between sessions."""
        ...

    def session_on(self, business: str, symbol: str, trade_date: int) -> Session | None:
        """Return the session of a trade date, None if it has none."""
        ...

    def report_change(self, agent: str, partition: int, built_with: str) -> None:
        """Log and count that a state was built with other calendars."""
        ...


class BegunSessions:
    """Answers as the calendars do, but for trade dates that have begun: as when they began."""

    def __init__(
        self, calendars: SessionFinder, agent: str, partition: int, entries: Mapping[bytes, bytes]
    ) -> None:
        """Restore what `dirty` yielded."""
        self._calendars = calendars
        self._begun: dict[str, dict[int, Session | None]] = {}
        """By market and trade date; None for one that had no session when trades of its time
        came."""
        self._outside: dict[str, tuple[int, str, str]] = {}
        """By market the latest minute that was asked for and lay outside of every session; whose
        business and symbol."""
        self._changed = False
        if _KEY in entries:
            self._restore(orjson.loads(entries[_KEY]), agent, partition)

    def session_of(self, business: str, symbol: str, ts_ms: int) -> Session | None:
        """Return the session that an event time belongs to, which has begun from now on; None
        outside of sessions."""
        market = exchange_of(business, symbol)
        if market is None:  # the UTC day and 17:00 New York do not change
            return self._calendars.session_of(business, symbol, ts_ms)
        minute = ts_ms // MINUTE
        latest = self._outside.get(market, _NEVER)[0]
        if minute == latest:
            # sessions begin and end on whole minutes, and after hours trades come in rows
            return None
        begun = self._begun.setdefault(market, {})
        for session in begun.values():
            if session is not None and session.start <= ts_ms < session.end:
                return session
        found = self._calendars.session_of(business, symbol, ts_ms)
        if found is None:
            if minute > latest:
                self._outside[market] = minute, business, symbol
                self._changed = True
            return None
        if found.trade_date in begun:
            return None  # it began with other hours
        self._begin(begun, found.trade_date, found)
        return found

    def outside_minute(self, market: str) -> int:
        """Return the latest minute of an exchange that is known to lie outside of sessions, -1 for
        none."""
        return self._outside.get(market, _NEVER)[0]

    def session_on(self, business: str, symbol: str, trade_date: int) -> Session | None:
        """Return the session of a trade date, None if it has none."""
        market = exchange_of(business, symbol)
        begun = self._begun.get(market, {}) if market else {}
        if trade_date in begun:
            return begun[trade_date]
        return self._calendars.session_on(business, symbol, trade_date)

    def dirty(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield the state's key if it changed since the last call, and forget it."""
        if self._changed:
            begun = {
                market: [_dump(day, session) for day, session in dates.items()]
                for market, dates in self._begun.items()
            }
            stored = {
                "calendars": self._calendars.fingerprint,
                "begun": begun,
                "outside": self._outside,
            }
            yield _KEY, orjson.dumps(stored)
            self._changed = False

    def _begin(
        self, begun: dict[int, Session | None], trade_date: int, session: Session | None
    ) -> None:
        if len(begun) == _DATES_KEPT:
            oldest = min(begun)
            if trade_date < oldest:
                return
            del begun[oldest]
        begun[trade_date] = session
        self._changed = True

    def _restore(self, stored: dict[str, Any], agent: str, partition: int) -> None:
        self._begun = {
            market: dict(map(_restore, dates)) for market, dates in stored["begun"].items()
        }
        self._outside = {market: tuple(asked) for market, asked in stored["outside"].items()}
        if stored["calendars"] == self._calendars.fingerprint:
            return
        self._calendars.report_change(agent, partition, stored["calendars"])
        self._changed = True
        for market, (minute, business, symbol) in self._outside.items():
            # a session that is there only now, in the midst of its hours: trades of it have been
            # left out already
            found = self._calendars.session_of(business, symbol, minute * MINUTE)
            begun = self._begun.setdefault(market, {})
            if found is not None and found.trade_date not in begun:
                self._begin(begun, found.trade_date, None)


def _dump(trade_date: int, session: Session | None) -> list[Any]:
    return [
        trade_date,
        session and [session.start, session.end, session.continuous, session.assumed],
    ]


def _restore(stored: list[Any]) -> tuple[int, Session | None]:
    trade_date, session = stored
    if session is None:
        return trade_date, None
    start, end, continuous, assumed = session
    return trade_date, Session(
        trade_date, start, end, tuple((begins, ends) for begins, ends in continuous), assumed
    )
