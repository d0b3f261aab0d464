"""Ctrl-C and SIGTERM as an event, for commands that end in order."""

import logging
import os
import signal
import threading
import time

from infra.runtime.exit_codes import Code

log = logging.getLogger(__name__)


def stop_on_signals(within_s: float | None = None) -> threading.Event:
    """Return an event that both signals set from now on; a second Ctrl-C does not cut an orderly
    end short.

    Where the process has not ended `within_s` seconds later, it is ended: a call of the Kafka
    client may not come back.
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    if within_s is not None:
        threading.Thread(target=_end, args=(stop, within_s), name="end", daemon=True).start()
    return stop


def _end(stop: threading.Event, within_s: float) -> None:
    stop.wait()
    time.sleep(within_s)
    code = Code.CLUSTER_AWAY
    log.error("told to end, and still here after %.0f s: ended, exit code %d", within_s, code)
    for handler in logging.getLogger().handlers:
        handler.flush()
    os._exit(code)
