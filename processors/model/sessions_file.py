"""Reads an operator's file of sessions: plain YAML, bounded, every mistake reported at once."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from processors.model.session_rules import (
    LATEST,
    BadSessions,
    Override,
    Rules,
    override_of,
    shown,
    wrong_override,
)
from schemas.plain_yaml import plain_yaml

VARIABLE = "INFOWAY_SESSIONS"
_MOST_BYTES = 256 * 1024
"""A row has about 150 bytes: room for seven markets over many years, read in a second."""
_DEEPEST = 8
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)


@dataclass(frozen=True, slots=True)
class OperatorsRows:
    """An operator's file: overrides by market, and until when a market's days are announced and in
    the file."""

    overrides: Mapping[str, tuple[Override, ...]]
    announced: Mapping[str, date]


def read_operators_file(path: Path, rules: Mapping[str, Rules]) -> OperatorsRows:
    """Return the rows of an operator's file; raises BadSessions with every mistake.

    Plain YAML without aliases, every value a text: `sessions`, a list of rows, and optionally
    `announced`, a date a market.
    """
    named = f"{VARIABLE}={path}"
    document = _plain_yaml(path, named)
    if not isinstance(document, dict) or not {"sessions"} <= set(document) <= {
        "sessions",
        "announced",
    }:
        raise BadSessions(["expected the key sessions, and optionally announced"], named)
    rows, announced = document["sessions"] or [], document.get("announced") or {}
    mistakes: list[str] = []
    if not isinstance(rows, list):
        mistakes.append(f"sessions is {shown(rows)}, expected a list of rows")
        rows = []
    if not isinstance(announced, dict):
        mistakes.append(f"announced is {shown(announced)}, expected a date for each market")
        announced = {}
    for market, until in announced.items():
        mistakes += [
            f"announced: {market}: {mistake}" for mistake in _wrong_announced(market, until, rules)
        ]
    parsed = [_typed(row) for row in rows]
    for number, row in enumerate(parsed, 1):
        mistakes += [
            f"row {number} ({shown(rows[number - 1])}): {mistake}"
            for mistake in _wrong_row(row, rules)
        ]
    mistakes += _doubled(parsed)
    if mistakes:
        raise BadSessions(mistakes, named)
    overrides = {
        market: tuple(override_of(row) for row in parsed if row["market"] == market)
        for market in dict.fromkeys(row["market"] for row in parsed)
    }
    return OperatorsRows(
        overrides, {market: date.fromisoformat(until) for market, until in announced.items()}
    )


def _wrong_row(row: Any, rules: Mapping[str, Rules]) -> Iterator[str]:
    if not isinstance(row, dict) or "market" not in row:
        yield "expected the keys market, date, source, and either closed or open and close"
        return
    market = row["market"]
    known = rules.get(market) if isinstance(market, str) else None
    if known is None:
        yield f"market is {shown(market)}, expected one of {', '.join(rules)}"
    before, after = (0, 0) if known is None else (known.before, known.after)
    yield from wrong_override({key: row[key] for key in row if key != "market"}, before, after)


def _wrong_announced(market: Any, until: Any, rules: Mapping[str, Rules]) -> Iterator[str]:
    if market not in rules:
        yield f"no market, expected one of {', '.join(rules)}"
        return
    day, last = _date_of(until), rules[market].last
    if type(day) is not date or not last < day <= LATEST:
        yield (
            f"{shown(until)} is no date after {last}, where the calendar ends, and up to {LATEST}"
        )


def _doubled(rows: Sequence[Any]) -> list[str]:
    named = [row for row in rows if isinstance(row, dict) and isinstance(row.get("market"), str)]
    dates = Counter((row["market"], row["date"]) for row in named if type(row.get("date")) is date)
    return [
        f"{market} {day} has {count} rows, expected one"
        for (market, day), count in dates.items()
        if count > 1
    ]


def _typed(row: Any) -> Any:
    """Return a row of texts with its date as a date and `closed: true` as True, where they are
    so."""
    if not isinstance(row, dict):
        return row
    typed = dict(row)
    if "date" in row:
        typed["date"] = _date_of(row["date"])
    if row.get("closed") == "true":
        typed["closed"] = True
    return typed


def _date_of(text: Any) -> Any:
    if isinstance(text, str) and _DATE.fullmatch(text):
        try:
            return date.fromisoformat(text)
        except ValueError:
            return text
    return text


def _plain_yaml(path: Path, named: str) -> Any:
    try:
        if not path.is_file():  # a pipe or a device could keep the start waiting
            raise BadSessions(["no such file: name one, or unset the variable"], named)
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise BadSessions([f"{error.strerror}: name a file that can be read"], named) from None
    if len(content) > _MOST_BYTES:
        raise BadSessions([f"larger than {_MOST_BYTES} bytes"], named)
    try:
        return plain_yaml(content.decode("utf-8"), _DEEPEST, texts=True)
    except UnicodeDecodeError:
        raise BadSessions(["not UTF-8 text"], named) from None
    except yaml.YAMLError as error:
        raise BadSessions(
            [f"not the YAML that is expected: {' '.join(str(error).split())[:300]}"], named
        ) from None
