"""Bar intervals: their names, their lengths, and which is folded from which; no trades and no
clock."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from schemas.errors import SettingsWrong

SECOND = 1_000
MINUTE = 60 * SECOND
DAY = 24 * 60 * MINUTE

_UNITS = {"s": SECOND, "m": MINUTE, "h": 60 * MINUTE}
_NAME = re.compile(r"([1-9][0-9]{0,4})([smh])", re.ASCII)
_SESSION = "1d"


class IntervalsWrong(SettingsWrong):
    """Intervals that no bars can be made of; the message lists every mistake and what is
    allowed."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A bar's interval; `1d` is the market's session, whatever its length."""

    name: str
    length_ms: int

    @property
    def is_session(self) -> bool:
        """Whether the interval is the market's session."""
        return self.name == _SESSION


@dataclass(frozen=True, slots=True)
class Ladder:
    """Intervals from the finest to the coarsest, and how they build on each other; numbers are
    levels: indexes of `intervals`."""

    intervals: tuple[Interval, ...]
    roots: tuple[int, ...]
    """Intervals that take each trade."""
    coarser: tuple[tuple[int, ...], ...]
    """Per interval: those that are folded from its bars."""


def ladder(names: Sequence[str], folded: bool = True) -> Ladder:
    """Return the ladder of these intervals; raises IntervalsWrong.

    An interval is folded from the coarsest one that divides it, so that each trade is touched once.
    Sessions begin and end on whole minutes, so `1d` is folded from one that divides a minute.
    Without `folded` each takes every trade.
    """
    intervals = _parse(names)
    roots: list[int] = []
    coarser: list[list[int]] = [[] for _ in intervals]
    for level, interval in enumerate(intervals):
        divided = MINUTE if interval.is_session else interval.length_ms
        finer = [other for other in range(level) if divided % intervals[other].length_ms == 0]
        if folded and finer:
            coarser[finer[-1]].append(level)
        else:
            roots.append(level)
    return Ladder(intervals, tuple(roots), tuple(map(tuple, coarser)))


def _parse(names: Sequence[str]) -> tuple[Interval, ...]:
    mistakes: list[str] = [] if names else ["none given"]
    intervals: dict[int, Interval] = {}
    for name in names:
        match = _NAME.fullmatch(name)
        length = DAY if name == _SESSION else int(match[1]) * _UNITS[match[2]] if match else 0
        if length == 0 or DAY % length or (length == DAY and name != _SESSION):
            mistakes.append(repr(name))
        elif length in intervals:
            mistakes.append(f"{name!r} (the same as {intervals[length].name!r})")
        else:
            intervals[length] = Interval(name, length)
    if mistakes:
        raise IntervalsWrong(
            f"bar intervals: {', '.join(mistakes)}; allowed, each length once: whole seconds, "
            "minutes or hours that divide a day, "
            "1s to 12h (1s 5s 15s 30s 1m 5m 15m 30m 1h 4h 12h …), and 1d, the market's session"
        )
    return tuple(intervals[length] for length in sorted(intervals))


def span_ms(window: str) -> int | None:
    """Return the length of a rolling window named '30s', '5m' or '1h' in milliseconds; None where
    it is not 1s to 24h."""
    match = _NAME.fullmatch(window)
    length = int(match[1]) * _UNITS[match[2]] if match else 0
    return length if 0 < length <= DAY else None
