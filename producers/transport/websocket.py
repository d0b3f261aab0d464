"""Moves bytes between the vendor's WebSocket and a feed's protocol, and connects again when it is
lost; it judges no frame."""

import logging
import random
import threading
import time
from contextlib import suppress

import websocket

from producers.delivery.sink import Sink
from producers.feed.outputs import Output
from producers.feed.protocol import FeedProtocol
from producers.feed.states import State
from producers.transport.clock import FeedTime, Microseconds, steady_clock, wall_clock
from producers.transport.connecting import open_websocket
from producers.transport.endpoint import Endpoint, FeedRefused, KeyRefused
from producers.transport.message_limit import MessageRefused
from producers.transport.read_ahead import ReadAhead
from producers.vendor.codes import Verdict, judge
from producers.vendor.exact_json import UnreadableFrame
from producers.vendor.frames import ErrorFrame, read_frame
from producers.vendor.secret import Secret

_log = logging.getLogger(__name__)

_READ_TIMEOUT = 0.25
_DRAIN = 1.0
"""Seconds for what has come before the end and is not published yet."""
_END = 1.5
"""Seconds for the whole end of a connection, the vendor's answer to the close included."""
_BACKOFF_BASE = 1.0
_BACKOFF_CAP = 30.0
_STEADY_US = 60_000_000
"""Microseconds after which a connection has proven itself, and the next loss starts with a short
backoff again."""

_GATEWAY = (500, 502, 503, 504)
"""HTTP statuses of a gateway whose server is away."""
_DATA = (websocket.ABNF.OPCODE_TEXT, websocket.ABNF.OPCODE_BINARY)


class _ConnectionFailed(Exception):
    """No connection could be made; worth another try."""


def run_feed(
    protocol: FeedProtocol,
    endpoint: Endpoint,
    publisher: Sink,
    stop: threading.Event,
    chance: random.Random,
    wall: Microseconds = wall_clock,
    steady: Microseconds = steady_clock,
) -> None:
    """Keep a feed connected and publish what it says, until `stop` is set: then it ends in order,
    within 2 s.

    Raises KeyRefused, FeedRefused, and what the sink raises. Reconnects with full jitter: a random
    share of 1, 2, 4 … 30 s.
    """
    clock = FeedTime(wall, steady)
    attempt = 0
    while not stop.is_set():
        _apply_wanted(protocol, publisher, clock)
        opened = steady()
        try:
            reason, drained_at_us = _connect_and_converse(
                protocol, endpoint, publisher, stop, clock
            )
        except (KeyRefused, FeedRefused) as refused:
            publisher.publish(protocol.disconnected(clock(), refused.reason), protocol.counters)
            raise
        if protocol.state is State.ENDED:
            return
        publisher.publish(protocol.disconnected(clock(), reason, drained_at_us), protocol.counters)
        if protocol.state is State.REFUSED:
            raise FeedRefused(
                protocol.feed.name, protocol.refusal.code if protocol.refusal else None, reason
            )
        attempt = 0 if steady() - opened > _STEADY_US else attempt
        delay = chance.uniform(0, min(_BACKOFF_CAP, _BACKOFF_BASE * 2**attempt))
        if protocol.pause_us:
            delay = chance.uniform(protocol.pause_us, 1.5 * protocol.pause_us) / 1_000_000
        # 2^5 is past the cap already
        attempt = min(attempt + 1, 5)
        _log.warning("%s: %s; next try in %.1f s", protocol.feed.name, reason, delay)
        _pause(delay, protocol, publisher, stop, clock)
    outputs, _ = protocol.ended(clock())
    publisher.publish(outputs, protocol.counters)


def _connect_and_converse(
    protocol: FeedProtocol,
    endpoint: Endpoint,
    publisher: Sink,
    stop: threading.Event,
    clock: FeedTime,
) -> tuple[str, int | None]:
    """Return why the connection was lost or not made, and when nothing that had come was left to be
    read.

    After an orderly end the protocol's state is ENDED.
    """
    try:
        socket = _connect(endpoint, protocol, stop)
    except _ConnectionFailed as failure:
        return str(failure), None
    reader = socket.sock  # the library forgets it at its close
    try:
        reason = _converse(socket, protocol, endpoint.secret, publisher, stop, clock) or _end(
            socket, protocol, endpoint.secret, publisher, clock
        )
    except (websocket.WebSocketException, OSError) as error:
        protocol.counters.oversized += isinstance(error, MessageRefused)
        reason = endpoint.secret.scrub(str(error)) or type(error).__name__
    finally:
        drained_at_us = _drained_at_us(reader, clock)
        socket.shutdown()
    return reason, drained_at_us


def _drained_at_us(reader: ReadAhead, clock: FeedTime) -> int:
    return clock() - int((time.monotonic() - reader.empty_at) * 1_000_000)


def _connect(
    endpoint: Endpoint, protocol: FeedProtocol, stop: threading.Event
) -> websocket.WebSocket:
    # no error of the library's is chained or shown whole: it may have the URL with the key, or the
    # server's page
    try:
        socket = open_websocket(endpoint.url(protocol.feed.business), stop)
    except websocket.WebSocketBadStatusException as error:
        raise _meaning(endpoint, protocol, error.status_code, error.resp_body or b"") from None
    except (websocket.WebSocketException, OSError) as error:
        raise _ConnectionFailed(
            f"no connection to {endpoint.base_url}: "
            f"{endpoint.secret.scrub(str(error)) or type(error).__name__}"
        ) from None
    socket.settimeout(_READ_TIMEOUT)
    socket.sock = ReadAhead(socket.sock)
    return socket


def _meaning(
    endpoint: Endpoint, protocol: FeedProtocol, status: int, body: bytes
) -> KeyRefused | FeedRefused | _ConnectionFailed:
    """Return what an HTTP answer in a WebSocket's place means: the vendor's code in it says more
    than its status."""
    with suppress(UnreadableFrame):
        # most answers are pages of a server or a proxy
        answer = read_frame(endpoint.secret.scrub_frame(body), latest=0, greeting=False)
        # a gateway that repeats its status says nothing in the vendor's numbers, where 502 is the
        # daily limit
        if (
            isinstance(answer, ErrorFrame)
            and answer.code is not None
            and not answer.code == status in _GATEWAY
        ):
            reason = (
                f"the vendor says {answer.code} {' '.join(answer.text.split())}".rstrip()
                + f" (HTTP {status})"
            )
            verdict = judge(answer.code)
            if verdict is Verdict.STOP or (
                verdict is Verdict.WAIT and not protocol.waits_for_room()
            ):
                return FeedRefused(protocol.feed.name, answer.code, reason)
            return _ConnectionFailed(reason)
    if status in (401, 403):
        return KeyRefused(protocol.feed.name, status)
    return _ConnectionFailed(f"no WebSocket at {endpoint.base_url}: HTTP {status}")


def _converse(
    socket: websocket.WebSocket,
    protocol: FeedProtocol,
    secret: Secret,
    publisher: Sink,
    stop: threading.Event,
    clock: FeedTime,
) -> str:
    """Return why the connection is of no more use; nothing if it was stopped."""
    clock.set()
    publisher.publish(protocol.connected(clock()), protocol.counters)
    while not stop.is_set():
        _apply_wanted(protocol, publisher, clock)
        for send in protocol.frames_to_send(clock()):
            socket.send(
                send.payload,
                websocket.ABNF.OPCODE_PING if send.opcode == "ping" else websocket.ABNF.OPCODE_TEXT,
            )
        try:
            reason = _take(socket, protocol, secret, publisher, clock)
        except websocket.WebSocketTimeoutException:
            # only with nothing left to read: after a long wait for the broker, frames may wait
            # unread in the socket
            protocol.tick(clock())
            publisher.serve()
            reason = protocol.reason
        if reason:
            return reason
    return ""


def _take(
    socket: websocket.WebSocket,
    protocol: FeedProtocol,
    secret: Secret,
    publisher: Sink,
    clock: FeedTime,
) -> str:
    """Publish what comes next; return why the connection is of no more use, if so. Raises
    WebSocketTimeoutException if nothing comes."""
    texts = socket.sock.texts()
    if not texts:
        socket.sock.allow(_READ_TIMEOUT)
        opcode, frame = socket.recv_data_frame(control_frame=True)
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            return secret.scrub(f"closed by the server {_close_reason(frame.data)}".rstrip())
        if opcode not in _DATA:
            # a ping has been answered by the library
            alive = protocol.ping if opcode == websocket.ABNF.OPCODE_PING else protocol.pong
            publisher.publish(alive(clock()), protocol.counters)
            publisher.serve()
            return protocol.reason
        texts = [frame.data]
    publisher.publish(_received(texts, secret, protocol, clock()), protocol.counters)
    return protocol.reason


def _received(texts: list[bytes], secret: Secret, protocol: FeedProtocol, now: int) -> list[Output]:
    outputs: list[Output] = []
    for text in texts:
        outputs += protocol.receive(secret.scrub_frame(text), now)
        if protocol.state is not State.OPEN:
            break
    return outputs


def _apply_wanted(protocol: FeedProtocol, publisher: Sink, clock: FeedTime) -> None:
    protocol.counters.turned_at = time.monotonic()
    if protocol.wanted_symbols is not protocol.feed.symbols:
        publisher.publish(protocol.apply_wanted_symbols(clock()), protocol.counters)


def _end(
    socket: websocket.WebSocket,
    protocol: FeedProtocol,
    secret: Secret,
    publisher: Sink,
    clock: FeedTime,
) -> str:
    """End the feed and the connection in order; return why that could not be, if so."""
    give_up = time.monotonic() + _END
    if reason := _drain(socket, protocol, secret, publisher, clock):
        return reason
    outputs, farewell = protocol.ended(clock(), _drained_at_us(socket.sock, clock))
    publisher.publish(outputs, protocol.counters)
    socket.settimeout(_READ_TIMEOUT)
    for send in farewell:
        socket.send(send.payload)
    left = max(0.0, give_up - time.monotonic())
    socket.sock.allow(left)
    socket.close(timeout=left)
    return ""


def _drain(
    socket: websocket.WebSocket,
    protocol: FeedProtocol,
    secret: Secret,
    publisher: Sink,
    clock: FeedTime,
) -> str:
    """Publish what has been read, and what the socket gives without waiting; return why the
    connection is of no more use, if so."""
    give_up = time.monotonic() + _DRAIN
    socket.settimeout(0)
    while time.monotonic() < give_up:
        try:
            if reason := _take(socket, protocol, secret, publisher, clock):
                return reason
        except websocket.WebSocketTimeoutException:
            return ""
    _log.warning(
        "%s: more has come than was published in %g s before the end; the rest is lost",
        protocol.feed.name,
        _DRAIN,
    )
    return ""


def _close_reason(payload: bytes) -> str:
    return (
        f"{int.from_bytes(payload[:2], 'big')} {payload[2:].decode(errors='replace')}"
        if len(payload) >= 2
        else ""
    )


def _pause(
    seconds: float, protocol: FeedProtocol, publisher: Sink, stop: threading.Event, clock: FeedTime
) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 and not stop.wait(min(left, 0.5)):
        _apply_wanted(protocol, publisher, clock)
        publisher.serve()
