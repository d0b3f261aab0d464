"""Symbols that are acked and then silent, and acks told apart by their trace."""

import json
import random

from producers.feed.metrics import FeedCounters
from producers.feed.outputs import ControlPublication, Publication
from producers.feed.protocol import FeedProtocol
from producers.feed.settings import FeedSettings
from producers.vendor.symbols import Feed
from schemas.topics import FEED_STATUS

START = 1752826113_000_000
SECOND = 1_000_000
PARTITIONS = {"infoway.raw.trade": 6, "infoway.raw.depth": 6, "infoway.raw.kline": 6}


def protocol(source="simulated", **settings):
    feed = Feed("crypto-1", "crypto", ("BTCUSDT", "ETHUSDT"))
    core = FeedProtocol(
        feed,
        FeedSettings(source, **settings),
        PARTITIONS,
        FeedCounters(feed.name),
        random.Random(1),
    )
    core.connected(START)
    return core


def ack(core, now=START):
    return [
        output
        for code in (10001, 10004, 10007)
        for output in core.receive(b'{"code":%d,"trace":"x"}' % code, now)
    ]


def trade(symbol):
    return json.dumps(
        {
            "code": 10002,
            "data": {"s": symbol, "t": START // 1000, "p": "1", "v": "1", "vw": "1", "td": 1},
        }
    ).encode()


def statuses(outputs):
    found = [
        output.record
        for output in outputs
        if isinstance(output, Publication) and output.topic == FEED_STATUS
    ]
    return [(fields[3], fields[7]) for fields in found]


def live(core, first, last):
    return [
        status
        for second in range(first, last + 1)
        for status in statuses(core.pong(START + second * SECOND))
    ]


def test_symbol_acked_and_silent_is_reported_once_and_again_when_its_data_comes():
    core = protocol(silence_ms=60_000)
    ack(core)
    core.receive(trade("BTCUSDT"), START + SECOND)
    assert live(core, 2, 59) == []
    assert live(core, 60, 400) == [("degraded", ["ETHUSDT"])]
    assert core.counters.silent == 1
    assert statuses(core.receive(trade("ETHUSDT"), START + 401 * SECOND)) == [
        ("healthy", ["ETHUSDT"])
    ]
    assert core.counters.silent == 0
    assert live(core, 402, 900) == []


def test_default_silence_is_five_minutes_and_a_busy_feed_notices_it_too():
    core = protocol()
    ack(core)
    found = {}
    for second in range(1, 400):
        for status in statuses(core.receive(trade("BTCUSDT"), START + second * SECOND)):
            found[second] = status
    assert list(found.values()) == [("degraded", ["ETHUSDT"])]
    assert 300 <= next(iter(found)) <= 330


def test_reason_says_what_to_check():
    core = protocol(silence_ms=1000)
    ack(core)
    (report,) = core.pong(START + 2 * SECOND)
    assert (
        report.record.reason
        == "acked, but no data for 1 s of market hours: check the symbol and its business"
    )


def test_data_before_the_ack_is_data():
    core = protocol(silence_ms=60_000)
    core.receive(trade("BTCUSDT"), START)
    core.receive(trade("ETHUSDT"), START)
    ack(core)
    assert live(core, 1, 200) == []


def test_without_an_ack_nothing_is_silent():
    assert live(protocol(silence_ms=60_000), 1, 200) == []


def test_time_in_which_the_market_is_closed_does_not_count():
    opens = START + 100 * SECOND
    core = protocol(
        silence_ms=60_000,
        is_open=lambda business, symbol, now: symbol == "ETHUSDT" and now >= opens,
    )
    ack(core)
    assert live(core, 1, 150) == []
    assert live(core, 151, 170) == [("degraded", ["ETHUSDT"])]
    assert live(core, 171, 900) == []


def test_reconnect_reports_no_symbol_twice_and_does_not_call_a_silent_one_healthy():
    core = protocol(silence_ms=60_000)
    ack(core)
    core.receive(trade("BTCUSDT"), START)
    live(core, 1, 70)
    core.disconnected(START + 71 * SECOND, "lost")
    core.connected(START + 72 * SECOND)
    assert statuses(ack(core, START + 72 * SECOND))[-1] == ("healthy", ["BTCUSDT"])
    core.receive(trade("BTCUSDT"), START + 73 * SECOND)
    assert live(core, 74, 400) == []
    assert core.counters.silent == 1


def test_replay_reports_no_silence_even_where_the_recording_has_acks():
    core = protocol("replay", silence_ms=60_000)
    ack(core)
    assert live(core, 1, 200) == []


def test_ack_is_of_the_request_with_its_trace_and_of_its_code_where_the_trace_is_unknown():
    core = protocol()
    requests = {
        request["code"]: request
        for request in (json.loads(send.payload) for send in core.frames_to_send(START))
    }

    def begun(code, trace):
        outputs = core.receive(json.dumps({"code": code, "trace": trace}).encode(), START)
        return {output.topic for output in outputs if isinstance(output, ControlPublication)}

    assert begun(10001, requests[10003]["trace"]) == {"infoway.raw.depth"}
    assert begun(10001, "another's") == {"infoway.raw.trade"}
    assert begun(10001, requests[10006]["trace"]) == {"infoway.raw.kline"}
