"""The simulator's REST against code that is not ours: the vendor's own client, infoway-sdk."""

import time
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise

import pytest
from infoway import (
    InfowayAPIError,
    InfowayClient,
    InfowayRateLimitError,
    KlineType,
    RestErrorCode,
)

from infra.simulator import running_simulator
from infra.simulator.protocol import PACKAGES
from infra.simulator.script import Fault


@pytest.fixture(scope="module")
def simulator():
    with running_simulator(rate=20) as running:
        yield running


@pytest.fixture
def client(simulator):
    with InfowayClient("a-key", base_url=simulator.rest_url) as client:
        yield client


def test_it_reads_the_package(client):
    info = client.packages.get_info()
    assert (info["apiNumPerSec"], info["maxWsConNum"], info["maxNum"], info["allWsNum"]) == (
        20,
        9,
        600,
        5000,
    )
    assert info["expireTime"] > time.time() * 1000


@pytest.mark.parametrize(
    ("business", "symbol"),
    [("stock", "00700.HK"), ("crypto", "BTCUSDT"), ("common", "USDJPY"), ("japan", "7203.JP"),
        ("india", "RELIANCE.IN"),
     ("korea", "005930.KS"), ("taiwan", "2330.TW")],
)  # fmt: skip
def test_it_reads_a_history_of_klines_of_every_business(client, business, symbol):
    bars = getattr(client, business).get_kline(symbol, KlineType.MIN_1, 500, parse=True)
    assert len(bars) == 500
    assert {bar["s"] for bar in bars} == {symbol}
    starts = [bar["t"] for bar in bars]
    assert {(newer - older).total_seconds() for newer, older in pairwise(starts)} == {60.0}
    assert abs((datetime.now(UTC) - starts[0]).total_seconds()) < 120
    assert all(
        isinstance(bar[name], Decimal)
        for bar in bars
        for name in ("o", "h", "l", "c", "v", "turnover", "change_percent")
    )


def test_it_reads_klines_up_to_a_time(client):
    end = int(time.time()) - 7200
    (entry,) = client.crypto.get_kline("BTCUSDT", KlineType.HOUR_1, 3, timestamp=end)
    starts = [int(bar["t"]) for bar in entry["respList"]]
    assert starts == [end // 3600 * 3600 - 3600 * number for number in range(3)]


def test_it_reads_two_klines_each_of_several_symbols(client):
    bars = client.stock.get_kline("00700.HK,AAPL.US", KlineType.DAY, 2, parse=True)
    assert [bar["s"] for bar in bars] == ["00700.HK", "00700.HK", "AAPL.US", "AAPL.US"]


def test_it_reads_trades_and_books(client):
    (trade,) = client.stock.get_trade("00700.HK", parse=True)
    assert isinstance(trade["p"], Decimal)
    (book,) = client.stock.get_depth("00700.HK", parse=True)
    assert book["a"][0][0] > book["b"][0][0]


@pytest.mark.parametrize(
    "code", [code for code in RestErrorCode if code != 200], ids=lambda code: code.name
)
def test_every_code_by_script_is_its_error_of_that_name(code):
    with running_simulator(script=[Fault(0, "next_rest", ret=int(code))]) as simulator:
        with InfowayClient("a-key", base_url=simulator.rest_url, max_retries=1) as client:
            with pytest.raises(InfowayAPIError, match="by script") as raised:
                client.packages.get_info()
            assert (raised.value.ret, raised.value.error_name) == (code, code.name)
            assert isinstance(raised.value, InfowayRateLimitError) == (code in (501, 502))
            assert client.packages.get_info()["apiNumPerSec"] == 20


def test_more_requests_than_its_package_has_are_its_rate_limit_error():
    with running_simulator(limits=PACKAGES["free"]) as simulator:
        with InfowayClient("a-key", base_url=simulator.rest_url, max_retries=1) as client:
            client.packages.get_info()
            with pytest.raises(InfowayRateLimitError) as raised:
                # between two requests the second may be over
                for _ in range(20):
                    client.packages.get_info()
            assert raised.value.error_name == "REQUEST_EXCEED_LIMIT"


def test_an_unknown_symbol_is_its_508(client):
    with pytest.raises(InfowayAPIError) as raised:
        client.japan.get_kline("7203.T", KlineType.MIN_1, 1)
    assert (raised.value.ret, raised.value.error_name) == (508, "PRODUCT_NOT_EXISTS")


def test_a_wrong_key_is_its_error(simulator):
    with (
        InfowayClient("bad-key", base_url=simulator.rest_url) as client,
        pytest.raises(InfowayAPIError, match="Apikey not exists"),
    ):
        client.packages.get_info()
