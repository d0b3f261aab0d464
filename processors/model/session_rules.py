"""The session rules of `sessions.yaml`, checked as a whole; no calendars, no operator's file."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, time
from importlib.resources import files
from typing import Any

import yaml

from schemas.errors import SettingsWrong

EARLIEST, LATEST = date(2010, 1, 1), date(2100, 12, 31)
"""Dates that a row can be about."""

_EXCHANGES = ("HK", "US", "CN", "JP", "KR", "IN", "TW")
_MOST_MINUTES = 120
_CLOCK = re.compile(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]", re.ASCII)


class BadSessions(SettingsWrong):
    """A file of sessions is wrong; `mistakes` has every mistake."""

    def __init__(self, mistakes: Sequence[str], name: str = "correct sessions.yaml") -> None:
        super().__init__(f"{name}: {'; '.join(mistakes)}")
        self.mistakes = tuple(mistakes)


@dataclass(frozen=True, slots=True)
class Override:
    """A date that differs from its calendar: the market's local open and close, None if it was
    closed."""

    date: date
    hours: tuple[time, time] | None


@dataclass(frozen=True, slots=True)
class Rules:
    """A market's entry in `sessions.yaml`: margins in minutes, first and last date included."""

    calendar: str
    hours: tuple[time, ...]
    """Regular local open and close, with the lunch break's edges between them if it has one."""
    before: int
    after: int
    closing_auction: int
    first: date
    last: date
    overrides: tuple[Override, ...]


def packaged_rules() -> dict[str, Rules]:
    """Return the rules of `sessions.yaml`; raises BadSessions."""
    text = files("processors.model").joinpath("sessions.yaml").read_text(encoding="utf-8")
    return read_rules(yaml.safe_load(text))


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
    return {name: _rules(entry) for name, entry in markets.items()}


def with_operators_rows(rules: Rules, rows: Sequence[Override]) -> Rules:
    """Return the rules with the operator's rows, which win over the package's of the same date."""
    by_date = {row.date: row for row in (*rules.overrides, *rows)}
    return replace(rules, overrides=tuple(by_date[day] for day in sorted(by_date)))


def _wrong_market(name: str, entry: Any) -> Iterator[str]:
    if name not in _EXCHANGES:
        yield f"no market, expected one of {', '.join(_EXCHANGES)}"
    if not isinstance(entry, dict) or set(entry) != set(Rules.__slots__):
        yield f"expected the keys {', '.join(Rules.__slots__)}"
        return
    if not isinstance(entry["calendar"], str):
        yield f"calendar is {entry['calendar']!r}, expected a name of exchange_calendars"
    margins = [
        mistake
        for key in ("before", "after", "closing_auction")
        for mistake in _wrong_margin(key, entry[key])
    ]
    yield from margins
    if not _are_hours(entry["hours"]):
        yield (
            f"hours is {shown(entry['hours'])}, expected two or four times in order, quoted "
            'like "09:15"'
        )
    if not type(entry["first"]) is type(entry["last"]) is date or entry["first"] >= entry["last"]:
        yield (
            f"first is {entry['first']!r} and last is {entry['last']!r}, expected two dates "
            "in order"
        )
    rows = entry["overrides"]
    if not isinstance(rows, list):
        yield f"overrides is {rows!r}, expected a list"
        return
    before, after = (0, 0) if margins else (entry["before"], entry["after"])
    for row in rows:
        yield from (
            f"override {shown(row)}: {mistake}" for mistake in wrong_override(row, before, after)
        )
    dates = Counter(row.get("date") for row in rows if isinstance(row, dict))
    yield from (
        f"date {day} is overridden {count} times" for day, count in dates.items() if count > 1
    )


def _wrong_margin(key: str, value: Any) -> Iterator[str]:
    if type(value) is not int or not 0 <= value <= _MOST_MINUTES:
        yield f"{key} is {value!r}, expected minutes from 0 to {_MOST_MINUTES}"


def _are_hours(value: Any) -> bool:
    if not isinstance(value, list) or len(value) not in (2, 4) or not all(map(_is_clock, value)):
        return False
    return value == sorted(set(value))


def wrong_override(row: Any, before: int, after: int) -> Iterator[str]:
    """Yield what is wrong with a row; the margins are the market's, in minutes."""
    if not isinstance(row, dict) or set(row) not in (
        {"date", "source", "closed"},
        {"date", "source", "open", "close"},
    ):
        yield "expected the keys date, source, and either closed or open and close"
        return
    if type(row["date"]) is not date or not EARLIEST <= row["date"] <= LATEST:
        yield f"date is no date from {EARLIEST} to {LATEST}"
    if not isinstance(row["source"], str) or not row["source"].strip():
        yield "source is empty"
    if "closed" in row and row["closed"] is not True:
        yield "closed is not true"
    if "open" in row:
        opens, closes = row["open"], row["close"]
        if not (_is_clock(opens) and _is_clock(closes) and opens < closes):
            yield 'open and close are no times in order, on whole minutes, quoted like "09:15"'
        elif _minutes(opens) < before or _minutes(closes) + after > 24 * 60:
            yield (
                f"with {before} minutes before and {after} after, the session overlaps with "
                "the next day or the one before"
            )


def _rules(entry: dict[str, Any]) -> Rules:
    hours, overrides = (
        tuple(map(time.fromisoformat, entry["hours"])),
        tuple(map(override_of, entry["overrides"])),
    )
    return Rules(**{**entry, "hours": hours, "overrides": overrides})


def override_of(row: dict[str, Any]) -> Override:
    """Return the override of a row that is right."""
    if "closed" in row:
        return Override(row["date"], None)
    return Override(
        row["date"], (time.fromisoformat(row["open"]), time.fromisoformat(row["close"]))
    )


def _is_clock(text: Any) -> bool:
    return isinstance(text, str) and _CLOCK.fullmatch(text) is not None


def _minutes(clock: str) -> int:
    return int(clock[:2]) * 60 + int(clock[3:])


def shown(value: object) -> str:
    """Return a value as errors quote it, cut to 160 characters."""
    text = repr(value)
    return text if len(text) <= 160 else f"{text[:160]}…"
