"""The client of the vendor's REST against answers made here: what it asks, how it is paced, what it
takes for an error."""

import json
import logging
import random
import traceback

import httpx
import pytest

from producers.vendor.answers import BadKline, OddAnswer, RestKline
from producers.vendor.plan import Package
from producers.vendor.rest import ATTEMPTS, Rest, RestError

KEY = "secret-key-4711"
PACKAGE = {
    "packageName": "Premium", "expireTime": 1893456000000, "apiNumPerSec": 10, "maxWsConNum": 2,
    "maxNum": 600,
    "maxYearHisData": 5, "allWsNum": 800,
}  # fmt: skip
BAR = {
    "t": "1752826080",
    "o": "98.10",
    "h": "98.20",
    "l": "98.05",
    "c": "98.150",
    "v": "956000",
    "vw": "93831400.000",
    "pc": "0.05%",
    "pca": "0.05",
}


class Time:
    """A clock that only sleeping moves on."""

    def __init__(self):
        self.now = 1000.0
        self.slept = []

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


def envelope(data=None, ret=200, msg="success"):
    return {"ret": ret, "msg": msg, "traceId": "t-1", "data": data}


class Vendor:
    """Gives its answers in turn, the last one again and again: (HTTP status, body) or an
    exception."""

    def __init__(self, *answers, time=None):
        self.answers = list(answers)
        self.requests = []
        self.asked_at = []
        self.time = time or Time()

    def __call__(self, request):
        self.requests.append(request)
        self.asked_at.append(self.time.now)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        status, body = answer
        return httpx.Response(
            status, **({"text": body} if isinstance(body, str) else {"json": body})
        )

    def client(self, url="https://vendor.test"):
        return Rest(
            url, KEY, httpx.MockTransport(self), self.time.clock, self.time.sleep, random.Random(1)
        )


def ok(data):
    return 200, envelope(data)


def klines_of(*bars, symbol="00005.HK"):
    return ok([{"s": symbol, "respList": list(bars)}])


def test_the_package_is_asked_with_the_key_in_its_header_only():
    vendor = Vendor(ok(PACKAGE))
    with vendor.client() as rest:
        assert rest.package_info() == Package("Premium", 10, 2, 600, 800, 1893456000000)
    (request,) = vendor.requests
    assert (request.method, str(request.url)) == ("GET", "https://vendor.test/package/info")
    assert request.headers["apiKey"] == KEY


@pytest.mark.parametrize(
    ("written", "expected"),
    [(1893456000, 1893456000000), (1893456000000, 1893456000000), (None, None)],
)
def test_an_expiry_in_seconds_in_milliseconds_or_without_end_is_understood(written, expected):
    with Vendor(ok({**PACKAGE, "expireTime": written})).client() as rest:
        assert rest.package_info().expires_ms == expected


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"apiNumPerSec": 0}, "apiNumPerSec 0"),
        ({"apiNumPerSec": "ten"}, "apiNumPerSec 'ten'"),
        ({"maxWsConNum": None}, "maxWsConNum missing or null"),
        ({"maxNum": True}, "maxNum True"),
        ({"allWsNum": -1}, "allWsNum -1"),
        ({"allWsNum": 1.5}, "allWsNum 1.5"),
    ],
)
def test_an_odd_field_of_the_package_is_shown(change, said):
    with Vendor(ok({**PACKAGE, **change})).client() as rest, pytest.raises(RestError) as raised:
        rest.package_info()
    assert said in str(raised.value)
    assert "expected" in str(raised.value)


@pytest.mark.parametrize("number", ["10", 10.0, "10.0"])
def test_numbers_of_the_package_are_read_however_they_are_written(number):
    with Vendor(
        ok({**PACKAGE, "apiNumPerSec": number, "expireTime": "1893456000.0"})
    ).client() as rest:
        assert rest.package_info() == Package("Premium", 10, 2, 600, 800, 1893456000000)


@pytest.mark.parametrize("expires", [None, "soon", 10**18, -5, 0, True, [1.5], "missing"])
@pytest.mark.parametrize("name", [None, 7, "", ["x"], {"a": 1.5}])
def test_what_is_only_shown_of_the_package_decides_nothing(expires, name):
    data = {**PACKAGE, "expireTime": expires, "packageName": name}
    if expires == "missing":
        del data["expireTime"]
    with Vendor(ok(data)).client() as rest:
        assert rest.package_info() == Package("(without a name)", 10, 2, 600, 800, None)


@pytest.mark.parametrize("missing", ["apiNumPerSec", "maxWsConNum", "maxNum", "allWsNum"])
def test_a_missing_field_of_the_package_is_named(missing):
    data = {name: value for name, value in PACKAGE.items() if name != missing}
    with Vendor(ok(data)).client() as rest, pytest.raises(RestError, match=f"{missing} missing"):
        rest.package_info()


def test_klines_are_asked_of_their_business_and_come_oldest_first():
    vendor = Vendor(klines_of({**BAR, "t": "1752826140"}, BAR))
    with vendor.client() as rest:
        newer, older = reversed(rest.klines("stock", "00005.HK", "1m", 2, until_ms=1752826199999))
    (request,) = vendor.requests
    assert (request.method, request.url.path) == ("POST", "/stock/v2/batch_kline")
    assert json.loads(request.content) == {
        "codes": "00005.HK",
        "klineType": 1,
        "klineNum": 2,
        "timestamp": 1752826199,
    }
    assert older == RestKline(
        "00005.HK",
        "1m",
        1752826080000,
        "98.10",
        "98.20",
        "98.05",
        "98.150",
        "956000",
        "93831400.000",
        "0.05",
        "0.05%",
    )
    assert newer.ts_start == 1752826140000


def klines_read(*bars):
    """The klines of an answer whose numbers are written as in these bars."""
    with Vendor(klines_of(*bars)).client() as rest:
        return rest.klines("stock", "00005.HK", "1m", 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"t": "yesterday"},
            "t is 'yesterday': expected seconds since 1970, of the year 2000 or later",
        ),
        ({"t": None}, "t is missing or null"),
        ({"t": 0}, "t is 0"),
        ({"t": 60}, "t is 60"),
        ({"t": 1752826080.5}, "t is 1752826080.5"),
        ({"o": "NaN"}, "o: 'NaN'"),
        ({"v": None}, "v is missing"),
        ({"vw": None}, "vw is missing"),
        ({"o": None, "h": None, "l": None, "c": None, "v": "0"}, "o is missing"),
        ({"h": "98.1234567890123456789"}, "h: '98.1234567890123456789' has more than 18 digits"),
        ({"c": [98.15]}, "c is [98.15]"),
        ({"c": True}, "c is True"),
    ],
)
def test_a_kline_that_cannot_be_read_stands_among_the_others(change, said):
    good = [{**BAR, "t": 1752826080 + minute * 60} for minute in range(60)]
    rows = [*good[:30], {**good[30], **change}, *good[31:]]
    found = klines_read(*reversed(rows))
    (bad,) = [each for each in found if isinstance(each, BadKline)]
    klines = [each.ts_start for each in found if isinstance(each, RestKline)]
    assert klines == [1752826080000 + minute * 60_000 for minute in range(60) if minute != 30]
    assert said in bad.reason
    assert (bad.symbol, bad.ts_start) == (
        "00005.HK",
        None if "t" in change else good[30]["t"] * 1000,
    )
    assert json.loads(bad.data) == rows[30]


@pytest.mark.parametrize(
    ("t", "said"),
    [
        (1752826200, "t is 1752826200, later than the time that was asked for, 1752826199"),
        (1752826080000, "t is 1752826080000, later than"),
        (1752826081, "t is 1752826081, which is no multiple of 1m"),
    ],
)
def test_a_kline_of_a_time_that_was_not_asked_for_is_bad(t, said):
    with Vendor(klines_of(BAR, {**BAR, "t": t})).client() as rest:
        found = rest.klines("stock", "00005.HK", "1m", 2, until_ms=1752826199999)
    (bad,) = [each for each in found if isinstance(each, BadKline)]
    assert said in bad.reason
    assert len(found) == 2


@pytest.mark.parametrize("row", [None, 5, "x", [], [[1.5]], {}])
def test_an_entry_that_is_no_kline_stands_among_the_others(row):
    bad, good = klines_read(BAR, row)
    assert isinstance(bad, BadKline)
    assert isinstance(good, RestKline)


def test_numbers_stay_as_they_were_written_and_what_is_passed_on_decides_nothing():
    text = """{"ret":200,"data":[{"s":"00005.HK","respList":[{"t":1752826080.0,"o":98.150,
        "h":"98.20","l":9.8050e1,"c":98.150,"v":-0,"vw":5,"pc":0.050,"pca":{"x":[1.10,null]}},
        {"t":"1752826140","o":1,"h":1,"l":1,"c":1,"v":1,"vw":1}]}]}"""
    with Vendor((200, text)).client() as rest:
        first, second = rest.klines("stock", "00005.HK", "1m", 1)
    assert first == RestKline(
        "00005.HK",
        "1m",
        1752826080000,
        "98.150",
        "98.20",
        "9.8050e1",
        "98.150",
        "-0",
        "5",
        '{"x":[1.10,null]}',
        "0.050",
    )
    assert (second.ts_start, second.change, second.change_percent) == (1752826140000, None, None)


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        [{"s": "00005.HK"}],
        [{"s": "00005.HK", "respList": None}],
        [{"s": "00005.HK", "respList": []}, None],
    ],
)
def test_nothing_or_null_is_no_klines(data):
    with Vendor(ok(data)).client() as rest:
        assert rest.klines("stock", "00005.HK", "1m", 1) == []


@pytest.mark.parametrize(
    "data",
    [
        {},
        "x",
        [None],
        [{"s": "AAPL.US", "respList": []}],
        [{"s": "00005.HK", "respList": {"t": 1}}],
    ],
)
def test_an_answer_that_is_not_the_symbols_klines_is_an_error(data):
    with Vendor(ok(data)).client() as rest, pytest.raises(OddAnswer, match=r"entries of 00005\.HK"):
        rest.klines("stock", "00005.HK", "1m", 1)


@pytest.mark.parametrize(
    "arguments",
    [
        ("stocks", "A", "1m", 1),
        ("stock", "A", "3m", 1),
        ("stock", "A", "1m", 0),
        ("stock", "A", "1m", 501),
        ("stock", "A", "1d", 1, 5),
    ],
)
def test_what_the_vendor_cannot_take_is_not_sent(arguments):
    vendor = Vendor(klines_of(BAR))
    with vendor.client() as rest, pytest.raises(ValueError, match="klines of"):
        rest.klines(*arguments)
    assert vendor.requests == []


@pytest.mark.parametrize(
    "answer",
    [
        (401, {"msg": "Unauthorized"}),
        (403, "<html>forbidden</html>"),
        (200, envelope(ret=401, msg="Unauthorized")),
        (200, envelope(ret=500, msg="apiKey is required")),
        (200, envelope(ret=500, msg="Apikey not exists")),
        (500, envelope(ret=500, msg="Apikey not exists")),
        (200, envelope(ret=500, msg="The token permission has expired")),
        (200, envelope(ret=509, msg="expired")),
        (200, envelope(ret=514, msg="No permission")),
    ],
)
def test_a_refused_key_is_never_asked_for_again(answer):
    vendor = Vendor(answer)
    with (
        vendor.client() as rest,
        pytest.raises(RestError, match="the API key was refused") as raised,
    ):
        rest.package_info()
    assert raised.value.refused
    assert len(vendor.requests) == 1
    assert vendor.time.slept == []


@pytest.mark.parametrize(
    "answer",
    [
        httpx.ConnectError("refused"),
        httpx.ReadTimeout(""),
        (502, "<html>bad gateway</html>"),
        (429, {"detail": "Rate limit exceeded"}),
        (200, {"detail": "Rate limit exceeded"}),
        (200, envelope(ret=500, msg="server error")),
        (200, envelope(ret=501, msg="Request frequency exceed the limit")),
        (200, envelope(ret=500, msg="Request frequency exceed the limit: 10")),
        (200, envelope(ret=599, msg="new")),
    ],
)
def test_what_may_pass_is_asked_again_with_backoff_and_then_told(answer):
    vendor = Vendor(answer, answer, ok(PACKAGE))
    with vendor.client() as rest:
        assert rest.package_info().name == "Premium"
    assert len(vendor.requests) == 3
    vendor = Vendor(answer)
    with vendor.client() as rest, pytest.raises(RestError) as raised:
        rest.package_info()
    assert len(vendor.requests) == ATTEMPTS
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ((200, envelope(ret=508, msg="All product not exists")), 508),
        ((200, envelope(ret=500, msg="All product not exists")), 508),
        ((200, envelope(ret=502, msg="day")), 502),
        ((200, envelope(ret=506, msg="Param error")), 506),
        ((400, {"title": "Bad Request", "status": 400, "detail": "type is missing"}), 400),
        ((302, ""), 302),
    ],
)
def test_what_will_not_pass_is_told_at_once(answer, code):
    vendor = Vendor(answer)
    with vendor.client() as rest, pytest.raises(RestError) as raised:
        rest.package_info()
    assert (raised.value.code, raised.value.refused, raised.value.missing) == (code, False, False)
    assert len(vendor.requests) == 1


def test_an_address_without_the_endpoint_is_told_apart():
    with (
        Vendor((404, {"status": 404, "error": "Not Found"})).client() as rest,
        pytest.raises(RestError) as raised,
    ):
        rest.package_info()
    assert raised.value.missing


@pytest.mark.parametrize(
    "body", ["", "hello", "[]", '{"data": {}}', '{"ret": "200"}', '{"ret": true}']
)
def test_an_answer_without_the_envelope_says_what_was_found(body):
    with (
        Vendor((200, body)).client() as rest,
        pytest.raises(RestError, match=r"with ret .*: expected an integer in a JSON object"),
    ):
        rest.package_info()


DEEP = "[" * 1010 + "]" * 1010


@pytest.mark.parametrize(
    "body", [f'{{"ret":500,"msg":{DEEP}}}', f'{{"ret":{DEEP}}}', f'{{"ret":200,"data":{DEEP}}}']
)
def test_an_answer_nested_too_deep_is_an_error_of_rest_as_any_other(body):
    with Vendor((200, body)).client() as rest, pytest.raises(RestError):
        rest.package_info()


def test_requests_keep_to_the_packages_pace():
    vendor = Vendor(ok({**PACKAGE, "apiNumPerSec": 4}), klines_of(BAR))
    with vendor.client() as rest:
        rest.package_info()
        for _ in range(4):
            rest.klines("stock", "00005.HK", "1m", 1)
    # one a second until the package is known, four a second then
    assert [at - vendor.asked_at[0] for at in vendor.asked_at] == pytest.approx(
        [0, 1.05, *(1.05 * (1 + at / 4) for at in (1, 2, 3))]
    )


def test_time_that_passes_without_requests_is_not_saved_up():
    vendor = Vendor(klines_of(BAR))
    with vendor.client() as rest:
        vendor.time.now += 100
        for _ in range(3):
            rest.klines("stock", "00005.HK", "1m", 1)
    assert [at - vendor.asked_at[0] for at in vendor.asked_at] == pytest.approx([0, 1.05, 2.1])


def test_clients_of_one_key_share_its_requests():
    vendor = Vendor(ok(PACKAGE))
    for _ in range(2):
        with vendor.client() as rest:
            rest.package_info()
    assert [at - vendor.asked_at[0] for at in vendor.asked_at] == pytest.approx([0, 1.05])


def test_a_request_that_is_repeated_is_paced_too():
    vendor = Vendor((502, ""))
    with vendor.client() as rest, pytest.raises(RestError):
        rest.package_info()
    assert all(
        later - earlier >= 0.999
        for earlier, later in zip(vendor.asked_at, vendor.asked_at[1:], strict=False)
    )


@pytest.mark.parametrize(
    "answer",
    [
        httpx.ConnectError(f"no route with {KEY}"),
        httpx.DecodingError(f"bad bytes in {KEY}"),
        (200, envelope(ret=500, msg=f"Apikey {KEY} not exists")),
        (401, {"msg": f"{KEY} is banned"}),
        (500, f"<html>{KEY}</html>"),
        (200, f"what is {KEY}?"),
        (200, envelope(f"data of {KEY}")),
        (200, envelope({**PACKAGE, "maxNum": KEY})),
    ],
)
def test_the_key_is_in_no_message_traceback_repr_or_log(answer, caplog):
    caplog.set_level(logging.DEBUG)
    with Vendor(answer).client() as rest, pytest.raises(RestError) as raised:
        rest.package_info()
    shown = "".join(traceback.format_exception(raised.value))
    assert KEY not in shown + repr(raised.value) + repr(rest) + caplog.text
    assert raised.value.__cause__ is None


@pytest.mark.parametrize("key", ["", "two words", "line\nbreak", "schlüssel"])
def test_what_cannot_be_a_key_is_refused_before_any_request_and_not_shown(key):
    with pytest.raises(RestError, match="the API key is empty or has characters") as raised:
        Rest("https://vendor.test", key)
    assert raised.value.refused
    assert not key or key not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "data.infoway.io",
        "ws://host:1",
        "http://",
        "https://host?apikey=secret",
        "https://user:secret@host",
        "http://h:x",
    ],
)
def test_what_is_no_address_of_rest_says_what_to_write(url):
    with pytest.raises(RestError, match="is no address of REST: write http://HOST:PORT") as raised:
        Rest(url, KEY)
    assert "secret" not in str(raised.value)
