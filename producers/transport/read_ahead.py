"""Reads a WebSocket's bytes ahead of the library that cuts them into frames, and cuts the plain
ones itself; it knows no text."""

import select
import ssl
import time
from typing import Any

_READ_SIZE = 256 * 1024
_WHOLE_TEXT = 0x81
"""First byte of a frame that is a text by itself."""


class ReadAhead:
    """A socket that takes from the kernel all there is: websocket-client asks for two bytes, two
    more, then the rest of each frame."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._taken = b""
        self._read = 0
        self._give_up = 0.0
        self._look = select.poll()
        self._look.register(sock.fileno(), select.POLLIN)
        self.empty_at = time.monotonic()
        """When nothing that had come was left to be read (monotonic seconds)."""

    def allow(self, seconds: float) -> None:
        """Give the next message so many seconds, however many reads it takes; what came of it is
        kept by the library."""
        self._give_up = time.monotonic() + seconds

    def recv(self, size: int) -> bytes:
        """Return up to `size` bytes, none at the end of the stream.

        Raises what the socket raises: TimeoutError also where it does not wait and nothing is
        there, and where the time is over.
        """
        if self._read == len(self._taken):
            now = time.monotonic()
            # what is read late may be of long before: a gap begins where the socket was last empty
            if not self._look.poll(0):
                self.empty_at = now
            if now > self._give_up:
                raise TimeoutError("the message is not whole yet")
            try:
                self._taken, self._read = self._sock.recv(_READ_SIZE), 0
            except (BlockingIOError, ssl.SSLWantReadError):
                raise TimeoutError("nothing to read") from None
        chunk = self._taken[self._read : self._read + size]
        self._read += len(chunk)
        return chunk

    def texts(self) -> list[bytes]:
        """Take the texts that have been read whole.

        websocket-client spends 10 us on a frame, a quarter of what it takes to publish one. The
        first frame of a read is its, and what is no plain text. Where it has half a frame it has
        taken all that was read, and nothing is found here.
        """
        taken, at, found = self._taken, self._read, list[bytes]()
        while len(taken) - at >= 4 and taken[at] == _WHOLE_TEXT:
            size, begin = taken[at + 1], at + 2
            if size == 126:
                size, begin = taken[at + 2] << 8 | taken[at + 3], at + 4
            elif size > 126:
                # longer, or masked as no server may
                break
            if begin + size > len(taken):
                break
            at = begin + size
            found.append(taken[begin:at])
        self._read = at
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)
