"""Opens a WebSocket in bounded time, which a stop cuts short; it knows no key and judges no answer."""

import threading
import time
from concurrent.futures import Future, wait
from contextlib import suppress
from socket import SHUT_RDWR

import websocket

_STEP = 5.0
"""Seconds for one step: the TCP connection, the TLS handshake, a piece of the server's answer."""
_LIMIT = 10.0
"""Seconds for all of them: an answer may dribble."""
_LOOK = 0.1
"""Seconds between two looks at `stop`."""


def open_websocket(url: str, stop: threading.Event) -> websocket.WebSocket:
    """Connect. Raises what websocket-client raises, and TimeoutError when the time is over or `stop` is set."""
    # the library checks UTF-8 in Python, which caps it at 7,000 depth frames a second; orjson checks it anyway
    socket = websocket.WebSocket(skip_utf8_validation=True, enable_multithread=False)
    opened: Future[None] = Future()

    def connect() -> None:
        try:
            # a redirect would carry the key to another host
            socket.connect(url, timeout=_STEP, redirect_limit=0)
        except Exception as error:  # noqa: BLE001 - handed to the feed's thread
            opened.set_exception(error)
        else:
            opened.set_result(None)

    # in a thread of its own: nobody can interrupt the look-up of a name, or the library between its steps
    threading.Thread(target=connect, name="connecting", daemon=True).start()
    give_up = time.monotonic() + _LIMIT
    while not wait([opened], _LOOK).done:
        if stop.is_set() or time.monotonic() > give_up:
            _abandon(socket, opened)
            raise TimeoutError(
                "told to stop" if stop.is_set() else f"timed out: no answer in {_LIMIT:g} s"
            )
    opened.result()
    return socket


def _abandon(socket: websocket.WebSocket, opened: Future[None]) -> None:
    """See to it that a connection that nobody waits for any more is closed, now or when it is made."""
    opened.add_done_callback(lambda _: socket.shutdown())
    under_way = socket.sock
    if under_way is not None:
        with suppress(OSError):
            under_way.shutdown(SHUT_RDWR)
