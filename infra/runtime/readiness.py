"""How a supervised worker says what it does: a line in a pipe to its supervisor at every change."""

import os
import threading
from collections.abc import Callable
from contextlib import suppress

READY = "running"
PERIOD = 0.5
"""Seconds between two looks at what a worker does."""
_LONGEST = 200
_SHORT = {
    "recovering": "loading its states",
    "starting": "starting",
    "not in the group": "joining the group",
}


def report(descriptor: int, unready: Callable[[], str | None]) -> None:
    """Write what a worker does into the pipe whenever it changes, from a thread of its own."""

    def run() -> None:
        said, stopped = "", threading.Event()
        while not stopped.wait(PERIOD):
            now = shortened(unready())
            if now != said:
                # a pipe takes so short a line as a whole; the supervisor may be gone, which ends us
                with suppress(BrokenPipeError):
                    os.write(descriptor, f"{now}\n".encode())
                said = now

    threading.Thread(target=run, name="readiness", daemon=True).start()


def shortened(unready: str | None) -> str:
    """Return in a few words what keeps a worker, READY if nothing does."""
    if unready is None:
        return READY
    beginning = unready.partition(":")[0]
    text = " ".join(_SHORT.get(beginning, unready).split())
    return text[:_LONGEST]


class Reports:
    """The supervisor's end of the pipe of one process."""

    def __init__(self) -> None:
        self._read, self.write = os.pipe()
        os.set_blocking(self._read, False)
        self._rest = b""
        self.last = "starting"
        """What the process said last."""

    def started(self) -> None:
        """Leave the writing to the process, which has it now."""
        os.close(self.write)
        self.write = -1

    def look(self) -> None:
        """Take what has come."""
        while True:
            try:
                some = os.read(self._read, 65_536)
            except BlockingIOError:
                return
            if not some:
                return
            *lines, self._rest = (self._rest + some).split(b"\n")
            if lines:
                self.last = lines[-1].decode(errors="replace")

    def close(self) -> None:
        """Free the pipe, both ends of it if no process was started."""
        os.close(self._read)
        if self.write >= 0:
            os.close(self.write)
