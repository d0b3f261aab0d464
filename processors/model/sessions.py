"""Which trading session an event time belongs to, and its trade date: exchange calendars, the UTC day, 17:00 New York.

Calendars are those of exchange_calendars with the margins and overrides of `sessions.yaml`. Nothing here depends on
today's date: bounds are explicit, so that the same log gives the same sessions in any year.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from importlib.resources import files
from typing import Any
from zoneinfo import ZoneInfo

import yaml

DAY_MS = 86_400_000

FIRST = date(2010, 1, 1)
"""Before it, hours and auctions differ too much from today's for the margins to mean anything."""
LAST = date(2030, 12, 31)
"""After it, even the holidays and the daylight saving that follow from a law are a guess: laws change."""

_EPOCH = date(1970, 1, 1)
_NEW_YORK = ZoneInfo("America/New_York")
_SATURDAY = 5
_MOST_MINUTES = 120
_MARKET_OF_SUFFIX = {"HK": "HK", "US": "US", "SH": "CN", "SZ": "CN"}
_MARKET_OF_BUSINESS = {
    "japan": "JP",
    "korea": "KR",
    "india": "IN",
    "taiwan": "TW",
    "crypto": "crypto",
    "common": "common",
}
_HOURS = ["open", "break_start", "break_end", "close"]
_EXCHANGES = ("HK", "US", "CN", "JP", "KR", "IN", "TW")


@dataclass(frozen=True, slots=True)
class Session:
    """A market's session: trade_date in days since 1970-01-01, start (inclusive) and end (exclusive) in ms UTC."""

    trade_date: int
    start: int
    end: int
    continuous: tuple[tuple[int, int], ...] = ()
    """Where it trades without auctions, [start, end) in ms UTC; empty for a market that has none."""


class BeyondCalendar(ValueError):
    """A time (ms UTC) outside of the dates, first and last included, for which a market's sessions are known."""

    def __init__(self, market: str, ts_ms: int, first: date, last: date) -> None:
        super().__init__(
            f"{ts_ms} ms ({_readable(ts_ms)}) is beyond the calendar of {market} ({first} to {last}): "
            "correct the time, or bring exchange_calendars and sessions.yaml up to date"
        )
        self.market = market
        self.ts_ms = ts_ms
        self.first = first
        self.last = last


class BadSessions(ValueError):
    """`sessions.yaml` is wrong; `mistakes` has every mistake."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__(f"correct sessions.yaml: {'; '.join(mistakes)}")
        self.mistakes = tuple(mistakes)


class Calendars:
    """The sessions of every market; a market's table is built when its first symbol is seen.

    The first exchange costs the import of pandas, 0.5 s to 1 s, and each its table: at most 0.2 s, KR 1 s.
    """

    def __init__(self, first: date = FIRST, last: date = LAST) -> None:
        """Read `sessions.yaml`, whose dates hold where they are narrower than these; raises BadSessions."""
        self._first, self._last = first, last
        self._rules = read_rules(
            yaml.safe_load(
                files("processors").joinpath("sessions.yaml").read_text(encoding="utf-8")
            )
        )
        self._of_symbol: dict[tuple[str, str], _Table | None] = {}
        self._of_market: dict[str, _Table] = {}

    def session_of(self, business: str, symbol: str, ts_ms: int) -> Session | None:
        """Return the session that an event time (ms UTC) belongs to.

        None outside of any session, and for a symbol of no known market: a wrong symbol stops nothing, and counting is the
        caller's. The trade date of `common` is the date on which the session ends; from Friday 17:00 to Sunday 17:00
        New York it has none. Raises BeyondCalendar.
        """
        try:
            table = self._of_symbol[business, symbol]
        except KeyError:
            table = self._table(business, symbol)
        return None if table is None else table.session_at(ts_ms)

    def session_on(self, business: str, symbol: str, trade_date: int) -> Session | None:
        """Return the session of a trade date (days since 1970-01-01), None as in session_of; raises BeyondCalendar."""
        table = self._table(business, symbol)
        return None if table is None else table.session_on(trade_date)

    def _table(self, business: str, symbol: str) -> "_Table | None":
        suffix = symbol.rpartition(".")[2]
        market = (
            _MARKET_OF_SUFFIX.get(suffix)
            if business == "stock"
            else _MARKET_OF_BUSINESS.get(business)
        )
        table = self._of_symbol[business, symbol] = None if market is None else self._built(market)
        return table

    def _built(self, market: str) -> "_Table":
        if market not in self._of_market:
            if market == "crypto":
                table = _utc_days(market, self._first, self._last)
            elif market == "common":
                table = _new_york_days(market, self._first, self._last)
            else:
                rules = self._rules[market]
                table = _exchange_days(
                    market, rules, max(self._first, rules.first), min(self._last, rules.last)
                )
            self._of_market[market] = table
        return self._of_market[market]


@dataclass(frozen=True, slots=True)
class Override:
    """A date on which the calendar package is wrong: the market's local open and close, None where it was closed."""

    date: date
    hours: tuple[time, time] | None


@dataclass(frozen=True, slots=True)
class Rules:
    """A market's entry in `sessions.yaml`: margins in minutes, first and last date included."""

    calendar: str
    before: int
    after: int
    closing_auction: int
    first: date
    last: date
    overrides: tuple[Override, ...]


def read_rules(document: Any) -> dict[str, Rules]:
    """Return the rules of each exchange; raises BadSessions with every mistake."""
    markets = document.get("markets") if isinstance(document, dict) else None
    if not isinstance(markets, dict):
        raise BadSessions(["markets is missing"])
    mistakes = [f"{name}: no such entry" for name in _EXCHANGES if name not in markets]
    for name, entry in markets.items():
        mistakes += [f"{name}: {mistake}" for mistake in _wrong_market(name, entry)]
    if mistakes:
        raise BadSessions(mistakes)
    return {
        name: Rules(**{**entry, "overrides": tuple(map(_override, entry["overrides"]))})
        for name, entry in markets.items()
    }


def _wrong_market(name: str, entry: Any) -> Iterator[str]:
    if name not in _EXCHANGES:
        yield f"no market, expected one of {', '.join(_EXCHANGES)}"
    if not isinstance(entry, dict) or set(entry) != set(Rules.__slots__):
        yield f"expected the keys {', '.join(Rules.__slots__)}"
        return
    if not isinstance(entry["calendar"], str):
        yield f"calendar is {entry['calendar']!r}, expected a name of exchange_calendars"
    for key in ("before", "after", "closing_auction"):
        if type(entry[key]) is not int or not 0 <= entry[key] <= _MOST_MINUTES:
            yield f"{key} is {entry[key]!r}, expected minutes from 0 to {_MOST_MINUTES}"
    if not type(entry["first"]) is type(entry["last"]) is date or entry["first"] >= entry["last"]:
        yield f"first is {entry['first']!r} and last is {entry['last']!r}, expected two dates in order"
        return
    rows = entry["overrides"]
    if not isinstance(rows, list):
        yield f"overrides is {rows!r}, expected a list"
        return
    for row in rows:
        yield from (
            f"override {row!r}: {mistake}"
            for mistake in _wrong_override(row, entry["first"], entry["last"])
        )
    dates = [row.get("date") for row in rows if isinstance(row, dict)]
    yield from (
        f"date {day} is overridden {dates.count(day)} times"
        for day in dict.fromkeys(dates)
        if dates.count(day) > 1
    )


def _wrong_override(row: Any, first: date, last: date) -> Iterator[str]:
    if not isinstance(row, dict) or set(row) not in (
        {"date", "source", "closed"},
        {"date", "source", "open", "close"},
    ):
        yield "expected the keys date, source, and either closed or open and close"
        return
    if type(row["date"]) is not date or not first <= row["date"] <= last:
        yield f"date is no date from {first} to {last}"
    if not isinstance(row["source"], str) or not row["source"].strip():
        yield "source is empty"
    if "closed" in row and row["closed"] is not True:
        yield "closed is not true"
    if "open" in row:
        try:
            ordered = _clock(row["open"]) < _clock(row["close"])
        except (TypeError, ValueError):
            ordered = False
        if not ordered:
            yield 'open and close are no times in order, quoted like "09:15"'


def _override(row: dict[str, Any]) -> Override:
    return Override(
        row["date"], None if "closed" in row else (_clock(row["open"]), _clock(row["close"]))
    )


def _clock(text: str) -> time:
    return datetime.strptime(text, "%H:%M").time()


class _Table:
    """A market's sessions in order, known from `begin` (inclusive) to `end` (exclusive), ms UTC."""

    def __init__(
        self, market: str, first: date, last: date, begin: int, end: int, sessions: list[Session]
    ) -> None:
        self._market, self._first, self._last = market, first, last
        self._begin, self._end = begin, end
        self._sessions = sessions
        self._starts = [session.start for session in sessions]
        self._hit = Session(0, 0, 0)

    def session_at(self, ts_ms: int) -> Session | None:
        hit = self._hit
        if hit.start <= ts_ms < hit.end:
            return hit
        if not self._begin <= ts_ms < self._end:
            raise BeyondCalendar(self._market, ts_ms, self._first, self._last)
        place = bisect_right(self._starts, ts_ms) - 1
        if place < 0 or ts_ms >= self._sessions[place].end:
            return None
        self._hit = self._sessions[place]
        return self._hit

    def session_on(self, trade_date: int) -> Session | None:
        if not _days(self._first) <= trade_date <= _days(self._last):
            raise BeyondCalendar(self._market, trade_date * DAY_MS, self._first, self._last)
        place = bisect_left(self._sessions, trade_date, key=lambda session: session.trade_date)
        return next(
            (
                session
                for session in self._sessions[place : place + 1]
                if session.trade_date == trade_date
            ),
            None,
        )


def _utc_days(market: str, first: date, last: date) -> _Table:
    days = range(_days(first), _days(last) + 1)
    sessions = [Session(day, day * DAY_MS, (day + 1) * DAY_MS) for day in days]
    return _Table(market, first, last, days.start * DAY_MS, days.stop * DAY_MS, sessions)


def _new_york_days(market: str, first: date, last: date) -> _Table:
    sessions = []
    for trade_date in range(_days(first), _days(last) + 1):
        day = _EPOCH + timedelta(days=trade_date)
        if day.weekday() < _SATURDAY:
            sessions.append(
                Session(trade_date, _new_york_turn(day - timedelta(days=1)), _new_york_turn(day))
            )
    return _Table(
        market,
        first,
        last,
        _new_york_turn(first - timedelta(days=1)),
        _new_york_turn(last),
        sessions,
    )


def _new_york_turn(day: date) -> int:
    return _ms(day, time(17), _NEW_YORK)


def _exchange_days(market: str, rules: Rules, first: date, last: date) -> _Table:
    if first >= last:  # the package makes no calendar of less than two days
        return _Table(market, first, last, 0, 0, [])
    # imported here: pandas takes a second, and a worker without stocks does not need it
    import exchange_calendars

    with _holidays_between(first, last):
        calendar = exchange_calendars.get_calendar(rules.calendar, start=str(first), end=str(last))
    zone, schedule = ZoneInfo(str(calendar.tz)), calendar.schedule
    hours = {
        label.date(): [int(at.timestamp()) * 1000 for at in row if at == at]
        for label, *row in schedule[_HOURS].itertuples()
    }
    for override in rules.overrides:
        hours.pop(override.date, None)
        if override.hours is not None and first <= override.date <= last:
            hours[override.date] = [_ms(override.date, clock, zone) for clock in override.hours]
    sessions = [_exchange_day(_days(day), times, rules) for day, times in sorted(hours.items())]
    begin, end = _ms(first, time(), zone), _ms(last + timedelta(days=1), time(), zone)
    return _Table(market, first, last, begin, end, sessions)


def _exchange_day(trade_date: int, times: list[int], rules: Rules) -> Session:
    """Return a session from its open and close, a lunch break's edges between them where it has one."""
    edges = [
        times[0],
        *(at for at in times[1:-1] if at < times[-1]),
        times[-1] - rules.closing_auction * 60_000,
    ]
    continuous = tuple(zip(edges[::2], edges[1::2], strict=True))
    return Session(
        trade_date, times[0] - rules.before * 60_000, times[-1] + rules.after * 60_000, continuous
    )


@contextmanager
def _holidays_between(first: date, last: date) -> Iterator[None]:
    """Bound pandas' holidays, from 1970 to 2200 by default: those of KR alone take 4 s, in which a worker is deaf to its group."""
    from pandas.tseries.holiday import AbstractHolidayCalendar as Horizon

    before = Horizon.start_date, Horizon.end_date
    # the class is where pandas wants the bounds set; a year more on both sides, for what is observed across New Year
    Horizon.start_date, Horizon.end_date = (
        datetime(first.year - 1, 1, 1),
        datetime(last.year + 1, 12, 31),
    )
    try:
        yield
    finally:
        Horizon.start_date, Horizon.end_date = before


def _ms(day: date, clock: time, zone: tzinfo) -> int:
    return int(datetime.combine(day, clock, zone).timestamp()) * 1000


def _days(day: date) -> int:
    return (day - _EPOCH).days


def _readable(ts_ms: int) -> str:
    try:
        return f"{datetime.fromtimestamp(ts_ms // 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, ValueError, OSError):
        return "no date at all"
