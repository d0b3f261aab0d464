"""Refuses a WebSocket message by the length that its frames announce, before any of it is kept."""

from collections.abc import Callable

import websocket
from websocket import frame_buffer

MAX_MESSAGE = 1024 * 1024
"""Bytes of a message, all its fragments together. The vendor's longest message is an error that
names the 600 symbols of a connection, under 20 KB; a push has under 3 KB."""
_MAX_CONTROL = 125
"""Bytes of a ping, pong or close (RFC 6455, 5.5)."""
_FRAGMENT = 64
"""Bytes that a fragment counts more than it has: the library copies the message for each, and empty
ones are endless."""


class MessageRefused(websocket.WebSocketProtocolException):  # type: ignore[misc]
    """A message or a control frame that no WebSocket of the vendor's can have."""


class BoundedFrames(frame_buffer):  # type: ignore[misc]
    """The library's buffer of one connection's frames, which by itself takes any length."""

    def __init__(self, recv_fn: Callable[[int], bytes], skip_utf8_validation: bool) -> None:
        super().__init__(recv_fn, skip_utf8_validation)
        self._message = 0
        """Bytes announced by the fragments of the message so far."""

    def recv_length(self) -> None:
        """Read the announced length. Raises MessageRefused."""
        super().recv_length()
        assert self.header is not None
        assert self.length is not None
        fin, _, _, _, opcode, _, _ = self.header
        if opcode >= websocket.ABNF.OPCODE_CLOSE:
            if not fin or self.length > _MAX_CONTROL:
                raise MessageRefused(
                    f"the server sent a control frame of {self.length} bytes"
                    f"{'' if fin else ' in fragments'}: at most {_MAX_CONTROL} in one piece are "
                    "legal"
                )
            return
        announced = self._message + self.length
        if announced > MAX_MESSAGE:
            raise MessageRefused(
                f"the server announced a message of {announced} bytes or more: at most "
                f"{MAX_MESSAGE} are taken"
            )
        self._message = 0 if fin else announced + _FRAGMENT
