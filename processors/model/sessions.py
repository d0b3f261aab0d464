"""Which trading session an event time belongs to, and its trade date.

Calendars are those of exchange_calendars, with the margins and rows of `sessions.yaml` and of the
operator's file. Beyond them a session is assumed on each weekday: data outlives the calendars that
are shipped. Nothing here depends on today's date: bounds are explicit, so that the same log gives
the same sessions in any year.
"""

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from importlib.metadata import version
from pathlib import Path

from processors.model.session_rules import Rules, packaged_rules, with_operators_rows
from processors.model.sessions_file import VARIABLE, OperatorsRows, read_operators_file
from processors.model.trading_days import NEW_YORK, ExchangeDays, NewYorkDays, Session, TradingDays

NOTICE_DAYS = 60
"""Days before the end of a calendar in use from which it is reported."""

_log = logging.getLogger(__name__)

_SYMBOLS_CACHED = 1 << 16
_ZONES = {
    "HK": "Asia/Hong_Kong",
    "US": NEW_YORK,
    "CN": "Asia/Shanghai",
    "JP": "Asia/Tokyo",
    "KR": "Asia/Seoul",
    "IN": "Asia/Kolkata",
    "TW": "Asia/Taipei",
}
_MARKET_OF_SUFFIX = {"HK": "HK", "US": "US", "SH": "CN", "SZ": "CN"}
_MARKET_OF_BUSINESS = {
    "japan": "JP",
    "korea": "KR",
    "india": "IN",
    "taiwan": "TW",
    "crypto": "crypto",
    "common": "common",
}


def market_of(business: str, symbol: str) -> str | None:
    """Return the market of a symbol, None for a symbol of no known market."""
    suffix = symbol.rpartition(".")[2]
    return (
        _MARKET_OF_SUFFIX.get(suffix) if business == "stock" else _MARKET_OF_BUSINESS.get(business)
    )


def exchange_of(business: str, symbol: str) -> str | None:
    """Return the market of a symbol if its sessions are those of a calendar, which may change."""
    market = market_of(business, symbol)
    return market if market in _ZONES else None


class Calendars:
    """The sessions of every market; an exchange's calendar is built when a date within its bounds
    is first asked for.

    The first exchange costs the import of pandas, 0.5 s to 1 s, and each its calendar: at most 0.2
    s, KR 1 s.
    """

    def __init__(self, operators_file: Path | None = None) -> None:
        """Read `sessions.yaml` and the operator's file if one is named; raises BadSessions."""
        rules = packaged_rules()
        rows = (
            OperatorsRows({}, {})
            if operators_file is None
            else read_operators_file(operators_file, rules)
        )
        self._markets: dict[str, TradingDays] = {
            "crypto": TradingDays("UTC"),
            "common": NewYorkDays(),
        }
        for name, rule in rules.items():
            merged = with_operators_rows(rule, rows.overrides.get(name, ()))
            self._markets[name] = ExchangeDays(
                _ZONES[name], merged, rows.announced.get(name, rule.last)
            )
        self._of_symbol: dict[tuple[str, str], TradingDays | None] = {}
        self._asked: set[str] = set()
        self.fingerprint = _fingerprint(rules, rows)
        """Names the package's version, the rules and the operator's rows: equal fingerprints mean
        equal sessions."""
        self.changes = 0
        """States that were loaded here and built with other calendars."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Calendars":
        """Return the calendars with the file that INFOWAY_SESSIONS names, if it is set; raises
        BadSessions."""
        path = environment.get(VARIABLE)
        return cls(Path(path) if path else None)

    def session_of(self, business: str, symbol: str, ts_ms: int) -> Session | None:
        """Return the session that an event time (ms UTC) belongs to.

        None outside of any session, and for a symbol of no known market: a wrong symbol stops
        nothing, and counting is the caller's. The trade date of `common` is the date on which the
        session ends; from Friday 17:00 to Sunday 17:00 New York it has none.
        """
        try:
            market = self._of_symbol[business, symbol]
        except KeyError:
            market = self._market(business, symbol)
        return None if market is None else market.session_at(ts_ms)

    def session_on(self, business: str, symbol: str, trade_date: int) -> Session | None:
        """Return the session of a trade date (days since 1970-01-01), None as in session_of."""
        market = self._market(business, symbol)
        return None if market is None else market.session_on(trade_date)

    def report_change(self, agent: str, partition: int, built_with: str) -> None:
        """Log and count that an agent's state was built with other calendars (their
        fingerprint)."""
        self.changes += 1
        _log.warning(
            "%s[%d]: the state was built with the calendars %s, this worker has %s: sessions that "
            "have begun keep their hours, later ones follow these calendars; if both appear again "
            "and again, give every worker of the group the same version and the same "
            "INFOWAY_SESSIONS",
            agent,
            partition,
            built_with,
            self.fingerprint,
        )

    def exchanges_in_use(self) -> dict[str, date]:
        """Return the last date that is known to the calendar of each exchange that was asked
        for."""
        return {
            name: until
            for name in sorted(self._asked)
            if (until := self.known_until(name)) is not None
        }

    def ending(self, markets: Iterable[str], today: date) -> Iterator[str]:
        """Say of each market whose calendar has ended, or ends in NOTICE_DAYS, when that is."""
        for market in sorted(set(markets)):
            until = self.known_until(market)
            if until is not None and (left := (until - today).days) < 0:
                yield f"the calendar of {market} ended on {until}: sessions are assumed"
            elif until is not None and left <= NOTICE_DAYS:
                yield (
                    f"the calendar of {market} ends on {until}, in {left} days: sessions "
                    "after it are assumed"
                )

    def known_until(self, market: str) -> date | None:
        """Return the last date that a market's calendar knows, None for a market that needs
        none."""
        found = self._markets[market]
        return found.known_until if isinstance(found, ExchangeDays) else None

    def _market(self, business: str, symbol: str) -> TradingDays | None:
        if len(self._of_symbol) >= _SYMBOLS_CACHED:
            self._of_symbol.clear()
        name = market_of(business, symbol)
        if name is not None:
            self._asked.add(name)
        found = self._of_symbol[business, symbol] = None if name is None else self._markets[name]
        return found


def _fingerprint(rules: Mapping[str, Rules], rows: OperatorsRows) -> str:
    # what a row's source says changes no session, and an empty file is none
    parts = (
        version("exchange_calendars"),
        sorted(rules.items()),
        sorted(rows.overrides.items()),
        sorted(rows.announced.items()),
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
