"""Which session a date has in each market: the UTC day, New York's day, an exchange's calendar;
no symbols and no files."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from processors.model.intervals import DAY
from processors.model.session_rules import Rules

LONGEST_SESSION_MS = 2 * DAY
"""Longer than any market's: what is kept of a trade date is kept for so long."""

EPOCH = date(1970, 1, 1)
NEW_YORK = "America/New_York"
_NEW_YORK_TURN = time(17)
_SATURDAY = 5
_CELL_MS = 1_800_000
"""Within a cell of UTC time the local date is one: since 1970 the zones below differ from UTC by
whole half hours."""
_CELLS_CACHED = 4096
_DATES_CACHED = 512
_FAR = (date(9990, 1, 1) - EPOCH).days
"""Dates from here on (and before 1970) have no session: Python's dates end soon after."""
_FAR_MS = _FAR * DAY
_HOURS = ["open", "break_start", "break_end", "close"]


@dataclass(frozen=True, slots=True)
class Session:
    """A market's session: trade_date in days since 1970-01-01, start (inclusive) and end
    (exclusive) in ms UTC."""

    trade_date: int
    start: int
    end: int
    continuous: tuple[tuple[int, int], ...] = ()
    """Where it trades without auctions, [start, end) in ms UTC; empty for a market that has
    none."""
    assumed: bool = False
    """Whether no calendar knows the date: it serves computation, and does not say that the market
    is open."""


class TradingDays:
    """A market that never closes: its session is the UTC day. Others differ in what a date is, and
    which have a session."""

    turn = timedelta(0)
    """How long before midnight, by the local clock, a trade date begins."""

    def __init__(self, zone: str) -> None:
        self._zone = ZoneInfo(zone)
        self._span: tuple[int, int, Session | None] = (0, 0, None)
        self._date_of_cell = lru_cache(_CELLS_CACHED)(self._local_date)
        self.session_on = lru_cache(_DATES_CACHED)(self._session_on)

    def session_at(self, ts_ms: int) -> Session | None:
        # trades come in the order of time: the last answer nearly always holds
        start, end, session = self._span
        if start <= ts_ms < end:
            return session
        if not 0 <= ts_ms < _FAR_MS:
            return None
        cell = ts_ms // _CELL_MS
        session = self.session_on(self._date_of_cell(cell))
        if session is not None and session.start <= ts_ms < session.end:
            self._span = session.start, session.end, session
            return session
        start, end = cell * _CELL_MS, (cell + 1) * _CELL_MS
        if session is not None and ts_ms < session.start:
            end = min(end, session.start)
        elif session is not None:
            start = max(start, session.end)
        self._span = start, end, None
        return None

    def _local_date(self, cell: int) -> int:
        local = datetime.fromtimestamp(cell * _CELL_MS // 1000, self._zone).replace(tzinfo=None)
        return _days((local + self.turn).date())

    def _session_on(self, trade_date: int) -> Session | None:
        if not 0 <= trade_date < _FAR:
            return None
        return Session(trade_date, trade_date * DAY, (trade_date + 1) * DAY)

    def _ms(self, day: date, clock: time) -> int:
        return int(datetime.combine(day, clock, self._zone).timestamp()) * 1000


class NewYorkDays(TradingDays):
    """Forex and futures: from 17:00 New York to 17:00 on each weekday."""

    turn = timedelta(hours=24 - _NEW_YORK_TURN.hour)

    def __init__(self) -> None:
        super().__init__(NEW_YORK)

    def _session_on(self, trade_date: int) -> Session | None:
        if not 0 <= trade_date < _FAR:
            return None
        day = EPOCH + timedelta(days=trade_date)
        if day.weekday() >= _SATURDAY:
            return None
        return Session(
            trade_date,
            self._ms(day - timedelta(days=1), _NEW_YORK_TURN),
            self._ms(day, _NEW_YORK_TURN),
        )


class ExchangeDays(TradingDays):
    """An exchange: its calendar from the rules' `first` to `last`, beyond them the rows and the
    regular hours of weekdays."""

    def __init__(self, zone: str, rules: Rules, known_until: date) -> None:
        super().__init__(zone)
        self.known_until = known_until
        self._rules = rules
        self._overrides = {_days(row.date): row for row in rules.overrides}
        self._first, self._last = _days(rules.first), _days(rules.last)
        self._calendar: dict[int, list[int]] | None = None

    def _session_on(self, trade_date: int) -> Session | None:
        if not 0 <= trade_date < _FAR:
            return None
        day = EPOCH + timedelta(days=trade_date)
        row = self._overrides.get(trade_date)
        if row is not None:
            return (
                None
                if row.hours is None
                else self._session(trade_date, self._with_break(day, *row.hours))
            )
        if self._first <= trade_date <= self._last:
            if self._calendar is None:
                self._calendar = self._opening_times()
            times = self._calendar.get(trade_date)
            return None if times is None else self._session(trade_date, times)
        if day.weekday() >= _SATURDAY:
            return None
        regular = [self._ms(day, clock) for clock in self._rules.hours]
        return self._session(
            trade_date, regular, assumed=not self._rules.first <= day <= self.known_until
        )

    def _with_break(self, day: date, opens: time, closes: time) -> list[int]:
        """Return the times of a row, with the regular lunch break if it lies within."""
        edges = [clock for clock in self._rules.hours[1:-1] if opens < clock < closes]
        return [
            self._ms(day, clock) for clock in (opens, *(edges if len(edges) == 2 else ()), closes)
        ]

    def _session(self, trade_date: int, times: list[int], assumed: bool = False) -> Session:
        """Return a session from its open and close, a lunch break's edges between them if it has
        one."""
        rules = self._rules
        edges = [
            times[0],
            *(at for at in times[1:-1] if at < times[-1]),
            times[-1] - rules.closing_auction * 60_000,
        ]
        continuous = tuple(zip(edges[::2], edges[1::2], strict=True))
        return Session(
            trade_date,
            times[0] - rules.before * 60_000,
            times[-1] + rules.after * 60_000,
            continuous,
            assumed,
        )

    def _opening_times(self) -> dict[int, list[int]]:
        # imported here: pandas takes a second, and a worker that needs no calendar does not need it
        import exchange_calendars

        first, last = self._rules.first, self._rules.last
        with _holidays_between(first, last):
            calendar = exchange_calendars.get_calendar(
                self._rules.calendar, start=str(first), end=str(last)
            )
        schedule = calendar.schedule[_HOURS]
        return {
            _days(label.date()): [
                int(at.timestamp()) * 1000 for at in row if at == at
            ]  # but for NaT: no break
            for label, *row in schedule.itertuples()
        }


@contextmanager
def _holidays_between(first: date, last: date) -> Iterator[None]:
    """Bound pandas' holidays, from 1970 to 2200 by default: those of KR alone take 4 s, in which a
    worker is deaf to its group."""
    from pandas.tseries.holiday import AbstractHolidayCalendar as Horizon

    before = Horizon.start_date, Horizon.end_date
    # the class is where pandas wants the bounds set; a year more on both sides, for what is
    # observed across New Year
    Horizon.start_date, Horizon.end_date = (
        datetime(first.year - 1, 1, 1),
        datetime(last.year + 1, 12, 31),
    )
    try:
        yield
    finally:
        Horizon.start_date, Horizon.end_date = before


def _days(day: date) -> int:
    return (day - EPOCH).days
