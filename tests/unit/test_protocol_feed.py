"""One feed's protocol over its life: subscriptions, records, control records, reconnects, the
end."""

import json
import random

import pytest

from producers.feed.metrics import FeedCounters
from producers.feed.outputs import ControlPublication, Publication
from producers.feed.protocol import SILENCE, FeedProtocol
from producers.feed.settings import FeedSettings
from producers.feed.states import State
from producers.vendor.frame_budget import FrameBudget
from producers.vendor.symbols import Feed
from schemas.partition import partition_of
from schemas.topics import DEAD_LETTER, FEED_STATUS, load_schema
from schemas.wire import compile_decoder, compile_encoder

START = 1752826113_000_000
SECOND = 1_000_000
TRADES, BOOKS, KLINES = "infoway.raw.trade", "infoway.raw.depth", "infoway.raw.kline"
PARTITIONS = {TRADES: 6, BOOKS: 6, KLINES: 6}
SYMBOLS = ("BTCUSDT", "ETHUSDT")


def protocol(source="simulated", symbols=SYMBOLS, business="crypto", **settings):
    feed = Feed(f"{business}-1", business, symbols)
    return FeedProtocol(
        feed,
        FeedSettings(source, **settings),
        PARTITIONS,
        FeedCounters(feed.name),
        random.Random(1),
    )


def subscribed(**settings):
    core = protocol(**settings)
    core.connected(START)
    for code in (10001, 10004, 10007):
        core.receive(b'{"code":%d,"trace":"x"}' % code, START)
    return core


def trade(symbol="BTCUSDT", t=START // 1000, p="61800.3", v="0.006", td=1):
    return json.dumps(
        {"code": 10002, "data": {"s": symbol, "t": t, "p": p, "v": v, "vw": "1", "td": td}}
    ).encode()


def depth(symbol="BTCUSDT", t=START // 1000):
    return json.dumps(
        {"code": 10005, "data": {"s": symbol, "t": t, "a": [["2"], ["1"]], "b": [["1"], ["1"]]}}
    ).encode()


def kline(symbol="BTCUSDT"):
    data = {
        "s": symbol,
        "t": START // SECOND,
        "ty": 1,
        "o": "1",
        "h": "1",
        "l": "1",
        "c": "1",
        "v": "1",
        "vw": "1",
    }
    return json.dumps({"code": 10008, "data": data}).encode()


def controls(outputs, kind):
    return [
        output
        for output in outputs
        if isinstance(output, ControlPublication) and output.control.kind == kind
    ]


def records(outputs, topic):
    schema = load_schema(
        {TRADES: "raw_trade", BOOKS: "raw_depth", KLINES: "raw_kline", DEAD_LETTER: "dead_letter"}[
            topic
        ]
    )
    names = [field["name"] for field in schema["fields"]]
    return [
        dict(zip(names, each.record, strict=True))
        for each in outputs
        if isinstance(each, Publication) and each.topic == topic
    ]


def states(outputs):
    return [
        output.record.state
        for output in outputs
        if isinstance(output, Publication) and output.topic == FEED_STATUS
    ]


def requests_of(frames):
    return [json.loads(frame.payload) for frame in frames if frame.opcode == "text"]


def test_connection_subscribes_all_symbols_with_one_frame_a_channel():
    core = protocol(klines=("1m", "1h"))
    core.connected(START)
    requests = requests_of(core.frames_to_send(START))
    assert [(request["code"], request["data"]) for request in requests] == [
        (10000, {"codes": "BTCUSDT,ETHUSDT"}),
        (10003, {"codes": "BTCUSDT,ETHUSDT"}),
        (
            10006,
            {
                "arr": [
                    {"type": 1, "codes": "BTCUSDT,ETHUSDT"},
                    {"type": 5, "codes": "BTCUSDT,ETHUSDT"},
                ]
            },
        ),
    ]
    assert len({request["trace"] for request in requests}) == 3
    assert core.frames_to_send(START) == []


def test_stock_trades_are_asked_for_with_their_type_and_no_klines_if_none_are_wanted():
    core = protocol(symbols=("00700.HK",), business="stock", klines=())
    core.connected(START)
    requests = requests_of(core.frames_to_send(START))
    assert [request["code"] for request in requests] == [10000, 10003]
    assert requests[0]["data"] == {"codes": "00700.HK", "includeTy": True}


def test_heartbeat_goes_out_every_30_seconds_and_a_ping_in_silence():
    core = subscribed()
    core.frames_to_send(START)
    sent = [
        (second, frame)
        for second in range(1, 61)
        for frame in core.frames_to_send(START + second * SECOND)
    ]
    heartbeats = [
        second
        for second, frame in sent
        if frame.opcode == "text" and json.loads(frame.payload)["code"] == 10010
    ]
    assert heartbeats == [30, 60]
    assert [second for second, frame in sent if frame.opcode == "ping"] == list(range(2, 61, 2))
    assert len(sent) < 60


def test_ping_is_not_sent_while_frames_arrive():
    core = subscribed()
    core.frames_to_send(START)
    for second in range(1, 20):
        core.receive(depth(), START + second * SECOND)
        assert core.frames_to_send(START + second * SECOND) == []


def test_begin_stands_in_each_topic_at_its_ack_before_any_data():
    core = protocol()
    assert not controls(core.connected(START), "begin")
    begins = controls(core.receive(b'{"code":10001,"trace":"x"}', START + 5000), "begin")
    assert [(each.topic, each.key, each.partition) for each in begins] == [
        (TRADES, symbol, None) for symbol in SYMBOLS
    ]
    assert begins[0].control.ts == (START + 5000) // 1000
    assert begins[0].control.ts_from is None
    assert len(controls(core.receive(b'{"code":10004,"trace":"x"}', START + 6000), "begin")) == 2
    assert {
        each.topic
        for each in controls(core.receive(b'{"code":10007,"trace":"x"}', START + 7000), "begin")
    } == {KLINES}


def test_push_that_overtakes_its_ack_begins_its_symbol_once():
    core = protocol()
    core.connected(START)
    begin, record = core.receive(trade(), START)
    assert (begin.control.kind, begin.key, record.topic) == ("begin", "BTCUSDT", TRADES)
    assert [each.key for each in controls(core.receive(b'{"code":10001}', START), "begin")] == [
        "ETHUSDT"
    ]


def test_replay_begins_with_its_connection_and_asks_nothing():
    core = protocol(source="replay")
    outputs = core.connected(START)
    assert [(each.topic, each.key) for each in controls(outputs, "begin")] == [
        (topic, s) for topic in (TRADES, BOOKS) for s in SYMBOLS
    ]
    assert states(outputs) == ["healthy"]


def test_sequence_runs_without_a_hole_over_trades_depth_and_klines():
    core = subscribed()
    outputs = [
        output
        for frame in (trade(), depth(), b"junk", kline(), trade())
        for output in core.receive(frame, START)
    ]
    assert [each["sequence"] for each in records(outputs, TRADES)] == [1, 4]
    assert [each["sequence"] for each in records(outputs, BOOKS)] == [2]
    assert [each["sequence"] for each in records(outputs, KLINES)] == [3]


def test_every_record_is_what_its_schema_says():
    core = subscribed()
    for frame, schema in (
        (trade(), "raw_trade"),
        (depth(), "raw_depth"),
        (kline(), "raw_kline"),
        (b"junk", "dead_letter"),
    ):
        (record,) = core.receive(frame, START)
        decoded = compile_decoder(load_schema(schema))(
            compile_encoder(load_schema(schema), 1)(*record.record)
        )
        assert list(decoded.values()) == list(record.record)
        assert decoded["feed"] == "crypto-1"
        assert decoded["ts_recv"] == START
        assert decoded["source"] == "simulated"
    (status,) = core.disconnected(START + 5, "gone")
    assert compile_encoder(load_schema("feed_status"), 1)(*status.record)


def test_unreadable_frame_becomes_a_dead_letter_and_the_feed_goes_on():
    core = subscribed()
    (letter,) = core.receive(trade(v="-1"), START)
    assert letter.key == "BTCUSDT"
    (fields,) = records([letter], DEAD_LETTER)
    assert fields["value"] == trade(v="-1")
    assert fields["error_class"] == "BadField"
    assert "negative" in fields["error_text"]
    assert core.receive(b"junk", START)[0].key == "crypto-1"
    assert records(core.receive(trade(), START), TRADES)
    assert (core.counters.received, core.counters.unreadable, core.counters.trades) == (3, 2, 1)


def test_greeting_of_stock_is_no_dead_letter_but_later_text_is():
    core = protocol(symbols=("00700.HK",), business="stock")
    core.connected(START)
    assert core.receive(b"You have permission", START) == []
    core.receive(b'{"code":200,"msg":"ws connect success"}', START)
    assert records(core.receive(b"You have permission", START), DEAD_LETTER)


def test_mark_says_that_a_silent_partition_lives_while_another_has_records():
    core = subscribed()
    quiet = partition_of(b"ETHUSDT", 6)
    assert quiet != partition_of(b"BTCUSDT", 6)
    assert not controls(core.receive(trade(), START + SECOND // 2), "mark")
    marks = controls(core.receive(trade(t=START // 1000 + 200), START + SECOND), "mark")
    assert (TRADES, quiet) in [(each.topic, each.partition) for each in marks]
    assert (TRADES, partition_of(b"BTCUSDT", 6)) not in [
        (each.topic, each.partition) for each in marks
    ]
    assert {each.control.ts for each in marks} == {START // 1000 + 200}
    assert {each.key for each in marks} == {None}


def test_marks_come_from_signs_of_life_only_and_never_twice_for_one():
    core = subscribed()
    assert core.pong(START) == [], "the vendor's time is not known before its first push"
    core.receive(trade(), START)
    for second in range(1, 10):
        core.tick(START + second * SECOND)
    marks = controls(core.pong(START + 10 * SECOND), "mark")
    assert len(marks) == len({(each.topic, each.partition) for each in marks}) == 6
    assert {each.control.ts for each in marks} == {(START + 10 * SECOND) // 1000}
    assert core.pong(START + 10 * SECOND) == []


def test_marks_keep_the_vendors_time_and_not_the_producers():
    core = subscribed()
    years_ago = START // 1000 - 10**11
    core.receive(trade(t=years_ago), START + SECOND)
    marks = controls(core.pong(START + 4 * SECOND), "mark")
    assert {each.control.ts for each in marks} == {years_ago + 3_000}
    assert {each.control.ts_recv for each in marks} == {START + 4 * SECOND}


def test_connection_without_a_sign_of_life_is_broken():
    core = subscribed()
    core.pong(START + SECOND)
    core.tick(START + SECOND + SILENCE)
    assert core.state is State.OPEN
    core.tick(START + SECOND + SILENCE + 1)
    assert core.state is State.BROKEN
    assert "sign of life" in core.reason


def test_reconnect_subscribes_again_and_begins_from_the_last_push():
    core = subscribed()
    core.receive(trade(t=(START + 2 * SECOND) // 1000), START + 2 * SECOND)
    core.pong(START + 3 * SECOND)
    assert states(core.disconnected(START + 4 * SECOND, "lost")) == ["down"]
    assert core.disconnected(START + 5 * SECOND, "refused") == []
    core.connected(START + 9 * SECOND)
    assert [
        request["code"] for request in requests_of(core.frames_to_send(START + 9 * SECOND))
    ] == [10000, 10003, 10006]
    core.disconnected(START + 10 * SECOND, "lost before any ack")
    core.connected(START + 11 * SECOND)
    (begin, *_) = controls(core.receive(b'{"code":10001}', START + 12 * SECOND), "begin")
    # the pong after it proves nothing of what the vendor held back
    assert begin.control.ts_from == (START + 2 * SECOND) // 1000
    assert begin.control.ts == (START + 12 * SECOND) // 1000
    core.receive(b'{"code":10004}', START + 12 * SECOND)
    outputs = core.receive(b'{"code":10007}', START + 13 * SECOND)
    assert states(outputs) == ["down", "healthy"]
    status = next(output for output in outputs if isinstance(output, Publication))
    assert (status.record.ts_from, status.record.ts_to) == (
        (START + 3 * SECOND) // 1000,
        (START + 13 * SECOND) // 1000,
    )
    assert core.counters.connections == 3
    assert core.counters.losses == 2


def test_each_connection_has_an_id_and_a_sequence_of_its_own():
    core = subscribed()
    first = records(core.receive(trade(), START), TRADES)[0]
    core.disconnected(START + 1, "lost")
    core.connected(START + SECOND)
    second = records(core.receive(trade(t=START // 1000 + 1), START + SECOND), TRADES)[0]
    assert first["connection"] != second["connection"]
    assert (first["sequence"], second["sequence"]) == (1, 1)
    assert first["feed"] == second["feed"]


def test_equal_trades_within_a_connection_are_no_repeats():
    core = subscribed()
    assert not any(records(core.receive(trade(), START), TRADES)[0]["repeat"] for _ in range(3))


def test_reconnect_marks_as_many_repeats_as_were_delivered_before():
    core = subscribed()
    core.receive(trade(), START)
    core.receive(trade(), START)
    core.disconnected(START + SECOND, "lost")
    core.connected(START + 2 * SECOND)
    again = [
        records(core.receive(trade(), START + 2 * SECOND), TRADES)[0]["repeat"] for _ in range(3)
    ]
    assert again == [True, True, False]
    assert not records(core.receive(trade(p="1"), START + 2 * SECOND), TRADES)[0]["repeat"]
    assert core.counters.repeats == 2


def test_repeats_are_known_over_a_connection_that_died_at_once_but_not_for_ever():
    core = subscribed()
    before, last = START // 1000 - 1, START // 1000
    core.receive(trade(t=before), START)
    core.receive(trade(t=last), START + 61 * SECOND)
    core.disconnected(START + 61 * SECOND, "lost")
    core.connected(START + 62 * SECOND)
    core.disconnected(START + 63 * SECOND, "lost")
    core.connected(START + 64 * SECOND)
    assert not records(core.receive(trade(t=before), START + 64 * SECOND), TRADES)[0]["repeat"]
    assert records(core.receive(trade(t=last), START + 64 * SECOND), TRADES)[0]["repeat"]


def test_a_subscription_is_answered_by_the_last_trade_hours_later_and_it_counts_once():
    core = subscribed()
    core.receive(trade(p="98.150"), START)
    core.disconnected(START + SECOND, "lost")
    core.connected(START + 7200 * SECOND)
    (again,) = records(core.receive(trade(p="98.15"), START + 7200 * SECOND), TRADES)
    assert (again["repeat"], again["price"]) == (True, "98.15")


def test_a_symbol_that_is_asked_for_again_is_answered_by_its_last_trade():
    core = subscribed()
    core.receive(trade(symbol="ETHUSDT"), START)
    core.change_symbols(("BTCUSDT",), {}, START + SECOND)
    core.change_symbols(SYMBOLS, {}, START + 2 * SECOND)
    assert records(core.receive(trade(symbol="ETHUSDT"), START + 3 * SECOND), TRADES)[0]["repeat"]


def test_what_the_old_subscription_still_sent_is_answered_again_by_the_new_one():
    # the vendor stands still: it reads neither request, and pushes go on until it does
    core = subscribed()
    core.change_symbols(("BTCUSDT",), {}, START + SECOND)
    core.change_symbols(SYMBOLS, {}, START + 2 * SECOND)
    first, twin, last = (
        core.receive(trade(symbol="ETHUSDT", t=START // 1000 + each), START + 12 * SECOND)
        for each in (1, 2, 2)
    )
    core.receive(b'{"code":10001,"trace":"x"}', START + 12 * SECOND)
    again, new, equal = (
        core.receive(trade(symbol="ETHUSDT", t=START // 1000 + each), START + 13 * SECOND)
        for each in (2, 3, 3)
    )
    told = [records(each, TRADES)[0]["repeat"] for each in (first, twin, last, again, new, equal)]
    assert told == [False, False, False, True, False, False]


def test_each_answer_to_a_subscription_that_was_asked_for_again_is_a_repeat():
    core = subscribed()
    told = []
    for number in range(3):
        pushes = [trade(t=START // 1000 + number)] * (1 + bool(number))
        told += [
            records(core.receive(each, START + number), TRADES)[0]["repeat"] for each in pushes
        ]
        core.receive(b'{"code":10001,"trace":"x"}', START + number)
        again = core.receive(pushes[0], START + number)
        told += [records(again, TRADES)[0]["repeat"]]
    assert told == [False, True, False, False, True, False, False, True]


def test_the_ack_of_another_channel_makes_no_repeats():
    core = subscribed()
    core.receive(trade(), START)
    core.receive(b'{"code":10004,"trace":"x"}', START)
    assert not records(core.receive(trade(), START), TRADES)[0]["repeat"]


def test_a_trade_whose_side_is_unknown_is_counted():
    core = subscribed()
    for td in ("x", None, 3, 1, "2"):
        core.receive(trade(td=td), START)
    assert (core.counters.trades, core.counters.unknown_sides, core.counters.unreadable) == (
        5,
        3,
        0,
    )


def test_orderly_end_ends_every_symbol_at_the_last_sign_of_life_and_unsubscribes():
    core = subscribed(klines=("1m", "5m"))
    core.receive(trade(), START + SECOND)
    outputs, farewell = core.ended(START + 2 * SECOND)
    ends = controls(outputs, "end")
    assert sorted((each.topic, each.key) for each in ends) == sorted(
        (topic, symbol) for topic in PARTITIONS for symbol in SYMBOLS
    )
    # the trade is of a second before its receipt, and so may be what comes next
    assert {each.control.ts for each in ends} == {START // 1000}
    assert states(outputs) == ["ended"]
    requests = requests_of(farewell)
    assert [request["code"] for request in requests] == [11000, 11001, 11002]
    assert requests[2]["data"] == {"codes": "BTCUSDT,ETHUSDT", "klineTypes": "1,2"}


def test_end_while_the_connection_is_lost_ends_what_had_begun_and_nothing_that_never_did():
    core = subscribed()
    core.disconnected(START + SECOND, "lost")
    outputs, farewell = core.ended(START + 9 * SECOND)
    assert len(controls(outputs, "end")) == 6
    assert farewell == []
    assert controls(protocol().ended(START)[0], "end") == []


@pytest.mark.parametrize("code", [500, 513, 599])
def test_retryable_error_asks_for_a_new_connection(code):
    core = subscribed()
    core.receive(b'{"code":%d,"msg":"oops"}' % code, START)
    assert core.state is State.BROKEN
    assert core.frames_to_send(START + SECOND) == []


def test_fatal_error_refuses_the_feed_for_good():
    core = subscribed()
    outputs = core.receive(b'{"code":508,"msg":"key expired"}', START)
    assert states(outputs) == ["down"]
    assert core.state is State.REFUSED
    assert core.refusal.code == 508
    core.disconnected(START, core.reason)
    assert core.state is State.REFUSED


@pytest.mark.parametrize(
    "text",
    [
        b'{"code":505,"msg":"symbols"}',
        b"Subscribe fail: not purchased",
        b'Subscribe fail: {"code":506}',
    ],
)
def test_refusal_that_is_only_reported_keeps_the_connection_and_sends_nothing(text):
    core = protocol()
    core.connected(START)
    core.frames_to_send(START)
    assert states(core.receive(text, START)) == ["degraded"]
    assert core.state is State.OPEN
    assert requests_of(core.frames_to_send(START + 29 * SECOND)) == []


@pytest.mark.parametrize("code", [501, 516])
def test_request_over_a_quota_is_sent_again_later_on_the_same_connection(code):
    core = protocol()
    core.connected(START)
    taken, refused, *others = requests_of(core.frames_to_send(START))
    core.receive(
        json.dumps({"code": code, "msg": "quota", "trace": refused["trace"]}).encode(), START
    )
    for request in (taken, *others):
        core.receive(
            json.dumps({"code": request["code"] + 1, "trace": request["trace"]}).encode(), START
        )
    due = [
        (second, request["code"], request["data"])
        for second in range(1, 62)
        for request in requests_of(core.frames_to_send(START + second * SECOND))
        if request["code"] != 10010
    ]
    assert due == [(60, 10003, refused["data"])]


def test_budget_of_a_minute_keeps_room_for_heartbeats_and_comes_back_with_time():
    budget = FrameBudget()
    assert [budget.take(START + number) for number in range(60)].count(True) == 52
    assert [budget.take(START + 100, reserved=0) for _ in range(10)].count(True) == 8
    assert not budget.take(START + 60 * SECOND - 1, reserved=0)
    assert budget.take(START + 60 * SECOND + 100)


def test_unknown_kline_interval_is_refused_at_start():
    with pytest.raises(ValueError, match="3m"):
        FeedSettings("live", klines=("3m",))
