"""The simulator's REST: envelope, error codes and markets by the service alone, then HTTP beside
WebSocket on one port."""

import json
import socket as sockets
from decimal import Decimal
from itertools import pairwise

import httpx
import orjson
import pytest
import websocket

from infra.simulator import running_simulator
from infra.simulator.history import MadeUp, Played
from infra.simulator.http import PlainRequest
from infra.simulator.playback import addressed
from infra.simulator.protocol import Limits
from infra.simulator.rest import RestService
from infra.simulator.synthetic import MadeUpMarket
from producers.recording.reader import RecordedFrame
from producers.vendor.plan import Package
from producers.vendor.rest import Rest, RestError

NOW = 1_752_826_123_000
MINUTE = NOW // 60_000 * 60


def request(method, target, body=None, key="a-key"):
    return PlainRequest(
        method,
        target,
        {"apikey": key} if key else {},
        b"" if body is None else orjson.dumps(body),
    )


class Asked:
    """A service that is asked; `ret` and `data` of its envelope."""

    def __init__(self, history, limits=None):
        self.service = RestService(history, {"bad-key"}, limits or Limits())

    def __call__(self, *arguments, **options):
        status, body = self.service.answer(request(*arguments, **options), NOW)
        assert status == 200
        document = orjson.loads(body)
        assert document.keys() == {"ret", "msg", "traceId", "data"}
        return document["ret"], document["data"] if document["ret"] == 200 else document["msg"]

    def http(self, *arguments):
        return self.service.answer(request(*arguments), NOW)[0]


@pytest.fixture
def ask():
    return Asked(MadeUp(MadeUpMarket))


def klines(codes, number=1, count=3, **more):
    return (
        "POST",
        "/crypto/v2/batch_kline",
        {"codes": codes, "klineType": number, "klineNum": count, **more},
    )


@pytest.mark.parametrize(
    ("key", "text"), [("", "apiKey is required"), ("bad-key", "Apikey not exists")]
)
def test_a_missing_or_wrong_key_is_ret_500_in_the_vendors_words(ask, key, text):
    assert ask("GET", "/package/info", key=key) == (500, text)


def test_the_package_tells_the_limits():
    ret, data = Asked(
        MadeUp(MadeUpMarket), Limits(requests=1, connections=2, a_connection=3, symbols=4)
    )("GET", "/package/info")
    assert ret == 200
    assert [data[name] for name in ("apiNumPerSec", "maxWsConNum", "maxNum", "allWsNum")] == [
        1,
        2,
        3,
        4,
    ]
    assert data["expireTime"] > NOW


def test_klines_are_newest_first_without_holes_and_the_same_when_asked_again(ask):
    ret, ((entry),) = ask(*klines("BTCUSDT", count=500))
    bars = entry["respList"]
    assert (ret, entry["s"], len(bars)) == (200, "BTCUSDT", 500)
    assert [int(bar["t"]) for bar in bars] == [MINUTE - 60 * number for number in range(500)]
    for bar in bars:
        assert bar.keys() == {"t", "o", "h", "l", "c", "v", "vw", "pc", "pca"}
        low, high = Decimal(bar["l"]), Decimal(bar["h"])
        assert low > 0
        assert all(low <= Decimal(bar[name]) <= high for name in "oc")
        assert Decimal(bar["c"]) - Decimal(bar["o"]) == Decimal(bar["pca"])
    assert ask(*klines("BTCUSDT", count=500)) == (200, [entry])


def test_klines_until_a_time_are_those_before_it(ask):
    _, (entry,) = ask(*klines("BTCUSDT", count=4))
    _, (earlier,) = ask(*klines("BTCUSDT", count=2, timestamp=MINUTE - 61))
    assert earlier["respList"] == entry["respList"][2:]


def test_a_kline_under_way_ends_and_stays_in_the_past():
    history = MadeUp(MadeUpMarket)
    market = history.market("crypto", "BTCUSDT")
    for number in range(4):
        market.trade(NOW + number * 60_000)
    bars = history.klines("crypto", "BTCUSDT", 1, 5, MINUTE + 180, NOW)
    assert [kline.start for kline in bars] == [MINUTE + 180 - 60 * number for number in range(5)]
    # the past leads up to the first price
    assert bars[4].close == Decimal("118500.00")


@pytest.mark.parametrize(
    ("body", "ret"),
    [
        ({"codes": "0700.XX"}, 508),
        ({"codes": "AAPL.US"}, 508),
        ({"codes": ",".join(f"C{number}USDT" for number in range(101))}, 505),
        ({"codes": "BTCUSDT", "klineNum": 501}, 503),
        ({"codes": "BTCUSDT,ETHUSDT", "klineNum": 3}, 506),
        ({"codes": "BTCUSDT", "klineType": 13}, 506),
        ({"codes": "BTCUSDT", "klineType": "1"}, 506),
        ({"codes": "BTCUSDT", "klineNum": 0}, 506),
        ({"codes": "BTCUSDT", "klineType": None}, 507),
        ({"codes": "BTCUSDT", "klineNum": None}, 507),
        ({"codes": ""}, 507),
        ({}, 507),
        ({"codes": "BTCUSDT", "timestamp": -1}, 513),
    ],
)
def test_klines_that_cannot_be_had_have_the_vendors_code(ask, body, ret):
    assert ask("POST", "/crypto/v2/batch_kline", {"klineType": 1, "klineNum": 2, **body})[0] == ret


def test_the_older_form_of_klines_tells_the_same(ask):
    assert ask("GET", "/crypto/batch_kline/5/4/BTCUSDT") == ask(
        *klines("BTCUSDT", number=5, count=4)
    )
    _, data = ask("GET", "/stock/batch_kline/1/2/00285.HK,002594.SZ,TSLA.US")
    assert [(entry["s"], len(entry["respList"])) for entry in data] == [
        ("00285.HK", 2),
        ("002594.SZ", 2),
        ("TSLA.US", 2),
    ]


@pytest.mark.parametrize(
    ("path", "ret"),
    [
        ("13/1/BTCUSDT", 506),
        ("1/x/BTCUSDT", 506),
        ("1/-1/BTCUSDT", 506),
        ("1/501/BTCUSDT", 503),
        ("1/1/AAPL.US", 508),
    ],
)
def test_the_older_form_of_klines_has_the_same_codes(ask, path, ret):
    assert ask("GET", f"/crypto/batch_kline/{path}")[0] == ret


def test_of_several_symbols_the_unknown_ones_are_left_out(ask):
    ret, data = ask(*klines("BTCUSDT,NOPE.US,ETHUSDT", count=2))
    assert (ret, [(entry["s"], len(entry["respList"])) for entry in data]) == (
        200,
        [("BTCUSDT", 2), ("ETHUSDT", 2)],
    )


def test_trades_and_books_are_the_last_ones(ask):
    ret, (trade,) = ask("GET", "/stock/batch_trade/00700.HK")
    assert (ret, trade["s"], trade["t"]) == (200, "00700.HK", NOW)
    assert ask("GET", "/stock/batch_trade/00700.HK") == (200, [trade])
    _, (book,) = ask("GET", "/stock/batch_depth/00700.HK")
    assert Decimal(book["a"][0][0]) > Decimal(book["b"][0][0])
    assert ask("GET", "/stock/batch_trade/BTCUSDT")[0] == 508


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("GET", "/common/basic/symbols"), 404),
        (("POST", "/crypto/v2/batch_kline", [1]), 400),
        (("GET", "/crypto/v2/batch_kline"), 404),
        (("GET", "/stocks/batch_trade/A"), 404),
        (("GET", "/"), 404),
    ],
)
def test_what_the_gateway_answers_has_an_http_status_and_no_ret(ask, arguments, status):
    assert ask.http(*arguments) == status


def test_a_recording_tells_what_has_been_played_of_it():
    pushes = [
        (10002, {"s": "ESH4", "t": NOW, "p": "10.5", "v": "2", "vw": "21.0", "td": 0}),
        (10002, {"s": "ESH4", "t": NOW + 1, "p": None, "v": "2"}),
        (10005, {"s": "ESH4", "t": NOW + 2, "a": [["11"], ["1"]], "b": [["10"], ["1"]]}),
        (10002, {"s": "ESH4", "t": NOW + 3, "p": "12", "v": "1", "vw": None, "td": 0}),
        (10002, {"s": "ESH4", "t": NOW + 60_000, "p": "9", "v": "1", "td": 0}),
        (10002, {"s": "OTHER", "t": NOW, "p": "1", "v": "1", "td": 0}),
    ]
    history = Played(
        addressed(
            [RecordedFrame(1, orjson.dumps({"code": code, "data": data})) for code, data in pushes]
        )
    )
    assert history.klines("common", "ESH4", 1, 500, MINUTE + 600, NOW) == []
    history.played = 4
    (kline,) = history.klines("common", "ESH4", 1, 500, MINUTE + 600, NOW)
    assert kline.rest() == {
        "t": str(MINUTE), "o": "10.5", "h": "12", "l": "10.5", "c": "12", "v": "3", "vw": "33.0",
        "pc": "14.29%", "pca": "1.5",
    }  # fmt: skip
    history.played = len(pushes)
    assert [
        kline.start for kline in history.klines("common", "ESH4", 1, 500, MINUTE + 600, NOW)
    ] == [MINUTE + 60, MINUTE]
    assert [kline.start for kline in history.klines("common", "ESH4", 1, 500, MINUTE, NOW)] == [
        MINUTE
    ]
    assert history.klines("common", "ESH4", 12, 500, MINUTE + 600, NOW) == []
    assert history.trade("common", "ESH4", NOW)["p"] == "9"
    assert history.book("common", "ESH4", NOW)["t"] == NOW + 2
    assert not history.knows("common", "BTCUSDT")


@pytest.fixture(scope="module")
def simulator():
    with running_simulator(rate=50) as running:
        yield running


def test_our_client_reads_the_package_and_klines(simulator):
    with Rest(simulator.rest_url, "a-key") as rest:
        assert rest.package_info() == Package("Simulator", 20, 9, 600, 5000, 4_102_444_800_000)
        bars = rest.klines("stock", "00700.HK", "5m", 100)
        assert len(bars) == 100
        assert all(
            later.ts_start - earlier.ts_start == 300_000 for earlier, later in pairwise(bars)
        )
        with pytest.raises(RestError) as raised:
            rest.klines("stock", "BTCUSDT", "1m", 1)
        assert raised.value.code == 508
    with (
        Rest(simulator.rest_url, "bad-key") as rest,
        pytest.raises(RestError, match="refused") as raised,
    ):
        rest.package_info()
    assert raised.value.refused


def test_a_subscriber_and_rest_see_the_same_market(simulator):
    socket = websocket.create_connection(
        f"{simulator.url}?business=crypto&apikey=a-key", timeout=10
    )
    try:
        socket.send(json.dumps({"code": 10000, "trace": "t", "data": {"codes": "SOLUSDT"}}))
        while (push := json.loads(socket.recv()))["code"] != 10002:
            pass
        with httpx.Client(
            base_url=simulator.rest_url, headers={"apiKey": "a-key"}, trust_env=False
        ) as client:
            (trade,) = client.get("/crypto/batch_trade/SOLUSDT").json()["data"]
        assert trade["t"] >= push["data"]["t"]
    finally:
        socket.shutdown()


@pytest.mark.parametrize(
    ("parts", "begins"),
    [
        (
            [
                b"POST /crypto/v2/batch_kline HTTP/1.1\r\napiKey: a-key\r\nContent-Le",
                b"ngth: 2\r\n\r\n[",
                b"]",
            ],
            b"HTTP/1.1 400",
        ),
        ([b"GET /package/info HTTP/1.1\r\nAPIKEY: a-key\r\n\r\n"], b"HTTP/1.1 200"),
        ([b"nonsense\r\n\r\n"], b"HTTP/1.1 400"),
        ([b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"], b"HTTP/1.1 413"),
        ([b"POST /x HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n"], b"HTTP/1.1 413"),
        ([b"POST /x HTTP/1.1\r\nContent-Length: many\r\n\r\n"], b"HTTP/1.1 400"),
    ],
)
def test_plain_http_is_answered_however_it_comes_in_pieces(simulator, parts, begins):
    with sockets.create_connection(("127.0.0.1", simulator.port), timeout=10) as socket:
        socket.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
        for part in parts:
            socket.sendall(part)
        reply = b""
        while data := socket.recv(65536):
            reply += data
    assert reply.startswith(begins)
