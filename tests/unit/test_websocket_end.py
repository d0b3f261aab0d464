"""The orderly end: what the vendor had sent until then, and this machine had received, is published before it."""

import fcntl
import json
import struct
import termios
import threading

import pytest
from unit.test_websocket import KEY, TRADE, AtOnce, Published, frame_of, is_control, is_trade, protocol, running
from unit.test_websocket_failures import listening, shake_hands

from producers.protocol import State
from producers.read_ahead import ReadAhead
from producers.records import Record
from producers.websocket import Endpoint, FeedRefused, run_feed


def trade_frame(number):
    return frame_of(json.dumps({"code": 10002, "data": TRADE | {"t": TRADE["t"] + number}}).encode())


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
            assert self.go.wait(10)


@pytest.mark.parametrize("cut", [0, 1, 3, 60])
def test_everything_that_was_received_before_the_stop_is_published_before_the_end(cut):
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
        assert published.stuck.wait(10)
        send(connection, 200)
        # a message in two frames, a sign of life between them, and one that is cut
        first, rest = next(numbers), next(numbers)
        payload = trade_frame(first)[2:]
        connection.sendall(frame_of(payload[:30], 0x01) + frame_of(b"", 0x8A) + frame_of(payload[30:], 0x80) + trade_frame(rest)[:cut])
        received_by_the_kernel(connection)
        sent.append(first)
        stop.set()
        published.go.set()
        while connection.recv(4096):
            pass
        closed.set()

    stop = threading.Event()
    with listening(converse) as port:
        feed = threading.Thread(target=run_feed, args=(core, Endpoint(f"ws://127.0.0.1:{port}/ws", KEY), published, stop, AtOnce(1)))
        feed.start()
        feed.join(20)
        assert not feed.is_alive()
        assert closed.wait(5)
    outputs = list(published.queue)
    trades = [(place, output.fields[1] - TRADE["t"]) for place, output in enumerate(outputs) if is_trade(output)]
    assert [number for _, number in trades] == sent
    assert trades[-1][0] < next(place for place, output in enumerate(outputs) if is_control("end")(output))
    assert not any(isinstance(output, Record) and output.topic == "infoway.dead-letter" for output in outputs)
    assert core.state is State.ENDED
    assert core.counters.losses == 0


def test_vendor_that_never_stops_sending_does_not_put_off_the_end(monkeypatch, caplog):
    monkeypatch.setattr("producers.websocket._DRAIN", 0.1)
    published, core, over = Held(), protocol("crypto"), threading.Event()
    number = iter(range(10**9))

    class Unending(ReadAhead):
        """A connection on which there is always something to read."""

        def texts(self):
            return [trade_frame(next(number))[2:]]

    monkeypatch.setattr("producers.websocket.ReadAhead", Unending)

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
        assert published.stuck.wait(10)
        connection.sendall(frame_of(b'{"code":508,"msg":"expired"}'))
        received_by_the_kernel(connection)
        stop.set()
        published.go.set()
        while connection.recv(4096):
            pass

    with listening(converse) as port, pytest.raises(FeedRefused, match="renew the API key"):
        run_feed(core, Endpoint(f"ws://127.0.0.1:{port}/ws", KEY), published, stop, AtOnce(1))
