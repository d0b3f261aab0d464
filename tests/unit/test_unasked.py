"""Symbols that nobody asked for are taken like others up to a bound, named, and beyond it dead
letters with their frames."""

import tracemalloc

import orjson
import pytest
from unit.test_protocol_feed import (
    DEAD_LETTER,
    SECOND,
    START,
    TRADES,
    controls,
    depth,
    kline,
    protocol,
    records,
    subscribed,
    trade,
)

from producers.feed.asked import NAMED, most_unasked
from producers.vendor.pushes import MAX_SYMBOL
from producers.vendor.subscriptions import REMEMBERED
from schemas.topics import FEED_STATUS

MOST = most_unasked(2)


def reports(outputs):
    return [
        output.record
        for output in outputs
        if output.topic == FEED_STATUS and "not asked for" in output.record.reason
    ]


def test_symbols_that_were_not_asked_for_are_raw_records_up_to_the_bound():
    core = subscribed()
    outputs = []
    for number in range(MOST + 7):
        for push in (
            trade(f"OTHER{number}", t=START // 1000 + number),
            depth(f"OTHER{number}"),
            kline(f"OTHER{number}"),
        ):
            outputs += core.receive(push, START + number)
    taken = records(outputs, TRADES)
    assert MOST == 104
    assert [each["symbol"] for each in taken] == [f"OTHER{number}" for number in range(MOST)]
    letters = records(outputs, DEAD_LETTER)
    assert [each["error_class"] for each in letters] == ["NotAskedFor"] * 21
    assert letters[0]["value"] == trade(f"OTHER{MOST}", t=START // 1000 + MOST)
    assert "'OTHER104' was not asked for, nor were 104 other symbols" in letters[0]["error_text"]
    counters = core.counters
    assert (counters.unasked, counters.unreadable, counters.received) == (
        3 * (MOST + 7),
        21,
        3 * (MOST + 7),
    )
    # what was asked for, and what is known, goes on
    assert records(core.receive(trade("OTHER3"), START + SECOND), TRADES)
    assert records(core.receive(trade("BTCUSDT"), START + SECOND), TRADES)


def test_they_are_named_at_once_and_then_once_a_minute_never_once_a_frame():
    core = subscribed()
    (first,) = reports(core.receive(trade("btcusdt"), START + SECOND))
    assert (first[3], first[7]) == ("healthy", ["btcusdt"])
    assert "data of 1 symbols that were not asked for" in first[4]
    said = [
        report
        for number in range(MOST + 50)
        for report in reports(core.receive(trade(f"OTHER{number}"), START + 2 * SECOND))
    ]
    assert not said
    (later,) = reports(core.pong(START + 61 * SECOND))
    assert later[3] == "degraded"
    assert later[7] == [f"OTHER{number}" for number in range(NAMED)]
    assert f"data of {MOST - 1} symbols that were not asked for; 51 frames" in later[4]
    assert not reports(core.receive(trade("btcusdt"), START + 200 * SECOND))


def test_the_bound_is_of_a_connection():
    core = subscribed()
    for number in range(MOST):
        core.receive(trade(f"OTHER{number}"), START + SECOND)
    core.disconnected(START + 2 * SECOND, "lost")
    core.connected(START + 3 * SECOND)
    assert records(core.receive(trade("ANOTHER"), START + 4 * SECOND), TRADES)


def test_what_is_still_on_its_way_after_an_unsubscription_is_no_fault():
    core = subscribed()
    core.change_symbols(("BTCUSDT",), {}, START + SECOND)
    outputs = core.receive(trade("ETHUSDT"), START + 2 * SECOND)
    assert records(outputs, TRADES)
    assert not reports(outputs)
    assert core.counters.unasked == 0


def test_a_symbol_that_is_asked_for_later_counts_no_more():
    core = subscribed()
    for number in range(MOST):
        core.receive(trade(f"OTHER{number}"), START + SECOND)
    core.change_symbols(("BTCUSDT", "ETHUSDT", "OTHER0"), {}, START + 2 * SECOND)
    before = core.counters.unasked
    core.receive(trade("OTHER0"), START + 3 * SECOND)
    assert core.counters.unasked == before
    assert records(core.receive(trade("ONEMORE"), START + 3 * SECOND), TRADES)


def test_repeats_of_another_spelling_are_known_after_a_loss_that_brought_nothing():
    core = subscribed()
    core.receive(trade("btcusdt"), START + SECOND)
    for second in (2, 4):
        core.disconnected(START + second * SECOND, "lost")
        core.connected(START + (second + 1) * SECOND)
    assert [
        each["repeat"]
        for each in records(core.receive(trade("btcusdt"), START + 6 * SECOND), TRADES)
    ] == [True]


def test_any_number_on_any_number_of_connections_needs_bounded_memory_and_ends_what_it_forgets():
    core = protocol(symbols=("BTCUSDT",))
    now, begun, sizes = START, set(), []
    tracemalloc.start()
    try:
        for connection in range(30):
            now += SECOND
            core.connected(now)
            for number in range(300):
                for push in (trade, depth):
                    outputs = core.receive(push(f"C{connection}N{number}", t=now // 1000), now)
                    begun |= {(each.topic, each.key) for each in controls(outputs, "begin")}
                    begun -= {(each.topic, each.key) for each in controls(outputs, "end")}
            core.disconnected(now, "lost")
            sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert len(begun) <= 2 * 2 * most_unasked(1)
    assert sizes[-1] - sizes[9] < 200_000
    outputs, _ = core.ended(now)
    assert {(each.topic, each.key) for each in controls(outputs, "end")} == begun


@pytest.mark.parametrize(
    ("length", "letters"), [(MAX_SYMBOL, 0), (MAX_SYMBOL + 1, 1), (400_000, 1)]
)
def test_symbol_has_a_length(length, letters):
    core = subscribed()
    outputs = core.receive(trade("X" * length), START)
    assert len(records(outputs, DEAD_LETTER)) == letters
    assert all(len(each.key) <= MAX_SYMBOL for each in outputs if each.topic == DEAD_LETTER)


def test_dead_letters_of_symbols_without_end_have_one_key():
    core = subscribed()
    bad = [
        orjson.dumps({"code": 10002, "data": {"s": f"S{number}", "t": 1, "p": "x"}})
        for number in range(10)
    ]
    assert {
        output.key
        for frame in bad
        for output in core.receive(frame, START)
        if output.topic == DEAD_LETTER
    } == {"crypto-1"}
    assert core.receive(trade("BTCUSDT", p="x"), START)[0].key == "BTCUSDT"


def test_requests_that_the_vendor_postpones_without_end_are_not_all_remembered():
    core = protocol()
    core.connected(START)
    now = START
    for _ in range(3 * REMEMBERED):
        now += 61 * SECOND
        for frame in core.frames_to_send(now):
            if frame.opcode == "text" and (request := orjson.loads(frame.payload))["code"] != 10010:
                core.receive(
                    orjson.dumps({"code": 516, "msg": "quota", "trace": request["trace"]}), now
                )
    assert len(core._subscribing.requests._asked) <= REMEMBERED
