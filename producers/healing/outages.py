"""The time that feeds did not see and that waits to be healed, in a file too, so that a new process
goes on; it asks no vendor."""

import logging
import threading
from collections.abc import Callable
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import orjson

from schemas.errors import InfowayError

_log = logging.getLogger(__name__)


class OutagesUnreadable(InfowayError):
    """The file of an earlier process is none of ours."""


@dataclass(frozen=True, slots=True, order=True)
class Outage:
    """Time that a feed did not see of a symbol, and when its klines are asked for, in ms UTC."""

    due: int
    ts_from: int
    ts_to: int
    symbol: str
    business: str
    feed: str
    attempts: int = 0


class Outages:
    """The outages that wait, for one thread that takes them and any that put them."""

    def __init__(self, path: Path | None, reach_ms: int) -> None:
        """Take up what the file has. Outages of a feed and a symbol that are less than `reach_ms`
        apart are one: one request brings as much. Without a path nothing is kept. Raises
        OutagesUnreadable."""
        self._path = path
        self._reach = reach_ms
        self._waiting: list[Outage] = []
        self._taken: Outage | None = None
        self._changed = threading.Condition()
        self._ended = False
        if path is not None and path.exists():
            try:
                self._waiting = sorted(
                    Outage(*fields) for fields in orjson.loads(path.read_bytes())
                )
            except (ValueError, TypeError) as error:
                raise OutagesUnreadable(
                    f"{path} should hold the gaps that wait to be healed ({error}): remove it, "
                    "and heal by `infoway-streams backfill`"
                ) from error

    def put(self, outage: Outage) -> None:
        """Take note of an outage; due is as soon as either of two that become one."""
        with self._changed:
            for other in self._waiting:
                near = (
                    other.ts_from - self._reach < outage.ts_to
                    and outage.ts_from < other.ts_to + self._reach
                )
                if (other.symbol, other.business, other.feed) == (
                    outage.symbol,
                    outage.business,
                    outage.feed,
                ) and near:
                    self._waiting.remove(other)
                    due, attempts = min(other.due, outage.due), min(other.attempts, outage.attempts)
                    times = min(other.ts_from, outage.ts_from), max(other.ts_to, outage.ts_to)
                    outage = replace(
                        outage, due=due, ts_from=times[0], ts_to=times[1], attempts=attempts
                    )
                    break
            self._waiting.append(outage)
            self._keep()
            self._changed.notify()

    def next(self, clock: Callable[[], int]) -> Outage | None:
        """Wait for the first outage that is due by a clock (ms UTC) and take it; None at the
        end."""
        with self._changed:
            while not self._ended:
                first = min(self._waiting, default=None)
                if first is not None and first.due <= (now := clock()):
                    self._waiting.remove(first)
                    # still in the file: a process that is killed now has not healed it
                    self._taken = first
                    return first
                self._changed.wait(None if first is None else (first.due - now) / 1000)
            return None

    def done(self) -> None:
        """Note that what was taken last needs no more; `put` back what is left of it first."""
        with self._changed:
            self._taken = None
            self._keep()

    @property
    def ended(self) -> bool:
        """Whether nobody is to go on."""
        return self._ended

    def end(self) -> None:
        """Let who waits go on to its end."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def _keep(self) -> None:
        if self._path is None:
            return
        known = [*self._waiting] if self._taken is None else [self._taken, *self._waiting]
        written = self._path.with_suffix(".new")
        try:
            written.write_bytes(orjson.dumps([astuple(outage) for outage in known]))
            written.replace(self._path)
        except OSError as error:
            _log.error(
                "%s cannot be written (%s): gaps that wait to be healed are forgotten with this "
                "process",
                self._path,
                error,
            )
