"""What a server can make endless on the WebSocket is refused by its announced length, with a
reason."""

import json
import tracemalloc
from contextlib import suppress

import pytest
from unit.test_websocket import TRADE, Published, is_state, is_trade, protocol, running
from unit.test_websocket_failures import headers, listening, shake_hands

from producers.transport.connecting import MAX_ANSWER
from producers.transport.endpoint import KeyRefused
from producers.transport.message_limit import MAX_MESSAGE
from producers.vendor.frame_budget import FRAMES, FrameBudget

MIB = 1024 * 1024
TEXT, CONTINUED, CLOSE, PING = 1, 0, 8, 9


def frame(opcode, payload, fin=True, announced=None):
    """Return a server's frame that announces `announced` bytes, else as many as it has."""
    size = len(payload) if announced is None else announced
    head = bytes([fin << 7 | opcode])
    if size < 126 and announced is None:
        return head + bytes([size]) + payload
    if size < 65_536 and announced is None:
        return head + b"\x7e" + size.to_bytes(2, "big") + payload
    return head + b"\x7f" + size.to_bytes(8, "big") + payload


def without_end(connection, first, again):
    with suppress(OSError):
        connection.sendall(first)
        while True:
            connection.sendall(again)


def down_reason_after(attack):
    """Return why the feed loses a connection on which `attack(connection)` happens, and the
    core."""
    published, core = Published(), protocol("crypto")

    def converse(connection, _):
        shake_hands(connection)
        attack(connection)

    with listening(converse) as port, running(f"ws://127.0.0.1:{port}/ws", core, published):
        return published.wait_for(is_state("down")).record.reason, core


ATTACKS = {
    "2^62 bytes": lambda it: without_end(it, frame(TEXT, b"", announced=1 << 62), bytes(MIB)),
    "one byte too many": lambda it: without_end(
        it, frame(TEXT, b"", announced=MAX_MESSAGE + 1), b"x"
    ),
    "fragments": lambda it: without_end(
        it, frame(TEXT, b"x", fin=False), frame(CONTINUED, bytes(1000), fin=False)
    ),
    "empty fragments": lambda it: without_end(
        it, frame(TEXT, b"", fin=False), frame(CONTINUED, b"", fin=False)
    ),
    "a last fragment of 2^62": lambda it: without_end(
        it, frame(TEXT, b"x", fin=False) + frame(CONTINUED, b"", announced=1 << 62), bytes(MIB)
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_message_that_is_too_long_is_refused_before_it_is_kept(attack):
    tracemalloc.start()
    try:
        reason, core = down_reason_after(ATTACKS[attack])
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "announced a message of" in reason
    assert str(MAX_MESSAGE) in reason
    assert core.counters.oversized >= 1
    assert core.counters.received == 0
    assert most < 32 * MIB


@pytest.mark.parametrize(
    "attack",
    [
        frame(PING, b"", announced=1 << 62),
        frame(PING, bytes(126)),
        frame(CLOSE, bytes(MIB)),
        frame(PING, b"x", fin=False),
    ],
    ids=["ping of 2^62", "ping of 126", "close of 1 MiB", "ping in fragments"],
)
def test_control_frame_that_no_websocket_may_send_is_refused(attack):
    reason, core = down_reason_after(lambda it: without_end(it, attack, b"x"))
    assert "control frame of" in reason
    assert core.counters.oversized >= 1


def test_longest_message_is_taken_in_one_piece_and_in_fragments():
    trade = json.dumps({"code": 10002, "data": TRADE}).encode()
    published, core = Published(), protocol("crypto")
    longest = b"x" * MAX_MESSAGE
    half = trade.ljust(500_000)

    def converse(connection, over):
        shake_hands(connection)
        connection.sendall(frame(TEXT, longest) + frame(TEXT, half[:250_000], fin=False))
        connection.sendall(
            frame(PING, bytes(125)) + frame(CONTINUED, half[250_000:]) + frame(TEXT, trade)
        )
        over.wait(10)

    with listening(converse) as port, running(f"ws://127.0.0.1:{port}/ws", core, published):
        published.wait_for(is_trade)
        published.wait_for(is_trade)
    # more than a Kafka record can have, and less than the limit: a dead letter, as before
    assert core.counters.unreadable == 1
    assert core.counters.oversized == 0
    assert core.counters.connections == 1


def test_budget_of_frames_remembers_no_more_than_decide():
    budget, exact = FrameBudget(), []
    for now in range(0, 300_000_000, 1_000):
        budget.count(now)
    assert len(budget._sent) == FRAMES
    budget = FrameBudget()
    for now in range(0, 200_000_000, 700_001):
        exact = [each for each in exact if each > now - 60_000_000]
        free = len(exact) < FRAMES
        assert budget.take(now, reserved=0) == free
        if free:
            exact.append(now)
        budget.count(now)
        exact.append(now)


@pytest.mark.parametrize(
    "answer",
    [
        (b"HTTP/1.1 101 ", b"x" * 4096),
        (b"HTTP/1.1 101 Switching Protocols\r\n", b"name: value\r\n" * 100),
    ],
    ids=["a line", "headers"],
)
def test_endless_answer_to_the_handshake_is_refused(answer):
    published = Published()

    def converse(connection, _):
        headers(connection)
        without_end(connection, *answer)

    with listening(converse) as port, running(f"ws://127.0.0.1:{port}/ws", protocol(), published):
        reason = published.wait_for(is_state("down")).record.reason
    assert f"the answer to the handshake has more than {MAX_ANSWER} bytes" in reason


@pytest.mark.parametrize(
    "page",
    [
        lambda it: without_end(it, b"Content-Length: 4611686018427387904\r\n\r\n", b"x" * 4096),
        lambda it: it.sendall(b"Content-Length: 1000\r\n\r\nbreaks off"),
    ],
    ids=["endless", "breaks off"],
)
def test_status_that_refuses_the_key_is_heard_whatever_becomes_of_its_page(page):
    def converse(connection, _):
        headers(connection)
        connection.sendall(b"HTTP/1.1 401 Unauthorized\r\n")
        page(connection)

    with listening(converse) as port, pytest.raises(KeyRefused):
        with running(f"ws://127.0.0.1:{port}/ws", protocol(), published := Published()):
            assert "401" in published.wait_for(is_state("down")).record.reason


def test_status_that_refuses_the_key_is_heard_though_its_page_dribbles(monkeypatch):
    monkeypatch.setattr("producers.transport.connecting._LIMIT", 3.0)

    def converse(connection, over):
        headers(connection)
        connection.sendall(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 1000\r\n\r\n")
        with suppress(OSError):
            while not over.wait(0.02):
                connection.sendall(b"x")

    with listening(converse) as port, pytest.raises(KeyRefused):
        with running(f"ws://127.0.0.1:{port}/ws", protocol(), published := Published()):
            assert "401" in published.wait_for(is_state("down")).record.reason
