"""A message that comes a byte at a time holds up nothing: neither heartbeats nor the watchdog nor
the end."""

import json
import threading
from contextlib import contextmanager, suppress

from unit.test_websocket import TRADE, Published, frame_of, is_state, is_trade, protocol, running
from unit.test_websocket_failures import listening, shake_hands

from producers.feed.states import State
from producers.vendor.codes import HEARTBEAT

LONG_TRADE = frame_of(json.dumps({"code": 10002, "data": TRADE}).encode().ljust(60_000))


def requests_of(connection):
    """Yield what the client says in texts, until it is gone."""
    stream = connection.makefile("rb")
    while head := stream.read(2):
        size = head[1] & 0x7F
        size = int.from_bytes(stream.read(2), "big") if size == 126 else size
        mask, payload = stream.read(4), stream.read(size)
        if head[0] == 0x81:
            yield json.loads(bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload)))


@contextmanager
def dribbling(enough):
    """Serve a long trade, a byte at a time until `enough` is set, then whole; yields the port, and
    what the client has requested."""
    requests, changed = [], threading.Condition()

    def dribble(connection, over):
        with suppress(OSError):
            sent = 0
            while sent < len(LONG_TRADE) and not over.is_set():
                end = len(LONG_TRADE) if enough.wait(0.02) else sent + 1
                connection.sendall(LONG_TRADE[sent:end])
                sent = end

    def converse(connection, over):
        shake_hands(connection)
        thread = threading.Thread(target=dribble, args=(connection, over))
        thread.start()
        try:
            for request in requests_of(connection):
                with changed:
                    requests.append(request["code"])
                    changed.notify_all()
        finally:
            thread.join()

    with listening(converse) as port:
        yield port, lambda wanted: changed.wait_for(lambda: wanted(requests), 60), changed


def test_heartbeats_go_out_while_a_message_dribbles_and_it_is_taken_whole_in_the_end(monkeypatch):
    monkeypatch.setattr("producers.vendor.subscriptions.HEARTBEAT_PERIOD", 300_000)
    enough, published, core = threading.Event(), Published(), protocol("crypto")
    with dribbling(enough) as (port, wait_for_requests, changed):
        with running(f"ws://127.0.0.1:{port}/ws", core, published):
            with changed:
                assert wait_for_requests(lambda requests: requests.count(HEARTBEAT) >= 3)
            enough.set()
            assert published.wait_for(is_trade).record.price == TRADE["p"]
    assert core.counters.connections == 1
    assert core.counters.trades == core.counters.received == 1


def test_a_message_that_is_not_whole_is_no_sign_of_life(monkeypatch):
    monkeypatch.setattr("producers.feed.protocol.SILENCE", 1_000_000)
    enough, published = threading.Event(), Published()
    with dribbling(enough) as (port, *_):
        try:
            with running(f"ws://127.0.0.1:{port}/ws", protocol("crypto"), published):
                assert "no sign of life" in published.wait_for(is_state("down")).record.reason
        finally:
            enough.set()


def test_stop_in_the_middle_of_a_message_that_dribbles_ends_the_feed_in_order():
    enough, published, core = threading.Event(), Published(), protocol("crypto")
    with dribbling(enough) as (port, wait_for_requests, changed):
        try:
            with running(f"ws://127.0.0.1:{port}/ws", core, published):
                with changed:
                    assert wait_for_requests(bool)
        finally:
            enough.set()
    assert core.state is State.ENDED
    assert core.counters.received == 0
