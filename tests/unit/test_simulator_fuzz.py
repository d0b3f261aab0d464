"""Nothing that a client sends makes the simulator raise or stop serving: frames, request lines,
bodies."""

import json
import logging
import socket as sockets
import threading
import traceback
from contextlib import contextmanager

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from infra.simulator import running_simulator
from infra.simulator.history import MadeUp
from infra.simulator.http import PlainRequest
from infra.simulator.protocol import ClientSession, Limits
from infra.simulator.rest import RestService
from infra.simulator.synthetic import MadeUpMarket

UNLIMITED = Limits(frames=None, requests=1_000_000, connections=1_000_000)
CODES = st.sampled_from([10000, 10003, 10006, 10010, 11000, 11001, 11002, 10002, -1, 2**70, 1e400])
NAMES = st.sampled_from(
    ["code", "trace", "data", "codes", "arr", "type", "klineTypes", "includeTy"]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | CODES
    | st.sampled_from(["BTCUSDT", "AAPL.US,,", "1,2"])
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=10,
)
REQUESTS = st.fixed_dictionaries({"code": CODES}, optional={"trace": JSON, "data": JSON})
FRAMES = (
    st.text(max_size=30) | st.binary(max_size=30) | JSON.map(json.dumps) | REQUESTS.map(json.dumps)
)
DEEP_TRACE = '{"code":10000,"data":{"codes":"A"},"trace":' + "[" * 300 + "]" * 300 + "}"
HANDSHAKE = (
    b"GET /ws?business=crypto&apikey=a-key HTTP/1.1\r\nHost: localhost\r\n"
    b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@settings(max_examples=400)
@given(st.lists(FRAMES, min_size=1, max_size=5), st.sampled_from(["stock", "crypto"]))
@example(
    [
        DEEP_TRACE,
        "[" * 100_000,
        '{"code":10006,"data":{"arr":[[]]}}',
        '{"code":11002,"data":{"codes":"A","klineTypes":"²"}}',
    ],
    "crypto",
)
def test_every_frame_has_replies_with_a_code_or_none(frames, business):
    session = ClientSession(business, 0.0, UNLIMITED)
    for frame in frames:
        for reply in session.receive(frame, 0.0):
            assert type(json.loads(reply.removeprefix("Subscribe fail: "))["code"]) is int


PATHS = st.sampled_from([
    "/package/info", "/common/basic/symbols", "/crypto/v2/batch_kline",
    "/crypto/batch_kline/1/1/BTCUSDT",
    "/crypto/batch_trade/BTCUSDT,x", "/crypto/batch_depth/ ", "//",
])  # fmt: skip
BODIES = st.binary(max_size=30) | JSON.map(json.dumps).map(str.encode)
BODIES |= (
    st.fixed_dictionaries(
        {"codes": JSON, "klineType": JSON, "klineNum": JSON}, optional={"timestamp": JSON}
    )
    .map(json.dumps)
    .map(str.encode)
)


@settings(max_examples=400)
@given(
    st.sampled_from(["GET", "POST"]),
    PATHS,
    BODIES,
)
def test_every_request_of_rest_has_an_answer(method, path, body):
    service = RestService(MadeUp(MadeUpMarket), (), UNLIMITED)
    status, answer = service.answer(
        PlainRequest(method, path, {"apikey": "k"}, body), 1_752_826_123_000
    )
    assert status in (200, 400, 404)
    assert json.loads(answer)


@pytest.fixture(scope="module")
def server():
    errors = []

    def note(record):
        # websockets itself asserts, where a client that it refuses has closed its side in that very
        # moment
        trace = (
            record.exc_info[2] if record.exc_info and record.exc_info[0] is AssertionError else None
        )
        if not trace or traceback.extract_tb(trace)[-1].name != "send_eof":
            errors.append(logging.Formatter().format(record))

    handler = logging.Handler(logging.ERROR)
    handler.emit = note
    with running_simulator(limits=UNLIMITED) as simulator:
        for name in ("websockets.server", "asyncio"):
            logging.getLogger(name).addHandler(handler)
        yield simulator, errors
        for name in ("websockets.server", "asyncio"):
            logging.getLogger(name).removeHandler(handler)


@contextmanager
def opened(server):
    """A TCP connection; at its end the server serves on, and has logged no error."""
    simulator, errors = server
    with sockets.create_connection(("127.0.0.1", simulator.port), timeout=10) as socket:
        yield socket
    assert exchanged(simulator.port, b"GET /package/info HTTP/1.1\r\napiKey: k\r\n\r\n").startswith(
        b"HTTP/1.1 200"
    )
    assert errors == []


def exchanged(port, sent):
    with sockets.create_connection(("127.0.0.1", port), timeout=10) as socket:
        return to_end(socket, sent)


def to_end(socket, sent, after=b""):
    """Send all, say that nothing follows, and return what comes until the server has closed;
    `after`: once this was received."""
    reply = b""
    try:
        while after not in reply:
            reply += socket.recv(65536)
        socket.sendall(sent)
        socket.shutdown(sockets.SHUT_WR)
        while data := socket.recv(65536):
            reply += data
    except ConnectionError:
        # it may close while we are still sending
        pass
    return reply


TARGETS = st.text(
    st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=12
) | st.sampled_from(["//[", "//[::1", "/%zz", "*", "http://[/"])
LINES = st.builds(
    lambda method, target: f"{method} {target} HTTP/1.1".encode(),
    st.sampled_from(["GET", "POST", "get", ""]),
    TARGETS,
)
HEADERS = st.lists(st.sampled_from([
    b"apiKey: k", b"Content-Length: 3", b"Content-Length: -3", b"Content-Length: 1_0",
    b"Transfer-Encoding: chunked", b"Upgrade: websocket",
    b"Connection: Upgrade", b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", b": :", b"\xff",
]), max_size=6)  # fmt: skip
HEADS = st.builds(
    lambda line, headers, body: b"\r\n".join([line, *headers, b"", body]),
    LINES,
    HEADERS,
    st.binary(max_size=5),
)


@settings(max_examples=150)
@given(st.binary(max_size=60) | HEADS)
@example(HANDSHAKE.replace(b"/ws?business", b"//[?business"))
def test_whatever_stands_for_a_request_the_server_serves_on(server, sent):
    with opened(server) as socket:
        reply = to_end(socket, sent)
        assert reply == b"" or reply.startswith(b"HTTP/1.1 ")


@pytest.mark.parametrize(
    "line",
    [
        "GET //[ HTTP/1.1",
        "POST //[::1 HTTP/1.1",
        "GET /package/info HTTP/1.1\r\nContent-Length: -1",
    ],
)
def test_a_request_that_cannot_be_read_is_400(server, line):
    with opened(server) as socket:
        assert to_end(socket, f"{line}\r\n\r\n".encode()).startswith(b"HTTP/1.1 400")


def test_a_handshake_at_no_address_is_400(server):
    with opened(server) as socket:
        socket.sendall(HANDSHAKE.replace(b"/ws", b"//["))
        assert socket.recv(65536).startswith(b"HTTP/1.1 400")


REFUSED = HANDSHAKE.replace(b"a-key", b"bad-key")


@pytest.mark.parametrize("handshake", [HANDSHAKE, REFUSED], ids=["taken", "refused"])
def test_what_a_client_sends_with_its_handshake_is_400(server, handshake):
    with opened(server) as socket:
        socket.sendall(handshake + b"\xff\xff")
        assert socket.recv(65536).startswith(b"HTTP/1.1 400")


def test_what_a_client_sends_before_the_answer_to_its_handshake_ends_the_connection(
    server, monkeypatch
):
    entered, arrived = threading.Event(), threading.Event()

    def is_upgrade(head):
        entered.set()
        return arrived.wait(10)

    with opened(server) as socket, monkeypatch.context() as held_up:
        held_up.setattr("infra.simulator.http._is_upgrade", is_upgrade)
        socket.sendall(REFUSED)
        assert entered.wait(60)
        socket.sendall(b"\xff\xff")
        arrived.set()
        assert to_end(socket, b"") == b""


def framed(opcode, payload):
    return bytes((0x80 | opcode, 0x80 | len(payload), 0, 0, 0, 0)) + payload  # masked by zeros


PAYLOADS = st.binary(max_size=60) | REQUESTS.map(json.dumps).map(str.encode).filter(
    lambda text: len(text) < 126
)
SENT = st.lists(
    st.builds(framed, st.integers(0, 15), PAYLOADS) | st.binary(max_size=20), min_size=1, max_size=4
).map(b"".join)


@settings(max_examples=150)
@given(SENT)
@example(framed(1, b"\xff") + framed(2, b"\xff"))
@example(bytes((0x81, 0xFE, *len(DEEP_TRACE).to_bytes(2), 0, 0, 0, 0)) + DEEP_TRACE.encode())
def test_whatever_comes_after_the_handshake_the_server_serves_on(server, sent):
    with opened(server) as socket:
        socket.sendall(HANDSHAKE)
        assert to_end(socket, sent, after=b"ws connect success").startswith(b"HTTP/1.1 101")


@pytest.mark.parametrize(
    "frames",
    [
        [b"\x81\xff" + (1 << 62).to_bytes(8, "big") + b"mask"],
        [b"\x01\xfe\xff\xff" + bytes(4) + bytes(65535)]
        + [b"\x00\xfe\xff\xff" + bytes(4) + bytes(65535)] * 40,
    ],
    ids=["2^62 bytes", "fragments"],
)
def test_message_without_an_end_is_refused_by_its_length(frames):
    with running_simulator(limits=UNLIMITED) as simulator:
        with sockets.create_connection(("127.0.0.1", simulator.port), timeout=10) as connection:
            connection.sendall(HANDSHAKE)
            stream = connection.makefile("rb")
            while stream.readline().strip():
                pass
            try:
                for frame in frames:
                    connection.sendall(frame)
                said = stream.read()
            except ConnectionError:
                said = b""
    # 1009, message too big, unless the connection was cut before it was read
    assert not said or (1009).to_bytes(2, "big") in said


def test_session_without_a_limit_of_frames_remembers_none():
    session = ClientSession("crypto", 0.0, UNLIMITED, lambda: 0)
    for _ in range(1000):
        session.receive("{}", 1.0)
    assert not session._frames
