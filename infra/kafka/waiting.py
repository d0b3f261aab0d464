"""Calls of the Kafka client that may take long: whoever waits for them can be interrupted, as the
client itself cannot."""

import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

LEAVE_S = 0.1
"""Seconds that a call has for its end: one that asks a broker that is away is left behind."""
_TURN_S = 0.1


def interruptible(work: Callable[[], Result], stop: threading.Event | None = None) -> Result | None:
    """Return what `work` returns, called in a thread of its own, and raise what it raises; None if
    `stop` was set before. A Ctrl-C raises KeyboardInterrupt at once."""
    done: list[Result] = []
    raised: list[BaseException] = []
    ended = threading.Event()

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:  # noqa: BLE001 - it is raised where the thread is waited for
            raised.append(error)
        finally:
            ended.set()

    threading.Thread(target=run, name="kafka-call", daemon=True).start()
    while not ended.wait(_TURN_S):
        if stop is not None and stop.is_set():
            ended.wait(LEAVE_S)
            return None
    if raised:
        raise raised[0]
    return done[0]
