"""Keys of a terminal, one at a time and without Enter; Ctrl-C stays a signal."""

import os
import re
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator
from typing import Any

_NAMED = {
    "\x1b[A": "up", "\x1bOA": "up", "\x1b[B": "down", "\x1bOB": "down",
    "\x1b[5~": "pgup", "\x1b[6~": "pgdn",
    "\x1b[H": "home", "\x1bOH": "home", "\x1b[1~": "home",
    "\x1b[F": "end", "\x1bOF": "end", "\x1b[4~": "end",
    "\x1b": "esc", "\r": "enter", "\n": "enter", "\x7f": "backspace", "\x08": "backspace",
}  # fmt: skip
_KEY = re.compile(r"\x1b\[[0-9;]*[A-Za-z~]|\x1bO[A-Za-z]|[^\x1b]|\x1b", re.DOTALL)


class Keys:
    """The keys of stdin if that is a terminal, else none."""

    def __init__(self) -> None:
        self._descriptor: int | None = None
        self._before: list[Any] = []

    def __enter__(self) -> "Keys":
        try:
            descriptor = sys.stdin.fileno()
            # in the background a terminal is another program's
            if os.isatty(descriptor) and os.tcgetpgrp(descriptor) == os.getpgrp():
                self._before = termios.tcgetattr(descriptor)
                tty.setcbreak(descriptor)
                self._descriptor = descriptor
        except (OSError, ValueError, AttributeError, termios.error):
            self._descriptor = None
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor is not None:
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)

    def wait(self, seconds: float) -> Iterator[str]:
        """Yield the keys that are pressed within a time, ending at once if there is one."""
        if self._descriptor is None:
            time.sleep(seconds)
            return
        ready, _, _ = select.select([self._descriptor], [], [], seconds)
        if not ready:
            return
        pressed = os.read(self._descriptor, 1024)
        if not pressed:
            # the terminal has gone
            self._descriptor = None
            return
        yield from named(pressed.decode(errors="replace"))


def named(pressed: str) -> Iterator[str]:
    """Yield the names of keys, a character for itself; sequences that are not known are left
    out."""
    for key in _KEY.findall(pressed):
        if key in _NAMED:
            yield _NAMED[key]
        elif len(key) == 1 and key.isprintable():
            yield key
