"""The orderly end: what the vendor had sent until then, and this machine had received, is published
before it."""

import fcntl
import json
import random
import struct
import termios
import threading
import time

import pytest
from unit.test_websocket import (
    KEY,
    TRADE,
    AtOnce,
    Published,
    frame_of,
    is_control,
    is_trade,
    protocol,
    running,
)
from unit.test_websocket_failures import listening, shake_hands

from producers.feed.outputs import Publication
from producers.feed.states import State
from producers.transport.endpoint import Endpoint, FeedRefused
from producers.transport.read_ahead import ReadAhead
from producers.transport.websocket import run_feed


def trade_frame(number):
    return frame_of(
        json.dumps({"code": 10002, "data": TRADE | {"t": TRADE["t"] + number}}).encode()
    )


def received_by_the_kernel(connection):
    """Wait until the other side's kernel has acknowledged every byte that was sent."""
    while struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))[0]:
        threading.Event().wait(0.01)


class Held(Published):
    """A publisher that is stuck in its first trade until `go` is set."""

    def __init__(self):
        super().__init__()
        self.stuck, self.go = threading.Event(), threading.Event()

    def publish(self, outputs, counters):
        super().publish(outputs, counters)
        if any(is_trade(output) for output in outputs) and not self.stuck.is_set():
            self.stuck.set()
            assert self.go.wait(60)


@pytest.mark.parametrize("cut", [0, 1, 3, 60])
def test_everything_that_was_received_before_the_stop_is_published_before_the_end(monkeypatch, cut):
    # on a busy machine more is left than is published in a second
    monkeypatch.setattr("producers.transport.websocket._DRAIN", 60.0)
    sent, numbers, closed = [], iter(range(10_000)), threading.Event()
    published, core = Held(), protocol("crypto")

    def send(connection, count):
        ours = [next(numbers) for _ in range(count)]
        connection.sendall(b"".join(trade_frame(number) for number in ours))
        received_by_the_kernel(connection)
        sent.extend(ours)

    def converse(connection, over):
        shake_hands(connection)
        # the first read takes up to all of these, and the feed is held in the first trade
        send(connection, 200)
        assert published.stuck.wait(60)
        send(connection, 200)
        # a message in two frames, a sign of life between them, and one that is cut
        first, rest = next(numbers), next(numbers)
        payload = trade_frame(first)[2:]
        connection.sendall(
            frame_of(payload[:30], 0x01)
            + frame_of(b"", 0x8A)
            + frame_of(payload[30:], 0x80)
            + trade_frame(rest)[:cut]
        )
        received_by_the_kernel(connection)
        sent.append(first)
        stop.set()
        published.go.set()
        while connection.recv(4096):
            pass
        closed.set()

    stop = threading.Event()
    with listening(converse) as port:
        feed = threading.Thread(
            target=run_feed,
            args=(core, Endpoint(f"ws://127.0.0.1:{port}/ws", KEY), published, stop, AtOnce(1)),
        )
        feed.start()
        feed.join(60)
        assert not feed.is_alive()
        assert closed.wait(60)
    outputs = published.unseen()
    trades = [
        (place, output.record.ts_event - TRADE["t"])
        for place, output in enumerate(outputs)
        if is_trade(output)
    ]
    assert [number for _, number in trades] == sent
    assert trades[-1][0] < next(
        place for place, output in enumerate(outputs) if is_control("end")(output)
    )
    assert not any(
        isinstance(output, Publication) and output.topic == "infoway.dead-letter"
        for output in outputs
    )
    assert core.state is State.ENDED
    assert core.counters.losses == 0


def test_vendor_that_never_stops_sending_does_not_put_off_the_end(monkeypatch, caplog):
    monkeypatch.setattr("producers.transport.websocket._DRAIN", 0.1)
    published, core, over = Held(), protocol("crypto"), threading.Event()
    number = iter(range(10**9))

    class Unending(ReadAhead):
        """A connection on which there is always something to read."""

        def texts(self):
            return [trade_frame(next(number))[2:]]

    monkeypatch.setattr("producers.transport.websocket.ReadAhead", Unending)

    def converse(connection, _):
        shake_hands(connection)
        over.wait(10)

    with listening(converse) as port:
        try:
            with running(f"ws://127.0.0.1:{port}/ws", core, published):
                published.go.set()
                published.wait_for(is_trade)
        finally:
            over.set()
    assert core.state is State.ENDED
    assert "the rest is lost" in caplog.text


def test_refusal_that_came_before_the_stop_is_not_taken_for_an_orderly_end():
    published, core, stop = Held(), protocol("crypto"), threading.Event()

    def converse(connection, _):
        shake_hands(connection)
        connection.sendall(trade_frame(1))
        assert published.stuck.wait(60)
        connection.sendall(frame_of(b'{"code":508,"msg":"expired"}'))
        received_by_the_kernel(connection)
        stop.set()
        published.go.set()
        while connection.recv(4096):
            pass

    with listening(converse) as port, pytest.raises(FeedRefused, match="renew the API key"):
        run_feed(core, Endpoint(f"ws://127.0.0.1:{port}/ws", KEY), published, stop, AtOnce(1))


def test_what_a_late_read_brings_before_a_loss_does_not_shorten_the_gap():
    published, core, lost, stuck_at = Held(), protocol("crypto"), threading.Event(), []

    def fresh():
        return frame_of(
            json.dumps({"code": 10002, "data": TRADE | {"t": time.time_ns() // 1_000_000}}).encode()
        )

    def converse(connection, over):
        shake_hands(connection)
        connection.sendall(fresh())
        if lost.is_set():
            over.wait(10)
            return
        assert published.stuck.wait(60)
        stuck_at.append(time.time_ns() // 1_000_000)
        # the feed is held: what comes now is read late, and what would have come after it is lost
        # with the connection
        connection.sendall(fresh())
        received_by_the_kernel(connection)
        over.wait(0.5)
        lost.set()

    with listening(converse) as port:
        stop = threading.Event()
        feed = threading.Thread(
            target=run_feed,
            args=(core, Endpoint(f"ws://127.0.0.1:{port}/ws", KEY), published, stop, AtOnce(1)),
        )
        feed.start()
        assert lost.wait(60)
        published.go.set()
        published.wait_for(is_control("begin"))
        again = published.wait_for(is_control("begin"))
        stop.set()
        feed.join(60)
    assert again.control.ts_from <= stuck_at[0]


@pytest.mark.parametrize(("pause", "least", "most"), [(0, 0, 1), (60_000_000, 60, 90)])
def test_a_feed_that_has_to_wait_waits(monkeypatch, pause, least, most):
    core, stop, waited = protocol("crypto"), threading.Event(), []
    core._subscribing.pause_us = pause
    monkeypatch.setattr(
        "producers.transport.websocket._connect_and_converse",
        lambda *_: ("too many connections", None),
    )
    monkeypatch.setattr(
        "producers.transport.websocket._pause",
        lambda seconds, *_: (waited.append(seconds), stop.set()),
    )
    run_feed(core, Endpoint("ws://127.0.0.1:1/ws", KEY), Published(), stop, random.Random(1))
    assert least <= waited[0] <= most


def test_a_ping_of_the_vendor_is_told_from_a_pong():
    published, core, pinged = Published(), protocol("crypto"), threading.Event()
    core.ping = lambda now: pinged.set() or []

    def converse(connection, over):
        shake_hands(connection)
        connection.sendall(frame_of(b"", 0x89))
        over.wait(10)

    with listening(converse) as port:
        with running(f"ws://127.0.0.1:{port}/ws", core, published):
            assert pinged.wait(60)
