"""Ctrl-C and SIGTERM as an event, for commands that end in order."""

import signal
import threading


def stop_on_signals() -> threading.Event:
    """Return an event that both signals set from now on; a second Ctrl-C does not cut an orderly
    end short."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop
