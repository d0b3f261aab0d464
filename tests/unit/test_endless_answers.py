"""What the vendor's REST can make endless is refused: bodies, packed bodies, and answers that
dribble."""

import gzip
import json
import socket
import time
from contextlib import suppress

import httpx
import pytest
from unit.test_rest import BAR, KEY, PACKAGE, Time, envelope
from unit.test_websocket_failures import headers, listening

from producers.vendor.rest import MAX_BODY, Rest, RestError

OK = b"HTTP/1.1 200 OK\r\n"


def ask(answer):
    """Return the package that `answer(connection, over)` makes a client believe."""
    clock = Time()

    def converse(connection, over):
        headers(connection)
        with suppress(OSError):
            answer(connection, over)

    with (
        listening(converse) as port,
        Rest(f"http://127.0.0.1:{port}", KEY, clock=clock.clock, sleep=clock.sleep) as rest,
    ):
        return rest.package_info()


def endless(connection, over):
    connection.sendall(OK + b"Content-Length: 1099511627776\r\n\r\n")
    while not over.is_set():
        connection.sendall(b" " * 65536)


def endless_chunks(connection, over):
    connection.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\n")
    while not over.is_set():
        connection.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")


def bomb(connection, over):
    packed = gzip.compress(b" " * (64 * 1024 * 1024))
    connection.sendall(
        OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed
    )


@pytest.mark.parametrize("answer", [endless, endless_chunks, bomb])
def test_body_that_is_too_long_is_refused(answer):
    with pytest.raises(RestError, match=f"more than {MAX_BODY} bytes") as failure:
        ask(answer)
    assert not failure.value.retryable


def test_packed_body_is_read():
    packed = gzip.compress(json.dumps(envelope(PACKAGE)).encode())

    def answer(connection, over):
        connection.sendall(
            OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed
        )

    assert ask(answer).name == "Premium"


@pytest.mark.parametrize(
    ("coding", "body", "said"),
    [
        ("br", b"x", "packed as br"),
        ("gzip, gzip", b"x", "packed as gzip, gzip"),
        ("gzip", b"no gzip", "is no gzip"),
    ],
)
def test_body_that_cannot_be_unpacked_is_named(coding, body, said):
    def answer(request):
        return httpx.Response(
            200, headers={"Content-Encoding": coding}, stream=httpx.ByteStream(body)
        )

    clock = Time()
    with Rest(
        "http://127.0.0.1:1", KEY, httpx.MockTransport(answer), clock.clock, clock.sleep
    ) as rest:
        with pytest.raises(RestError, match=said):
            rest.package_info()


@pytest.mark.parametrize(
    "begin",
    [b"HTTP/1.1 200 OK\r\nx: ", OK + b"Content-Length: 100000\r\n\r\n"],
    ids=["headers", "body"],
)
def test_answer_that_dribbles_is_given_up(monkeypatch, begin):
    monkeypatch.setattr("producers.vendor.rest._DEADLINE", 3.0)

    def answer(connection, over):
        connection.sendall(begin)
        while not over.wait(0.02):
            connection.sendall(b"x")

    with pytest.raises(RestError, match=r"not whole within 3 s") as failure:
        ask(answer)
    assert failure.value.retryable


def test_answer_that_dribbles_is_given_up_too_where_the_address_was_looked_up_for_long(monkeypatch):
    monkeypatch.setattr("producers.vendor.rest._DEADLINE", 0.2)
    look_up = socket.getaddrinfo

    def slowly(*arguments, **settings):
        time.sleep(0.5)  # the fault itself: longer than the whole answer may take
        return look_up(*arguments, **settings)

    monkeypatch.setattr(socket, "getaddrinfo", slowly)

    def answer(connection, over):
        connection.sendall(OK + b"Content-Length: 100000\r\n\r\n")
        while not over.wait(0.02):
            connection.sendall(b"x")

    with pytest.raises(RestError, match=r"not whole within 0.2 s") as failure:
        ask(answer)
    assert failure.value.retryable


def test_most_klines_of_a_request_are_far_below_the_limit():
    rows = [
        {**BAR, "t": str(1752826080 + 60 * each), "v": "9" * 20 + "." + "9" * 18}
        for each in range(500)
    ]
    assert len(json.dumps(envelope([{"s": "00700.HK", "respList": rows}]))) < MAX_BODY / 20
