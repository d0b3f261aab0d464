"""Synthetic markets: exact, consistent in themselves, and the same for the same seed."""

from decimal import Decimal
from fractions import Fraction

import pytest

from infra.ingest.planning import SAMPLE_SYMBOLS
from infra.simulator import synthetic
from infra.simulator.synthetic import KLINE_SECONDS, MadeUpMarket, trades_on
from producers.vendor.codes import Channel
from producers.vendor.pushes import read_push
from producers.vendor.symbols import business_of

START = 1_752_825_600_000
LATEST = START * 2


def tape(market, trades=300, step=250):
    return [
        (market.trade(START + number * step), market.book(START + number * step), market.kline(1))
        for number in range(trades)
    ]


def sample(symbol, seed=1):
    return MadeUpMarket(symbol, business_of(symbol), seed)


def test_the_same_seed_and_times_give_the_same_tape():
    assert tape(sample("BTCUSDT")) == tape(sample("BTCUSDT"))
    assert tape(sample("BTCUSDT")) != tape(sample("BTCUSDT", seed=2))


@pytest.mark.parametrize("symbol", SAMPLE_SYMBOLS)
def test_the_producer_reads_every_push_of_the_sample_symbols(symbol):
    for trade, book, kline in tape(sample(symbol)):
        for channel, data in zip(Channel, (trade, book, kline), strict=True):
            push = read_push(channel, {"code": channel.push, "data": data}, LATEST, exact=False)
            assert (push.symbol, push.extra) == (symbol, None)


@pytest.mark.parametrize("symbol", SAMPLE_SYMBOLS)
def test_turnover_is_price_times_volume_exactly(symbol):
    for trade, _, _ in tape(sample(symbol)):
        assert all(set(trade[name]) <= set("0123456789.") for name in ("p", "v", "vw")), trade
        assert Fraction(trade["vw"]) == Fraction(trade["p"]) * Fraction(trade["v"])


@pytest.mark.parametrize("symbol", SAMPLE_SYMBOLS)
def test_prices_are_positive_multiples_of_the_tick(symbol):
    market = sample(symbol)
    for trade, book, _ in tape(market):
        for price in (trade["p"], *book["a"][0], *book["b"][0]):
            assert Decimal(price) > 0
            assert Decimal(price) % market.tick == 0


@pytest.mark.parametrize("symbol", ["LOW.US", "00001.HK", "000001.SZ"])
def test_at_the_lowest_price_every_bid_is_still_positive(symbol, monkeypatch):
    monkeypatch.setitem(synthetic._START, symbol, ("0.01", "0.01", 1))
    for _, book, _ in tape(sample(symbol), trades=1000):
        assert min(map(Decimal, book["b"][0])) > 0


@pytest.mark.parametrize(
    ("symbol", "directions"),
    [("BTCUSDT", {1, 2}), ("002594.SZ", {1, 2}), ("00700.HK", {0}), ("AAPL.US", {0})],
)
def test_hong_kong_and_us_trades_have_no_direction(symbol, directions):
    assert {trade["td"] for trade, _, _ in tape(sample(symbol))} == directions


@pytest.mark.parametrize(
    ("symbol", "levels"), [("002594.SZ", 5), ("600519.SH", 5), ("00700.HK", 10), ("BTCUSDT", 10)]
)
def test_asks_rise_bids_fall_and_do_not_cross(symbol, levels):
    for _, book, _ in tape(sample(symbol), trades=50):
        asks, bids = ([Decimal(price) for price in book[side][0]] for side in "ab")
        assert asks == sorted(set(asks))
        assert bids == sorted(set(bids), reverse=True)
        assert asks[0] > bids[0]
        assert [len(column) for side in "ab" for column in book[side]] == [levels] * 4


def test_forex_has_trades_without_a_volume():
    volumes = {trade["v"] for trade, _, _ in tape(sample("USDJPY"))}
    assert "0" in volumes
    assert len(volumes) > 1


@pytest.mark.parametrize("number", sorted(KLINE_SECONDS))
def test_a_kline_is_the_fold_of_the_trades_in_its_interval(number):
    market = sample("BTCUSDT")
    span = KLINE_SECONDS[number]
    trades, last = {}, {}
    for step in range(400):
        now = START + step * span * 37
        trade = market.trade(now)
        trades.setdefault(now // 1000 // span * span, []).append(trade)
        kline = market.kline(number)
        last[kline["t"]] = kline
    assert last.keys() == trades.keys()
    for start, members in trades.items():
        prices, kline = [Decimal(trade["p"]) for trade in members], last[start]
        assert [Decimal(kline[name]) for name in "ohlc"] == [
            prices[0],
            max(prices),
            min(prices),
            prices[-1],
        ]
        assert Decimal(kline["v"]) == sum(Decimal(trade["v"]) for trade in members)
        assert Decimal(kline["vw"]) == sum(Decimal(trade["vw"]) for trade in members)
        assert kline["ty"] == number


@pytest.mark.parametrize(
    "symbol", [*SAMPLE_SYMBOLS, "ETHUSDC", "BTCUSD", "600000.SH", "7203.JP", "2330.TW", "ESH4"]
)
def test_a_symbol_trades_on_its_own_business(symbol):
    assert trades_on(business_of(symbol), symbol)


@pytest.mark.parametrize(
    ("business", "symbol"),
    [("crypto", "AAPL.US"), ("stock", "BTCUSDT"), ("common", "BTCUSDT"), ("stock", "nonsense")],
)
def test_a_symbol_does_not_trade_on_another_business(business, symbol):
    assert not trades_on(business, symbol)
