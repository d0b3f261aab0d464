"""Which trading session an event time belongs to, and its trade date: exchange calendars, the UTC day, 17:00 New York.

Calendars are those of exchange_calendars with the margins and exceptions of `sessions.yaml`. Nothing here depends on
today's date: bounds are explicit, so that the same log gives the same sessions in any year.
"""

from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from importlib.resources import files
from typing import Any
from zoneinfo import ZoneInfo

import yaml

DAY_MS = 86_400_000
_EPOCH = date(1970, 1, 1)
_NEW_YORK = ZoneInfo("America/New_York")
_MARKET_OF_SUFFIX = {"HK": "HK", "US": "US", "SH": "CN", "SZ": "CN", "JP": "JP", "KS": "KR", "IN": "IN", "TW": "TW"}


@dataclass(frozen=True, slots=True)
class Session:
    """A market's session: trade_date in days since 1970-01-01, start (inclusive) and end (exclusive) in ms UTC."""

    trade_date: int
    start: int
    end: int


class BeyondCalendar(ValueError):
    """An event time outside the dates that the pinned calendars know."""

    def __init__(self, market: str, ts: int, first: date, last: date) -> None:
        super().__init__(
            f"{datetime.fromtimestamp(ts / 1000, UTC):%Y-%m-%d} is beyond the calendar of {market} ({first} to {last}): "
            "correct the time, or bring exchange_calendars and sessions.yaml up to date"
        )
        self.market = market
        self.ts = ts


class BadSessions(ValueError):
    """`sessions.yaml` is wrong; the message lists every mistake."""


class Calendars:
    """The sessions of every market; each market's table is built when its first symbol is seen."""

    def __init__(self) -> None:
        """Read `sessions.yaml`; raises BadSessions."""
        self._rules = read_rules(yaml.safe_load(files("processors").joinpath("sessions.yaml").read_text(encoding="utf-8")))
        self._markets: dict[tuple[str, str], _Market | None] = {}
        self._tables: dict[str, _Market] = {}

    def session_of(self, business: str, symbol: str, ts: int) -> Session | None:
        """Return the session that an event time (ms UTC) belongs to, None outside of any and for a symbol of no known market.

        Raises BeyondCalendar.
        """
        key = (business, symbol)
        try:
            market = self._markets[key]
        except KeyError:
            market = self._markets[key] = self._market(business, symbol)
        return None if market is None else market.session_of(ts)

    def _market(self, business: str, symbol: str) -> "_Market | None":
        name = business if business in ("crypto", "common") else _MARKET_OF_SUFFIX.get(symbol.rpartition(".")[2])
        if name is None:
            return None
        if name not in self._tables:
            self._tables[name] = _Days(name) if name in ("crypto", "common") else _Exchange(name, self._rules[name])
        return self._tables[name]


@dataclass(frozen=True, slots=True)
class Rules:
    """A market's entry in `sessions.yaml`."""

    calendar: str
    before: int
    after: int
    first: date
    last: date
    overrides: tuple[dict[str, Any], ...]


def read_rules(document: Any) -> dict[str, Rules]:
    """Return the rules of each market; raises BadSessions with every mistake."""
    mistakes: list[str] = []
    rules: dict[str, Rules] = {}
    markets = document.get("markets") if isinstance(document, dict) else None
    for name, entry in (markets or {}).items():
        missing = {"calendar", "before", "after", "first", "last", "overrides"} - set(entry)
        mistakes += [f"{name}: {key} is missing" for key in sorted(missing)]
        mistakes += [
            f"{name}: {key} is {entry[key]!r}, expected minutes from 0 on"
            for key in ("before", "after")
            if key in entry and not (isinstance(entry[key], int) and entry[key] >= 0)
        ]
        mistakes += [
            f"{name}: {key} is {entry[key]!r}, expected a date"
            for key in ("first", "last")
            if key in entry and not isinstance(entry[key], date)
        ]
        mistakes += [f"{name}: {mistake}" for row in entry.get("overrides") or () for mistake in _wrong_override(row)]
        if not missing:
            rules[name] = Rules(**{**entry, "overrides": tuple(entry["overrides"] or ())})
    mistakes += [f"{name}: no such entry" for name in sorted(set(_MARKET_OF_SUFFIX.values()) - set(markets or {}))]
    if mistakes:
        raise BadSessions(f"sessions.yaml: {'; '.join(mistakes)}")
    return rules


def _wrong_override(row: dict[str, Any]) -> list[str]:
    wrong = [f"override {row}: {key} is missing" for key in ("date", "source") if not row.get(key)]
    if not row.get("closed") and not (row.get("open") and row.get("close")):
        wrong.append(f"override {row}: neither closed nor open and close")
    return wrong


class _Exchange:
    """A stock exchange's sessions as sorted lists."""

    def __init__(self, name: str, rules: Rules) -> None:
        self._name, self._first, self._last = name, rules.first, rules.last
        self._sessions = _sessions(rules)
        self._starts = [session.start for session in self._sessions]
        self._bounds = (_days(rules.first) * DAY_MS - DAY_MS, (_days(rules.last) + 2) * DAY_MS)
        self._hit = self._sessions[0]

    def session_of(self, ts: int) -> Session | None:
        hit = self._hit
        if hit.start <= ts < hit.end:
            return hit
        place = bisect_right(self._starts, ts) - 1
        if place >= 0 and ts < self._sessions[place].end:
            self._hit = self._sessions[place]
            return self._hit
        if not self._bounds[0] <= ts < self._bounds[1]:
            raise BeyondCalendar(self._name, ts, self._first, self._last)
        return None


class _Days:
    """Sessions that follow one another: the UTC day of crypto, 17:00 to 17:00 New York of forex and futures."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._hit: Session | None = None

    def session_of(self, ts: int) -> Session | None:
        hit = self._hit
        if hit is not None and hit.start <= ts < hit.end:
            return hit
        session = _utc_day(ts) if self._name == "crypto" else _new_york_day(ts)
        # Friday 17:00 to Sunday 17:00 New York is no session: its trade date would be a Saturday or a Sunday
        if self._name == "common" and (_EPOCH + timedelta(days=session.trade_date)).weekday() >= 5:
            return None
        self._hit = session
        return session


_Market = _Exchange | _Days


def _utc_day(ts: int) -> Session:
    day = ts // DAY_MS
    return Session(day, day * DAY_MS, (day + 1) * DAY_MS)


def _new_york_day(ts: int) -> Session:
    local = datetime.fromtimestamp(ts / 1000, _NEW_YORK)
    ends = local.date() + timedelta(days=local.hour >= 17)
    return Session(_days(ends), _at_five(ends - timedelta(days=1)), _at_five(ends))


def _at_five(day: date) -> int:
    return _ms(datetime(day.year, day.month, day.day, 17, tzinfo=_NEW_YORK))


def _sessions(rules: Rules) -> list[Session]:
    # imported here: pandas takes a second, and a worker without stocks does not need it
    import exchange_calendars

    calendar = exchange_calendars.get_calendar(rules.calendar, start=str(rules.first), end=str(rules.last))
    found = {
        label.date(): (int(opens.value) // 1_000_000 - rules.before * 60_000, int(closes.value) // 1_000_000 + rules.after * 60_000)
        for label, opens, closes in zip(calendar.schedule.index, calendar.schedule["open"], calendar.schedule["close"], strict=True)
    }
    zone = ZoneInfo(str(calendar.tz))
    for row in rules.overrides:
        found.pop(row["date"], None)
        if not row.get("closed"):
            found[row["date"]] = (_local(row["date"], row["open"], zone), _local(row["date"], row["close"], zone))
    return [Session(_days(day), start, end) for day, (start, end) in sorted(found.items())]


def _local(day: date, clock: str, zone: ZoneInfo) -> int:
    hours, minutes = map(int, clock.split(":"))
    return _ms(datetime(day.year, day.month, day.day, hours, minutes, tzinfo=zone))


def _ms(moment: datetime) -> int:
    return int(moment.timestamp()) * 1000


def _days(day: date) -> int:
    return (day - _EPOCH).days
