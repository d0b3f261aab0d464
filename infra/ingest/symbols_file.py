"""A file of symbols that may change while feeds run: read again when it has changed, and on
SIGHUP."""

import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from producers.vendor.answers import RestError
from producers.vendor.plan import PlanTooSmall
from producers.vendor.symbols import BadSymbols, Feed
from schemas.bounded_text import read_text
from schemas.errors import SettingsWrong

PERIOD = 1.0
MAX_FILE = 1024 * 1024
"""Bytes: 5,000 symbols have under 200 KB."""
FIRST_DELAY = 5.0
LAST_DELAY = 60.0

_Stamp = tuple[int, int, int]
"""Time of change, size and inode of a file."""

_log = logging.getLogger(__name__)


class SymbolsFileUnreadable(SettingsWrong):
    """The file of symbols cannot be read, or names none."""


def read_symbols(path: Path) -> str:
    """Return the symbols of a file as `--symbols` takes them: by line or comma, `#` begins a
    comment; raises SymbolsFileUnreadable."""
    try:
        lines = read_text(path, MAX_FILE).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SymbolsFileUnreadable(f"--symbols-file {path}: {error}") from error
    symbols = ",".join(line.partition("#")[0] for line in lines)
    if not symbols.replace(",", "").strip():
        raise SymbolsFileUnreadable(f"--symbols-file {path}: it names no symbol")
    return symbols


def watch(
    path: Path | None,
    plan: Callable[[str], Sequence[Feed]],
    change: Callable[[Sequence[Feed]], None],
) -> Callable[[], None]:
    """Return what takes up a changed file, to be called at least every second; without a file it
    tells a SIGHUP that there is none."""
    if path:
        return SymbolsFile(path, plan, change).poll
    asked = _hangups()

    def answer() -> None:
        if asked.is_set():
            asked.clear()
            _log.warning("SIGHUP: no --symbols-file to read anew")

    return answer


class SymbolsFile:
    """Watches a file of symbols and hands what `plan` makes of them to `change`; a bad file changes
    nothing and is one line in the log.

    A file is read once two looks, PERIOD apart, have found it alike: one that is being written
    would lack symbols. Where the vendor's REST fails for a moment, the file is planned again after
    5, 10, 20 … 60 s.
    """

    def __init__(
        self,
        path: Path,
        plan: Callable[[str], Sequence[Feed]],
        change: Callable[[Sequence[Feed]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._plan = plan
        self._change = change
        self._clock = clock
        self._taken = self._seen = self._stamp()
        now = clock()
        self._seen_since = now - PERIOD
        self._next = now + PERIOD
        self._due = math.inf
        self._delay = FIRST_DELAY
        self._asked = _hangups()

    def poll(self) -> None:
        """Look at the file, and read it again, where that is due; call it at least every second."""
        now = self._clock()
        if self._asked.is_set():
            self._asked.clear()
            self._want(now)
        elif now < self._next:
            return
        self._next = now + PERIOD
        stamp = self._stamp()
        if stamp != self._seen:
            self._seen, self._seen_since = stamp, now
            return
        if stamp != self._taken:
            self._want(now)
        if now >= self._due and now - self._seen_since >= PERIOD:
            self._take_up(stamp)

    def _want(self, now: float) -> None:
        self._due = now
        self._delay = FIRST_DELAY

    def _take_up(self, stamp: _Stamp | None) -> None:
        self._taken, self._due = stamp, math.inf
        try:
            symbols = read_symbols(self._path)
            if self._stamp() != stamp:
                # written while it was read: the next looks will see it
                return
            self._change(self._plan(symbols))
        except (SymbolsFileUnreadable, BadSymbols, PlanTooSmall, RestError) as error:
            later = ""
            if isinstance(error, RestError) and error.retryable:
                later = f"; planned again in {self._delay:g} s"
                self._due = self._clock() + self._delay
                self._delay = min(2 * self._delay, LAST_DELAY)
            _log.warning("the symbols stay as they are: %s%s", error, later)

    def _stamp(self) -> _Stamp | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino


def _hangups() -> threading.Event:
    """Return an event that every SIGHUP sets from now on."""
    asked = threading.Event()
    signal.signal(signal.SIGHUP, lambda *_: asked.set())
    return asked
