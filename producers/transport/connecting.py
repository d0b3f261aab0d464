"""Opens a WebSocket in bounded time and memory, which a stop cuts short; it knows no key and judges
no answer."""

import re
import socket
import threading
import time
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import Any

import websocket
from websocket import _handshake
from websocket._cookiejar import SimpleCookieJar

from producers.transport.message_limit import BoundedFrames

_STEP = 5.0
"""Seconds for one step: the TCP connection, the TLS handshake, a piece of the server's answer."""
_LIMIT = 10.0
"""Seconds for all of them: an answer may dribble."""
_LOOK = 0.1
"""Seconds between two looks at `stop`."""
MAX_ANSWER = 64 * 1024
"""Bytes of the server's answer to the handshake, with the page of one that refuses."""

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])[ \r]")


class _NoCookies(SimpleCookieJar):  # type: ignore[misc]
    """Keeps no cookie: the library's jar is one for the process, and a server fills it for ever."""

    def add(self, set_cookie: str | None) -> None:
        """Pass over a server's cookie, unparsed."""


# the handshake asks this global of its module, whatever options a connection has
_handshake.CookieJar = _NoCookies()


class _Answer:
    """A socket while it shakes hands: it gives the library, which takes any number of headers of
    any length, a bounded answer, and keeps that: what the library raises of a refusal's page has
    lost its status."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.answer = bytearray()

    def recv(self, size: int) -> bytes:
        chunk = self.sock.recv(size)
        self.answer += chunk
        if len(self.answer) > MAX_ANSWER:
            raise websocket.WebSocketException(
                f"the answer to the handshake has more than {MAX_ANSWER} bytes"
            )
        return chunk

    def refusal(self) -> websocket.WebSocketBadStatusException | None:
        """Return what the answer refuses, where its status does, however far its page has come."""
        head, _, page = bytes(self.answer).partition(b"\r\n\r\n")
        line = _STATUS_LINE.match(head)
        if line is None or line[1] == b"101":
            return None
        return websocket.WebSocketBadStatusException("refused", int(line[1]), None, None, page)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sock, name)


class _WebSocket(websocket.WebSocket):  # type: ignore[misc]
    """The library's, each of whose sockets is bounded from the first byte that it reads as a
    WebSocket."""

    answer: _Answer | None = None
    _made: Any = None

    @property
    def sock(self) -> Any:
        return self._made

    @sock.setter
    def sock(self, made: Any) -> None:
        if isinstance(made, socket.socket):
            made = self.answer = _Answer(made)
        self._made = made


def open_websocket(url: str, stop: threading.Event) -> websocket.WebSocket:
    """Connect, and return the WebSocket, whose messages are bounded.

    Raises what websocket-client raises, and TimeoutError when the time is over or `stop` is set.
    """
    # the library checks UTF-8 in Python, which caps it at 7,000 depth frames a second; orjson
    # checks it anyway
    opening = _WebSocket(skip_utf8_validation=True, enable_multithread=False)
    opening.frame_buffer = BoundedFrames(opening._recv, skip_utf8_validation=True)
    opened: Future[None] = Future()

    def connect() -> None:
        try:
            # a redirect would carry the key to another host
            opening.connect(url, timeout=_STEP, redirect_limit=0)
        except Exception as error:  # noqa: BLE001 - handed to the feed's thread
            opened.set_exception(error)
        else:
            opened.set_result(None)

    # in a thread of its own: nobody can interrupt the look-up of a name, or the library between its
    # steps
    threading.Thread(target=connect, name="connecting", daemon=True).start()
    give_up = time.monotonic() + _LIMIT
    while not wait([opened], _LOOK).done:
        if stop.is_set() or time.monotonic() > give_up:
            _abandon(opening, opened)
            if not stop.is_set():
                _raise_refusal(opening)
            raise TimeoutError(
                "told to stop" if stop.is_set() else f"timed out: no answer in {_LIMIT:g} s"
            )
    try:
        opened.result()
    except websocket.WebSocketBadStatusException:
        raise
    except (websocket.WebSocketException, OSError):
        _raise_refusal(opening)
        raise
    # from here on messages are bounded, not what comes in all
    opening._made = opening.sock.sock
    return opening


def _raise_refusal(opening: _WebSocket) -> None:
    # a page that is too long, breaks off or dribbles must not hide a status that forbids another
    # try
    if opening.answer is not None and (refusal := opening.answer.refusal()):
        raise refusal from None


def _abandon(opening: _WebSocket, opened: Future[None]) -> None:
    """See to it that a connection that nobody waits for any more is closed, now or when it is
    made."""
    opened.add_done_callback(lambda _: opening.shutdown())
    under_way = opening.sock
    if under_way is not None:
        with suppress(OSError):
            under_way.shutdown(socket.SHUT_RDWR)
