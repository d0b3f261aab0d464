"""A file of symbols that may change while feeds run: read again on SIGHUP and when its time of change moves."""

import argparse
import logging
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from producers.answers import RestError
from producers.plan import PlanTooSmall
from producers.symbols import BadSymbols, Feed

PERIOD = 2.0

_log = logging.getLogger(__name__)


class SymbolsFileUnreadable(ValueError):
    """The file of symbols cannot be read, or names none."""


def read_symbols(path: Path) -> str:
    """Return the symbols of a file as `--symbols` takes them: by line or comma, `#` begins a comment; raises SymbolsFileUnreadable."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SymbolsFileUnreadable(f"--symbols-file {path}: {error}") from error
    symbols = ",".join(line.partition("#")[0] for line in lines)
    if not symbols.replace(",", "").strip():
        raise SymbolsFileUnreadable(f"--symbols-file {path}: it names no symbol")
    return symbols


def add_symbols_to(command: argparse.ArgumentParser) -> None:
    """Add the options that name what is subscribed, one of which a command takes."""
    options = command.add_mutually_exclusive_group()
    options.add_argument("--symbols", help="comma-separated symbols, each to its business; SYMBOL:BUSINESS overrules")
    options.add_argument(
        "--symbols-file", type=Path, help="file of symbols in place of --symbols; read again when it changes and on SIGHUP"
    )


def watch(path: Path | None, plan: Callable[[str], Sequence[Feed]], change: Callable[[Sequence[Feed]], None]) -> Callable[[], None]:
    """Return what takes up a changed file, to be called at least every second; without a file it does nothing."""
    return SymbolsFile(path, plan, change).poll if path else lambda: None


class SymbolsFile:
    """Watches a file of symbols and hands what `plan` makes of them to `change`; a bad file changes nothing and is one line in the log."""

    def __init__(self, path: Path, plan: Callable[[str], Sequence[Feed]], change: Callable[[Sequence[Feed]], None]) -> None:
        self._path = path
        self._plan = plan
        self._change = change
        self._asked = threading.Event()
        self._seen = self._stamp()
        self._next = time.monotonic() + PERIOD
        signal.signal(signal.SIGHUP, lambda *_: self._asked.set())

    def poll(self) -> None:
        """Read the file again where that is due; call it at least every second."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + PERIOD
            stamp = self._stamp()
            if stamp != self._seen:
                self._seen = stamp
                self._asked.set()
        if not self._asked.is_set():
            return
        self._asked.clear()
        try:
            self._change(self._plan(read_symbols(self._path)))
        except (SymbolsFileUnreadable, BadSymbols, PlanTooSmall, RestError) as error:
            _log.warning("the symbols stay as they are: %s", error)

    def _stamp(self) -> tuple[int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size
