"""Connecting takes bounded time, whatever the server does, and a stop cuts it short."""

import threading
from contextlib import suppress

import pytest
from unit.test_websocket import KEY, AtOnce, Published, is_state, protocol, running
from unit.test_websocket_failures import headers, listening, shake_hands
from websocket import _handshake
from websocket._core import connect

from producers.feed.states import State
from producers.transport.connecting import open_websocket
from producers.transport.endpoint import Endpoint
from producers.transport.websocket import run_feed


class Connecting:
    """A server with which nobody comes to an end: it says nothing, or dribbles its answer to the
    handshake."""

    def __init__(self, dribbles):
        self.dribbles = dribbles
        self.asked, self.left = threading.Event(), threading.Event()

    def __call__(self, connection, over):
        headers(connection)
        self.asked.set()
        if not self.dribbles:
            assert connection.recv(1) == b""
        with suppress(OSError):
            while self.dribbles and not over.wait(0.02):
                connection.sendall(b"H")
        if not over.is_set():
            self.left.set()


@pytest.mark.parametrize("dribbles", [False, True])
def test_stop_cuts_connecting_short_and_leaves_no_connection_behind(monkeypatch, dribbles):
    # so that only the stop can end it
    monkeypatch.setattr("producers.transport.connecting._STEP", 60.0)
    monkeypatch.setattr("producers.transport.connecting._LIMIT", 60.0)
    server, published, core = Connecting(dribbles), Published(), protocol()
    with listening(server) as port:
        with running(f"ws://127.0.0.1:{port}/ws", core, published):
            assert server.asked.wait(60)
        assert core.state is State.ENDED
        assert server.left.wait(60)


def test_handshake_that_dribbles_is_given_up_and_tried_again(monkeypatch):
    monkeypatch.setattr("producers.transport.connecting._LIMIT", 0.3)
    server, published = Connecting(dribbles=True), Published()
    with listening(server) as port, running(f"ws://127.0.0.1:{port}/ws", protocol(), published):
        assert "timed out: no answer in 0.3 s" in published.wait_for(is_state("down")).record.reason
        assert server.left.wait(60)
        server.asked.clear()
        assert server.asked.wait(60)


def test_connection_that_is_made_after_the_stop_is_closed_unused(monkeypatch):
    made, go, stop, closed = (threading.Event() for _ in range(4))
    core = protocol()

    def late(*arguments):
        made.set()
        assert go.wait(60)
        return connect(*arguments)

    monkeypatch.setattr("websocket._core.connect", late)

    def converse(connection, _):
        shake_hands(connection)
        assert connection.recv(4096) == b""
        closed.set()

    with listening(converse) as port:
        feed = threading.Thread(
            target=run_feed,
            args=(core, Endpoint(f"ws://127.0.0.1:{port}/ws", KEY), Published(), stop, AtOnce(1)),
        )
        feed.start()
        assert made.wait(60)
        stop.set()
        feed.join(60)
        assert not feed.is_alive()
        go.set()
        assert closed.wait(60)
    assert core.counters.connections == 0


def test_no_server_sets_a_cookie():
    """The library's one jar would keep them all, and send them to every later host of the
    domain."""
    asked = []

    def converse(connection, _):
        asked.append(
            shake_hands(connection, b"Set-Cookie: c%d=1; Domain=127.0.0.1\r\n" % len(asked))
        )

    with listening(converse) as port:
        for _ in range(2):
            open_websocket(f"ws://127.0.0.1:{port}/ws", threading.Event()).shutdown()
    assert [b"cookie" in each.lower() for each in asked] == [False, False]
    assert _handshake.CookieJar.jar == {}
