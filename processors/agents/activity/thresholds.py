"""The names of activity bars, and what completes them; settings check them here, without an
agent."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

from schemas.decimals import LIMIT, UNIT, to_units
from schemas.errors import SettingsWrong

if TYPE_CHECKING:
    from processors.agents.activity.state import ActivityBar

_NAME = re.compile(r"(tick|volume|turnover)-((?:0|[1-9][0-9]{0,19})(?:\.[0-9]{1,18})?)", re.ASCII)


class ActivityBarsWrong(SettingsWrong):
    """Names that no activity bars can be made of; the message lists every mistake and what is
    allowed."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """What completes the bars of a name: `value` in units of 10^-18, `limit` in those of the total
    that it is held against."""

    name: str
    kind: str
    value: int
    limit: int
    total: Callable[["ActivityBar"], int]


def thresholds(names: Sequence[str]) -> tuple[Threshold, ...]:
    """Return what completes the bars of these names, by kind and size; raises ActivityBarsWrong."""
    mistakes: list[str] = [] if names else ["none given"]
    found: dict[tuple[str, int], Threshold] = {}
    for name in names:
        match = _NAME.fullmatch(name)
        kind, value = (match[1], to_units(match[2])) if match else ("", 0)
        if value == 0 or (kind == "tick" and value % UNIT):
            mistakes.append(repr(name))
        elif (kind, value) in found:
            mistakes.append(f"{name!r} (the same as {found[kind, value].name!r})")
        else:
            limit = {"tick": value // UNIT, "volume": value, "turnover": value * UNIT}[kind]
            found[kind, value] = Threshold(
                name, kind, value, limit, attrgetter("count" if kind == "tick" else kind)
            )
    if mistakes:
        raise ActivityBarsWrong(
            f"activity bars: {', '.join(mistakes)}; allowed, each once: tick-<trades>, "
            "volume-<volume> and turnover-<turnover>, a plain "
            f"decimal above 0 and below {LIMIT // UNIT} with at most 18 digits behind the "
            "point, whole for tick: tick-1000, "
            "volume-0.5, turnover-1000000"
        )
    return tuple(found[index] for index in sorted(found))
