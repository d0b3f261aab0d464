"""Plain HTTP on the WebSocket's port: a request without an upgrade is answered here, bodies
included; no vendor's rules."""

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import unquote, urlsplit

from websockets.asyncio.server import ServerConnection
from websockets.protocol import State

LONGEST = 1 << 20
_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class PlainRequest:
    """One request of HTTP. `headers` have lower-case names."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Answer = Callable[[PlainRequest], tuple[int, bytes]]
"""Gives the HTTP status and the JSON for a request."""


def connection_of(answer: Answer) -> type[ServerConnection]:
    """Return a connection for `websockets` that looks at the first request: an upgrade goes on to
    it, the rest to `answer`.

    The library's own hook for requests sees no body and refuses every request that has one. A
    client waits for the answer to its handshake (RFC 6455, 4.1): one that sends more before is
    refused here, as the library fails at it.
    """

    class Connection(ServerConnection):
        _read: bytes | None = b""
        """What has come of the first request; None once it has been passed on or answered."""

        def data_received(self, data: bytes) -> None:
            if self._read is None:
                if self.transport.is_closing():
                    return
                if self.protocol.state is State.CONNECTING:
                    self.transport.abort()
                else:
                    super().data_received(data)
                return
            self._read += data
            head, end, rest = self._read.partition(_END)
            if not end and len(self._read) < LONGEST:
                return
            if _is_upgrade(head) and not rest:
                first, self._read = self._read, None
                super().data_received(first)
                return
            reply = (
                _message(HTTPStatus.BAD_REQUEST, b"")
                if _is_upgrade(head)
                else _reply(self._read, answer)
            )
            if reply is not None:
                self._read = None
                self.transport.write(reply)
                self.transport.close()

    return Connection


def _is_upgrade(head: bytes) -> bool:
    return b"\r\nupgrade:" in head.lower()


def _reply(read: bytes, answer: Answer) -> bytes | None:
    """Return the whole reply, None while the body is still on its way."""
    head, _, body = read.partition(_END)
    try:
        first, *lines = head.decode("ascii").split("\r\n")
        method, target, _ = first.split(" ")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        length = _length(headers.get("content-length", "0"))
        parts = urlsplit(target)
    except ValueError:
        return _message(HTTPStatus.BAD_REQUEST, b"")
    if length > LONGEST or len(head) >= LONGEST or "transfer-encoding" in headers:
        return _message(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, b"")
    if len(body) < length:
        return None
    return _message(*answer(PlainRequest(method, unquote(parts.path), headers, body[:length])))


def _length(text: str) -> int:
    # int() takes signs and underscores too
    if not (text.isascii() and text.isdigit()):
        raise ValueError(text)
    return int(text)


def _message(status: int, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: "
        f"application/json\r\nContent-Length: {len(body)}\r\n"
    )
    return f"{head}Connection: close\r\n\r\n".encode() + body
