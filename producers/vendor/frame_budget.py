"""How many frames a connection may send: one more than the vendor allows closes the socket."""

from collections import deque

WINDOW = 60_000_000
"""Microseconds in which the vendor counts frames."""
FRAMES = 60
"""Frames that the vendor allows in a window; one more closes the socket, and repeated closures ban
the key."""
RESERVED = 8
"""Frames of a window that only heartbeats may use."""


class FrameBudget:
    """Counts what a connection has sent in the last minute. Pings count too: the vendor does not
    say that they don't."""

    def __init__(self) -> None:
        # older ones decide nothing, and a server that pings without end is answered as often
        self._sent: deque[int] = deque(maxlen=FRAMES)

    def take(self, now_us: int, reserved: int = RESERVED) -> bool:
        """Return whether one more frame may go at `now_us` (microseconds), leaving `reserved` free,
        and count it if so."""
        while self._sent and self._sent[0] <= now_us - WINDOW:
            self._sent.popleft()
        if len(self._sent) >= FRAMES - reserved:
            return False
        self.count(now_us)
        return True

    def count(self, now_us: int) -> None:
        """Count a frame that has gone unasked."""
        self._sent.append(now_us)
