"""Keeps Kafka's clients from filling the log while a broker is away: a kind of line once a minute,
with how many there were.

A client tries to connect several times a second, and writes a line each time. What says that a
client is of no more use is never held back.
"""

import logging
import time
from collections.abc import Iterable

PERIOD = 60.0
"""Seconds in which a kind of line is shown once."""
LIBRDKAFKA = "%s [%s] %s"
"""The text, before its values, of every line of librdkafka that confluent-kafka hands to a logger;
the first value is its kind."""
_AWAY = frozenset(
    (
        # librdkafka's kinds: a connection or a request failed, all brokers are down
        "FAIL",
        "ERROR",
        "REQTMOUT",
        # aiokafka's texts
        "Unable connect to node with id %s: %s",
        "Unable to update metadata from %s",
        "Unable to request metadata from node with id %s: %r",
        "Group Coordinator Request failed: %s",
    )
)
"""Kinds that say the same: a broker does not answer."""


class Sparing(logging.Filter):
    """Lets a kind of line through once in PERIOD; what was held back is counted in the next one."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, tuple[float, int]] = {}
        """By kind: when a line was shown, and how many were not since."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the line is shown."""
        kind = _kind(record)
        if kind is None:
            return True
        now = time.monotonic()
        said_at, held_back = self._said.get(kind, (now - PERIOD, 0))
        if now - said_at < PERIOD:
            self._said[kind] = said_at, held_back + 1
            return False
        self._said[kind] = now, 0
        if held_back:
            record.msg, record.args = (
                f"{record.getMessage()} ({held_back} lines like this one were held back)",
                (),
            )
        return True


def spare(loggers: Iterable[str]) -> None:
    """Let these loggers share one filter; a logger that has one keeps it."""
    sparing = Sparing()
    for name in loggers:
        logger = logging.getLogger(name)
        if not any(isinstance(each, Sparing) for each in logger.filters):
            logger.addFilter(sparing)


def _kind(record: logging.LogRecord) -> str | None:
    """Return the kind of a line that may be held back."""
    if record.levelno >= logging.CRITICAL or record.exc_info:
        return None
    if record.msg == LIBRDKAFKA and isinstance(record.args, tuple) and record.args:
        kind = str(record.args[0])
        if kind == "FATAL":
            return None
    elif record.name.startswith("aiokafka") and record.levelno >= logging.WARNING:
        kind = str(record.msg)
    else:
        return None
    return "away" if kind in _AWAY else kind
