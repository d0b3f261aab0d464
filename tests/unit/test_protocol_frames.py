"""What a frame of the vendor's means, and which frames cannot be understood."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.vendor.codes import ERRORS, Channel, Verdict, advice, judge
from producers.vendor.exact_json import BadField, UnreadableFrame
from producers.vendor.frames import (
    MAX_FRAME,
    Ack,
    ErrorFrame,
    Notice,
    NotJson,
    TooLong,
    UnknownCode,
    Unsubscribed,
    read_frame,
)
from producers.vendor.pushes import AheadOfReceipt, DepthPush, KlinePush, TradePush

LATEST = 1752826200000
TRADE = {
    "s": "00005.HK",
    "t": 1752826113546,
    "p": "98.150",
    "v": "956000",
    "vw": "93831400.000",
    "td": 0,
}
DEPTH = {
    "s": "00005.HK",
    "t": 1752826113546,
    "a": [["98.150", "98.2"], ["100", "7"]],
    "b": [["98.100"], ["3"]],
}
KLINE = {
    "s": "BTCUSDT", "o": "1", "h": "2", "l": "0.5", "c": "1.50", "v": "10", "vw": "15.0",
    "pca": "0.5", "pfr": "50%", "t": 1752826080, "ty": 1,
}  # fmt: skip


def read(frame, greeting=False):
    data = frame if isinstance(frame, bytes) else json.dumps(frame).encode()
    return read_frame(data, LATEST, greeting)


def trade(**changes):
    return {"code": 10002, "data": {**TRADE, **changes}}


def without(data, name):
    return {key: value for key, value in data.items() if key != name}


def test_trade_keeps_the_vendors_strings():
    fields = ("00005.HK", 1752826113546, "98.150", "956000", "93831400.000", 0, None)
    assert read(trade()) == TradePush(*fields, None)


def test_depth_keeps_sides_as_the_vendor_names_them():
    fields = ("00005.HK", 1752826113546, ["98.150", "98.2"], ["100", "7"], ["98.100"], ["3"])
    assert read({"code": 10005, "data": DEPTH}) == DepthPush(*fields, None)


@pytest.mark.parametrize("empty", [None, [], [[], []], [None, None]])
def test_empty_side_of_a_book_is_no_error(empty):
    assert read({"code": 10005, "data": {**DEPTH, "a": empty}})[2:4] == ([], [])


def test_kline_starts_in_milliseconds_and_names_its_interval():
    fields = ("BTCUSDT", "1m", 1752826080000, "1", "2", "0.5", "1.50", "10", "15.0", "0.5", "50%")
    assert read({"code": 10008, "data": KLINE}) == KlinePush(*fields, None)


def test_kline_time_written_as_in_rest_is_understood():
    assert read({"code": 10008, "data": {**KLINE, "t": "1752826080", "ty": "5"}})[1:3] == (
        "1h",
        1752826080000,
    )


def test_json_number_keeps_every_digit_it_was_written_with():
    frame = (
        b'{"code":10002,"data":{"s":"X","t":1752826113546,"p":98.150,'
        b'"v":12345678901234567.123456789,"vw":5,"td":0}}'
    )
    assert read(frame)[2:5] == ("98.150", "12345678901234567.123456789", "5")
    book = (
        b'{"code":10005,"data":{"s":"X","t":1752826113546,"a":[[98.150,"99"],[10,1.10]],"b":null}}'
    )
    assert read(book)[2:4] == (["98.150", "99"], ["10", "1.10"])


def test_unknown_fields_are_kept_in_extra_with_their_numbers_as_written():
    frame = (
        b'{"code":10002,"trace":"x","data":{"s":"X","t":1752826113546,"p":"1","v":"2","td":1,"z":{"b":0.10,"a":1},"n":%d}}'
        % 2**65
    )
    assert read(frame).extra == '{"n":36893488147419103232,"trace":"x","z":{"a":1,"b":0.10}}'


def test_trade_type_that_is_no_string_is_kept_as_json():
    assert read(trade(ty="@")).trade_type == "@"
    assert read(trade(ty=7)).trade_type == "7"
    assert read(trade(ty=["a", 1.5])).trade_type == '["a",1.5]'


@pytest.mark.parametrize(
    "frame",
    [
        *({"code": 10002, "data": without(TRADE, name)} for name in ("s", "t", "p", "v")),
        *({"code": 10005, "data": without(DEPTH, name)} for name in ("s", "t", "a", "b")),
        *(
            {"code": 10008, "data": without(KLINE, name)}
            for name in ("s", "t", "o", "h", "l", "c", "v", "vw", "ty")
        ),
        trade(v="-1"),
        trade(v="NaN"),
        trade(p="Infinity"),
        trade(p=""),
        trade(p=None),
        trade(p=True),
        trade(p="1" * 21),
        trade(p="0.1234567890123456789"),
        trade(s=""),
        trade(s=5),
        trade(t=0),
        trade(t=-5),
        trade(t=1.5),
        trade(t="noon"),
        trade(s="A" * 65),
        {"code": 10002},
        {"code": 10002, "data": []},
        {"code": 10005, "data": {**DEPTH, "a": [["1"]]}},
        {"code": 10005, "data": {**DEPTH, "a": [["1", "2"], ["1"]]}},
        {"code": 10005, "data": {**DEPTH, "a": [["1,2"], ["1"]]}},
        {"code": 10005, "data": {**DEPTH, "a": [["1"], ["NaN"]]}},
        {"code": 10005, "data": {**DEPTH, "a": [["1"], [None]]}},
        {"code": 10005, "data": {**DEPTH, "a": "x"}},
        {"code": 10008, "data": {**KLINE, "ty": 13}},
    ],
)
def test_missing_or_wrong_field_is_unreadable(frame):
    with pytest.raises(BadField):
        read(frame)


def test_reason_names_the_field_and_its_value():
    with pytest.raises(BadField, match=r"v is '-1': a volume cannot be negative") as raised:
        read(trade(v="-1"))
    assert raised.value.symbol == "00005.HK"


PUSHES = {"trade": (10002, TRADE, 1), "depth": (10005, DEPTH, 1), "kline": (10008, KLINE, 1000)}
"""By channel: its code, a push, and the milliseconds of its unit of time."""


def at(channel, time):
    """A push of a channel with a time as it is written in JSON."""
    code, data, _ = PUSHES[channel]
    return (
        json.dumps({"code": code, "data": {**data, "t": "TIME"}}).replace('"TIME"', time).encode()
    )


@pytest.mark.parametrize("channel", PUSHES)
@pytest.mark.parametrize("way", ["%d", '"%d"', "%d.0", '"%d.0"', '"0%d"', "%de0"])
def test_time_is_read_however_it_is_written_on_every_channel(channel, way):
    _, _, unit = PUSHES[channel]
    push = read(at(channel, way % (LATEST // unit)))
    assert push[2 if channel == "kline" else 1] == LATEST


@pytest.mark.parametrize("channel", PUSHES)
@pytest.mark.parametrize(
    "time",
    [
        "0",
        "1",
        "-1",
        "null",
        "true",
        '""',
        '"noon"',
        "[]",
        "{}",
        '"-5"',
        "0.5",
        '"1.5"',
        "1e300",
        '"\u0663"',
        '" 1"',
        "946684799",
    ],
)
def test_what_can_be_no_time_is_unreadable_on_every_channel(channel, time):
    unit = PUSHES[channel][2]
    written = time if channel != "kline" or time != "946684799" else str(946_684_799_999 // unit)
    with pytest.raises(BadField):
        read(at(channel, written))


@pytest.mark.parametrize("channel", PUSHES)
@pytest.mark.parametrize("way", ["%d", '"%d"', "%d.0"])
def test_a_time_of_another_unit_is_unreadable_on_every_channel(channel, way):
    unit = PUSHES[channel][2]
    with pytest.raises(AheadOfReceipt):
        read(at(channel, way % (LATEST * 1000 // unit)))
    with pytest.raises(BadField, match="of the year 2000 or later"):
        read(at(channel, way % (LATEST // 1000 // unit)))


def test_time_far_ahead_of_receipt_is_unreadable_but_an_old_one_is_fine():
    assert read(trade(t=LATEST)).ts_event == LATEST
    assert read(trade(t=946_684_800_000)).ts_event == 946_684_800_000
    with pytest.raises(AheadOfReceipt, match="1 ms beyond"):
        read(trade(t=LATEST + 1))
    with pytest.raises(AheadOfReceipt):
        read({"code": 10008, "data": {**KLINE, "t": 1752826080000}})


def written(name, value):
    """A trade one of whose fields is written as this JSON."""
    return json.dumps(trade(**{name: "VALUE"})).replace('"VALUE"', value).encode()


@pytest.mark.parametrize(
    ("value", "direction"),
    [("1", 1), ('"1"', 1), ('"2"', 2), ("1.0", 1), ('"1.0"', 1), ("2e0", 2), ('"0"', 0), ("-0", 0)],
)
def test_a_side_is_read_as_a_number_however_it_is_written(value, direction):
    push = read(written("td", value))
    assert (push.direction, push.extra, push.side_unknown) == (direction, None, False)


@pytest.mark.parametrize(
    "value",
    [
        "null",
        '""',
        "3",
        "-1",
        '"buy"',
        "1.5",
        "true",
        "[1.10]",
        '{"a":1.10}',
        "1e300",
        "12345678901234567890123",
    ],
)
def test_a_side_that_cannot_be_read_is_kept_and_the_trade_counts_without(value):
    push = read(written("td", value))
    assert (push.direction, push.extra, push.side_unknown) == (0, f'{{"td":{value}}}', True)


def test_a_trade_without_a_side_counts():
    push = read({"code": 10002, "data": without(TRADE, "td")})
    assert (push.direction, push.extra, push.side_unknown) == (0, None, True)


@pytest.mark.parametrize(
    ("value", "turnover"),
    [
        ('"1.50"', "1.50"),
        ("1.50", "1.50"),
        ("5", "5"),
        ("1E2", "1E2"),
        ('"0.1234567890123456789"', "0.1234567890123456789"),
    ],
)
def test_turnover_stays_as_it_was_written(value, turnover):
    assert read(written("vw", value)) == (*TRADE_FIELDS[:4], turnover, 0, None, None, False)


TRADE_FIELDS = ("00005.HK", 1752826113546, "98.150", "956000")


@pytest.mark.parametrize(
    "value", ['"n/a"', '""', "true", "[1.10]", '{"x":1.0}', '"1,000"', '"NaN"']
)
def test_a_turnover_that_is_no_number_is_kept_and_the_trade_counts_without(value):
    assert read(written("vw", value)) == (
        *TRADE_FIELDS,
        None,
        0,
        None,
        f'{{"vw":{value}}}',
        False,
    )
    assert read(written("vw", "null")) == (*TRADE_FIELDS, None, 0, None, None, False)


@pytest.mark.parametrize(
    "number", ["-0", "0", "0.0", "98.150", "1e2", "1E+2", "9815e-2", "12345678901234567.123456789"]
)
def test_a_json_number_is_kept_as_it_was_written(number):
    assert read(written("p", number)).price == number


def extra_of(frame):
    return json.loads(read(frame).extra)


def test_a_name_beside_and_inside_data_is_kept_twice():
    frame = {"code": 10002, "ts": 1, "trace": "t", "data": {**TRADE, "ts": 2}}
    assert extra_of(frame) == {"frame.ts": 1, "trace": "t", "ts": 2}
    assert extra_of({"code": 10005, "ts": 1, "data": {**DEPTH, "ts": 2}}) == {
        "frame.ts": 1,
        "ts": 2,
    }
    assert extra_of({"code": 10008, "ts": 1, "data": {**KLINE, "ts": 2}}) == {
        "frame.ts": 1,
        "ts": 2,
    }


def test_a_known_name_beside_data_is_not_taken_for_the_one_inside():
    push = read({"code": 10002, "td": 7, "s": "X", "ty": 5, "data": {**TRADE, "td": "odd"}})
    assert push.symbol == "00005.HK"
    assert json.loads(push.extra) == {"td": "odd", "frame.td": 7, "frame.s": "X", "frame.ty": 5}


def test_no_value_of_the_vendors_is_lost_whatever_the_names_are():
    frame = {
        "code": 10002,
        "x": 1,
        "frame.x": 2,
        "frame.frame.x": 3,
        "data": {**TRADE, "x": 4, "frame.x": 5},
    }
    assert extra_of(frame) == {
        "x": 4,
        "frame.x": 5,
        "frame.frame.x": 3,
        "frame.frame.frame.x": 1,
        "frame.frame.frame.frame.x": 2,
    }


def test_extra_fields_of_the_longest_frame_fit_a_record_of_kafka():
    names = [f"{number:x}" for number in range(29_500)]
    data = {**TRADE, **dict.fromkeys(names, 1)}
    frame = json.dumps(
        {"code": 10002, "data": data, **dict.fromkeys(names, 1)}, separators=(",", ":")
    ).encode()
    assert MAX_FRAME * 0.9 < len(frame) <= MAX_FRAME
    assert len(read(frame).extra) < 900_000


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        (b"", NotJson),
        (b'{"code":10002,"data":{', NotJson),
        (b"\xff\xfe", NotJson),
        (b"[1]", NotJson),
        (b'{"code":10002,"data":{"s":"X","t":1,"p":NaN,"v":"1","td":0}}', NotJson),
        (b'{"code":10099}', UnknownCode),
        (b'{"code":"10002"}', UnknownCode),
        (b"{}", UnknownCode),
        (b'{"code":10002,"data":{}}' + b" " * MAX_FRAME, TooLong),
    ],
)
def test_frame_that_is_not_the_protocol_is_unreadable(frame, error):
    with pytest.raises(error):
        read(frame)


def test_plain_text_is_a_greeting_only_where_one_is_expected():
    text = b"You have permission to subscribe to all market data"
    assert read(text, greeting=True) == Notice()
    with pytest.raises(NotJson):
        read(text)
    with pytest.raises(NotJson):
        read(b'{"code":10002', greeting=True)


def test_welcome_is_no_error_and_acks_name_their_channel():
    assert read({"code": 200, "msg": "ws connect success"}) == Notice()
    assert read({"code": 11010, "trace": "x"}) == Unsubscribed("x")
    assert [read({"code": code, "trace": "x"}) for code in (10001, 10004, 10007)] == [
        Ack(channel, "x") for channel in Channel
    ]
    assert read({"code": 10001, "trace": 5}) == Ack(Channel.TRADE, None)


def test_error_frames_and_subscribe_fail_texts_are_refusals():
    assert read({"code": 516, "msg": "too many", "trace": "t1"}) == ErrorFrame(
        516, "too many", "t1"
    )
    assert read({"code": 429}) == ErrorFrame(429, "", None)
    assert read(b'Subscribe fail: {"code":505,"msg":"quota","trace":"t2"}') == ErrorFrame(
        505, "quota", "t2"
    )
    assert read(b"Subscribe fail: market not purchased") == ErrorFrame(
        None, "market not purchased", None
    )


RETRY, LATER, SLOW_DOWN = Verdict.RECONNECT, Verdict.ASK_LATER, Verdict.SLOW_DOWN
OUR_BUG, WAIT, FATAL = Verdict.REPORT, Verdict.WAIT, Verdict.STOP
VENDORS_TABLE = {
    427: WAIT, 429: SLOW_DOWN, 500: RETRY, 501: SLOW_DOWN, 502: FATAL, 503: OUR_BUG, 504: OUR_BUG,
    505: OUR_BUG, 506: OUR_BUG,
    507: OUR_BUG, 508: FATAL, 509: FATAL, 510: FATAL, 511: FATAL, 512: WAIT, 513: RETRY,
    514: FATAL, 515: OUR_BUG,
    516: LATER, 517: FATAL, 518: FATAL, 519: FATAL, 520: FATAL, 521: WAIT,
}  # fmt: skip


@pytest.mark.parametrize(("code", "verdict"), VENDORS_TABLE.items())
def test_every_error_code_of_the_vendor_is_a_refusal_with_its_action(code, verdict):
    assert isinstance(read({"code": code, "msg": "no"}), ErrorFrame)
    assert judge(code) is verdict
    assert advice(code)


def test_table_has_the_vendors_codes_and_no_others():
    assert ERRORS.keys() == VENDORS_TABLE.keys()


@pytest.mark.parametrize("code", [code for code in range(500, 600) if code not in VENDORS_TABLE])
def test_unknown_error_code_is_worth_another_try(code):
    assert isinstance(read({"code": code}), ErrorFrame)
    assert judge(code) is RETRY


def test_refusal_in_prose_is_reported_and_not_tried_again():
    assert judge(None) is OUR_BUG


SCALAR = st.sampled_from(
    [None, True, 0, -1, 2**70, 0.1, 1e300, "", "1", "-0", "1e5", "NaN", "x", "１", "٣"]
)
JSON = (
    SCALAR
    | st.lists(SCALAR | st.lists(SCALAR, max_size=2), max_size=3)
    | st.dictionaries(st.sampled_from("stpx"), SCALAR, max_size=2)
)


@given(
    st.binary(max_size=40)
    | st.builds(
        lambda code, data, changes: json.dumps(
            {"code": code, "data": {**data, **changes}}
        ).encode(),
        st.sampled_from([10002, 10005, 10008, 10001, 200, 500, 7]),
        st.sampled_from([TRADE, DEPTH, KLINE]),
        st.dictionaries(st.sampled_from([*TRADE, *DEPTH, *KLINE, "new"]), JSON, max_size=3),
    )
)
def test_any_bytes_are_read_or_unreadable_and_nothing_else(data):
    try:
        read(data, greeting=True)
    except UnreadableFrame as error:
        assert str(error)


@given(st.decimals(0, 10**19, allow_nan=False, allow_infinity=False, places=9))
def test_a_number_reads_alike_as_string_and_as_json_number(number):
    text = f"{number:f}"
    frame = b'{"code":10002,"data":{"s":"X","t":1752826113546,"p":%s,"v":"%s","td":0}}' % (
        text.encode(),
        text.encode(),
    )
    assert read(frame)[2:4] == (text, text)
    assert Decimal(read(frame).price) == number


def test_what_the_vendor_adds_to_the_sides_of_a_book_is_kept_and_stops_no_book():
    data = (
        b'{"s":"A","t":1752826113000,"a":[["1.10","1.2"],["5","6"],[3,1]],'
        b'"b":[["1"],[2.50],null,"x"]}'
    )
    push = read_frame(b'{"code":10005,"data":%b}' % data, 1752826113000, greeting=False)
    assert push[:6] == ("A", 1752826113000, ["1.10", "1.2"], ["5", "6"], ["1"], ["2.50"])
    assert push.extra == '{"a":[[3,1]],"b":[null,"x"]}'


@pytest.mark.parametrize(
    ("side", "shown"),
    [("", "missing"), ('"a":[["1"]],', r"\[\['1'\]\]"), ('"a":[["1"],[],[]],', "as many prices")],
)
def test_a_side_without_prices_and_sizes_says_what_it_is(side, shown):
    frame = b'{"code":10005,"data":{"s":"A","t":1752826113000,%b"b":null}}' % side.encode()
    with pytest.raises(UnreadableFrame, match=shown):
        read_frame(frame, 1752826113000, greeting=False)
