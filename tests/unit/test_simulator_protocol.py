"""The vendor's side of one connection: each rule of its socket, without a socket."""

import json

import pytest

from infra.simulator.protocol import ClientSession, Limits

HEARTBEAT = '{"code":10010,"trace":"h"}'


def ask(session, code, data, trace="t-1", now=0.0):
    return [
        json.loads(reply)
        for reply in session.receive(json.dumps({"code": code, "trace": trace, "data": data}), now)
    ]


def answer(session, text, now=0.0):
    return [json.loads(reply) for reply in session.receive(text, now)]


def crypto(**limits):
    return ClientSession("crypto", 0.0, Limits(**limits))


def test_stock_greets_in_plain_text_before_the_welcome():
    prose, welcome = ClientSession("stock", 0.0).greeting()
    with pytest.raises(json.JSONDecodeError):
        json.loads(prose)
    assert json.loads(welcome) == {"code": 200, "msg": "ws connect success"}


def test_other_businesses_greet_with_the_welcome_alone():
    assert [json.loads(text) for text in crypto().greeting()] == [
        {"code": 200, "msg": "ws connect success"}
    ]


@pytest.mark.parametrize(
    ("code", "data", "ack", "channel"),
    [
        (10000, {"codes": "BTCUSDT"}, 10001, "trade"),
        (10003, {"codes": "BTCUSDT"}, 10004, "depth"),
        (10006, {"arr": [{"type": 1, "codes": "BTCUSDT"}]}, 10007, "kline"),
    ],
)
def test_a_subscription_is_acked_with_its_trace_and_opens_its_channel_alone(
    code, data, ack, channel
):
    session = crypto()
    (reply,) = ask(session, code, data, trace="abc")
    assert (reply["code"], reply["trace"]) == (ack, "abc")
    assert [each for each in ("trade", "depth", "kline") if session.wants(each, "BTCUSDT")] == [
        channel
    ]


def test_codes_are_joined_by_commas_and_a_second_subscription_adds_to_the_first():
    session = crypto()
    ask(session, 10000, {"codes": "BTCUSDT, ETHUSDT"})
    ask(session, 10000, {"codes": "SOLUSDT"})
    assert session.trades == {"BTCUSDT", "ETHUSDT", "SOLUSDT"}


def test_an_ack_is_no_validation():
    assert ask(crypto(), 10000, {"codes": "NO SUCH CODE"})[0]["code"] == 10001


def test_the_trade_type_is_added_only_where_it_was_asked_for():
    session = ClientSession("stock", 0.0)
    ask(session, 10000, {"codes": "AAPL.US"})
    assert session.with_type == set()
    ask(session, 10000, {"codes": "TSLA.US", "includeTy": True})
    assert session.with_type == {"TSLA.US"}


@pytest.mark.parametrize(
    ("code", "channel", "subscribe"), [(11000, "trade", 10000), (11001, "depth", 10003)]
)
def test_an_unsubscription_is_acked_and_takes_the_named_codes_alone(code, channel, subscribe):
    session = crypto()
    ask(session, subscribe, {"codes": "BTCUSDT,ETHUSDT"})
    (reply,) = ask(session, code, {"codes": "BTCUSDT"}, trace="bye")
    assert (reply["code"], reply["trace"]) == (11010, "bye")
    assert (session.wants(channel, "BTCUSDT"), session.wants(channel, "ETHUSDT")) == (False, True)


@pytest.mark.parametrize(("types", "left"), [("1", {2, 3}), ("1,3", {2}), (None, set())])
def test_a_kline_unsubscription_without_types_takes_every_interval(types, left):
    session = crypto()
    ask(session, 10006, {"arr": [{"type": number, "codes": "BTCUSDT"} for number in (1, 2, 3)]})
    assert (
        ask(session, 11002, {"codes": "BTCUSDT"} | ({"klineTypes": types} if types else {}))[0][
            "code"
        ]
        == 11010
    )
    assert {number for _, number in session.klines} == left


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("not JSON", 515),
        ('{"trace":"t","data":{"codes":"A"}}', 507),
        ('{"code":10000,"trace":"t"}', 507),
        ('{"code":10000,"trace":"t","data":{}}', 507),
        ('{"code":11000,"trace":"t","data":{}}', 507),
        ('{"code":12345,"trace":"t","data":{"codes":"A"}}', 506),
        ('{"code":[],"trace":"t","data":{"codes":"A"}}', 506),
        ('{"code":{},"trace":"t","data":{"codes":"A"}}', 506),
        ('{"code":"10000","trace":"t","data":{"codes":"A"}}', 506),
        ('{"code":10006,"trace":"t","data":{}}', 507),
        ('{"code":10006,"trace":"t","data":{"arr":[{"type":true,"codes":"A"}]}}', 506),
        ('{"code":10006,"trace":"t","data":{"arr":[{"type":13,"codes":"A"}]}}', 506),
        ('{"code":10006,"trace":"t","data":{"arr":[{"type":0,"codes":"A"}]}}', 506),
    ],
)
def test_a_malformed_request_gets_its_error_and_changes_nothing(text, code):
    session = crypto()
    (reply,) = answer(session, text)
    assert reply["code"] == code
    assert (session.symbols(), session.closing) == (set(), False)


@pytest.mark.parametrize("types", ["abc", "13", "1,", "²", 1, ["1"]])
def test_a_kline_unsubscription_of_types_that_are_none_changes_nothing(types):
    session = crypto()
    ask(session, 10006, {"arr": [{"type": 1, "codes": "BTCUSDT"}]})
    assert ask(session, 11002, {"codes": "BTCUSDT", "klineTypes": types})[0]["code"] == 506
    assert session.klines == {("BTCUSDT", 1)}


def test_an_error_echoes_the_trace_of_its_request():
    assert answer(crypto(), '{"code":10000,"trace":"mine"}')[0]["trace"] == "mine"


def test_a_heartbeat_is_never_answered():
    assert answer(crypto(), HEARTBEAT) == []


def test_sixty_seconds_without_a_heartbeat_end_the_connection():
    session = crypto()
    assert session.overdue(60.0) == []
    assert json.loads(session.overdue(60.1)[0])["code"] == 513
    assert session.closing


def test_only_a_heartbeat_keeps_a_connection_alive():
    silent, alive = crypto(), crypto()
    ask(silent, 10000, {"codes": "BTCUSDT"}, now=50.0)
    answer(alive, HEARTBEAT, now=50.0)
    assert silent.overdue(61.0)
    assert not alive.overdue(61.0)
    assert alive.overdue(111.0)


def test_the_sixty_first_frame_of_a_minute_ends_the_connection_heartbeats_included():
    session = crypto()
    for _ in range(59):
        answer(session, HEARTBEAT, now=1.0)
    assert ask(session, 10000, {"codes": "BTCUSDT"}, now=30.0)[0]["code"] == 10001
    assert answer(session, HEARTBEAT, now=60.9)[0]["code"] == 501
    assert session.closing


def test_the_limit_of_frames_can_be_lifted():
    session = crypto(frames=None)
    assert [answer(session, HEARTBEAT) for _ in range(500)] == [[]] * 500
    assert not session.closing


def test_frames_older_than_a_minute_no_longer_count():
    session = crypto()
    for second in range(300):
        assert answer(session, HEARTBEAT, now=float(second)) == []
    assert not session.closing
