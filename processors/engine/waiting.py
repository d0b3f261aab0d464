"""A wait for something outside of this process, broker or registry: named for /readyz, and in one
line of the log a minute."""

import logging
import time

log = logging.getLogger(__name__)

LOG_EVERY_S = 60.0


class Wait:
    """One wait, from when it is made on."""

    def __init__(self, what: str) -> None:
        """`what` is waited for."""
        self._what = what
        self._began = time.monotonic()
        self._log_at = 0.0

    def text(self, why: str) -> str:
        """Say what is waited for, for how long and why; logs it, but for once a minute at most."""
        now = time.monotonic()
        said = f"{self._what} for {now - self._began:.0f} s: {why}"
        if now >= self._log_at:
            self._log_at = now + LOG_EVERY_S
            log.warning("waiting for %s", said)
        return said

    def over(self) -> None:
        """Log that the wait is over."""
        log.warning("%s is there again after %.0f s", self._what, time.monotonic() - self._began)
