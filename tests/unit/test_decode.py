"""Decoding: what becomes a trade or a book, and what is refused."""

import pytest
from unit.raw_records import raw_depth, raw_kline, raw_trade

from processors.decode.raw_records import (
    MAX_FUTURE_MS,
    Undecodable,
    book_of,
    kline_of,
    trade_of,
    turnover_mismatch,
)
from processors.decode.trades import TradeReader
from processors.model.sessions import Calendars
from schemas.decimals import UNIT

RECEIVED_MS = 1_752_826_113_600

TRADE = {
    "symbol": "00005.HK",
    "ts_event": 1_752_826_113_546,
    "price": "98.150",
    "volume": "956000",
    "turnover": "93831400.000",
    "direction": 0,
    "trade_type": None,
    "repeat": False,
    "business": "stock",
    "feed": "stock-1",
    "connection": "c1",
    "sequence": 7,
    "ts_recv": RECEIVED_MS * 1000,
    "source": "live",
    "extra": None,
}
BOOK = {
    **{
        name: TRADE[name]
        for name in (
            "symbol",
            "ts_event",
            "business",
            "feed",
            "connection",
            "sequence",
            "ts_recv",
            "source",
            "extra",
        )
    },
    "ask_prices": ["98.150", "98.200"],
    "ask_volumes": ["100", "0"],
    "bid_prices": ["98.1"],
    "bid_volumes": ["5"],
}
KLINE = {
    **{
        name: TRADE[name]
        for name in (
            "symbol",
            "business",
            "feed",
            "connection",
            "sequence",
            "ts_recv",
            "source",
            "extra",
        )
    },
    **dict.fromkeys(("open", "high", "low", "close", "volume", "turnover"), "1"),
    "interval": "1m",
    "ts_start": 1_752_826_080_000,
}


def test_a_trade_keeps_the_exact_price_and_volume_and_its_envelope():
    trade = trade_of(42, raw_trade(TRADE))
    assert (trade.offset, trade.symbol, trade.ts_event) == (42, "00005.HK", TRADE["ts_event"])
    assert (trade.price, trade.volume, trade.direction) == (
        98_150 * UNIT // 1000,
        956_000 * UNIT,
        0,
    )
    assert (trade.business, trade.feed, trade.connection, trade.source) == (
        "stock",
        "stock-1",
        "c1",
        "live",
    )
    assert trade.ts_recv == RECEIVED_MS * 1000
    assert not trade.repeat


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("price", "NaN"),
        ("price", "Infinity"),
        ("price", ""),
        ("price", "0"),
        ("price", "-1"),
        ("price", "0.0000000000000000001"),
        ("volume", "-1"),
        ("volume", "1,000"),
        ("volume", "1e400"),
        ("direction", 3),
        ("direction", -1),
        ("ts_event", 0),
        ("ts_event", -5),
    ],
)
def test_a_trade_with_a_wrong_number_is_refused_by_name(field, value):
    with pytest.raises(Undecodable) as caught:
        trade_of(0, raw_trade({**TRADE, field: value}))
    assert field in caught.value.field
    assert "00005.HK" in str(caught.value)
    assert str(value) in str(caught.value)


def test_the_common_business_has_prices_at_and_below_zero_others_have_not():
    assert (
        trade_of(0, raw_trade({**TRADE, "business": "common", "price": "-37.63"})).price
        == -3763 * UNIT // 100
    )
    with pytest.raises(Undecodable):
        trade_of(0, raw_trade({**TRADE, "business": "crypto", "price": "-37.63"}))


def test_a_volume_of_zero_is_a_trade():
    assert trade_of(0, raw_trade({**TRADE, "volume": "0"})).volume == 0


def test_a_turnover_that_decimal_38_18_cannot_hold_is_refused():
    with pytest.raises(Undecodable, match="price x volume"):
        trade_of(0, raw_trade({**TRADE, "price": "10000000000", "volume": "10000000000"}))
    assert (
        trade_of(0, raw_trade({**TRADE, "price": "9999999999", "volume": "10000000000"})).volume
        == 10**10 * UNIT
    )


def test_an_event_time_far_ahead_of_its_receipt_is_refused_and_one_just_ahead_is_not():
    assert (
        trade_of(0, raw_trade({**TRADE, "ts_event": RECEIVED_MS + 60_000})).ts_event
        == RECEIVED_MS + 60_000
    )
    with pytest.raises(Undecodable, match="ahead of its receipt"):
        trade_of(0, raw_trade({**TRADE, "ts_event": RECEIVED_MS + 60_001}))
    with pytest.raises(Undecodable, match="ahead of its receipt"):
        trade_of(0, raw_trade({**TRADE, "ts_event": RECEIVED_MS + 11}), max_future_ms=10)
    with pytest.raises(Undecodable, match="ahead of its receipt"):
        book_of(0, raw_depth({**BOOK, "ts_event": RECEIVED_MS + 60_001}))


OLD = 946_684_800_000
"""2000-01-01"""


def test_an_old_event_time_is_fine():
    assert trade_of(0, raw_trade({**TRADE, "ts_event": OLD})).ts_event == OLD
    assert book_of(0, raw_depth({**BOOK, "ts_event": OLD})).ts_event == OLD
    assert kline_of(0, raw_kline({**KLINE, "ts_start": OLD})).ts_start == OLD


@pytest.mark.parametrize(
    "time", [0, -1, 1, 1_752_826_113, OLD - 1, RECEIVED_MS + MAX_FUTURE_MS + 1, RECEIVED_MS * 1000]
)
def test_a_time_that_cannot_be_is_refused_alike_of_trades_books_and_klines(time):
    for read, raw, name in (
        (trade_of, raw_trade(TRADE), "ts_event"),
        (book_of, raw_depth(BOOK), "ts_event"),
        (kline_of, raw_kline(KLINE), "ts_start"),
    ):
        with pytest.raises(Undecodable, match="ts_event="):
            read(0, raw._replace(**{name: time}))


def test_the_vendors_turnover_is_compared_exactly():
    trade = trade_of(0, raw_trade(TRADE))
    assert not turnover_mismatch(raw_trade(TRADE), trade)
    assert not turnover_mismatch(raw_trade({**TRADE, "turnover": None}), trade)
    assert turnover_mismatch(raw_trade({**TRADE, "turnover": "93831400.001"}), trade)
    assert turnover_mismatch(raw_trade({**TRADE, "turnover": "n/a"}), trade)


def test_what_is_taken_and_yet_odd_is_counted():
    read = TradeReader(Calendars())
    read(
        0, raw_trade({**TRADE, "ts_event": 1_752_810_000_000})
    )  # 11:40 in Hong Kong: the sessions' lunch break is no end of one
    assert (read.outside_sessions, read.turnover_mismatches) == (0, 0)
    night = {**TRADE, "ts_event": 1_752_800_400_000 - 5 * 3_600_000}
    read(1, raw_trade(night))
    read(2, raw_trade({**TRADE, "turnover": "1"}))
    assert (read.outside_sessions, read.turnover_mismatches) == (1, 1)
    read(3, raw_trade({**night, "turnover": "1", "repeat": True}))
    assert (read.outside_sessions, read.turnover_mismatches) == (1, 1)


def test_a_book_keeps_the_vendors_order_and_its_padding():
    book = book_of(3, raw_depth(BOOK))
    assert book.a == [(98_150 * UNIT // 1000, 100 * UNIT), (98_200 * UNIT // 1000, 0)]
    assert book.b == [(98_100 * UNIT // 1000, 5 * UNIT)]
    assert book_of(3, raw_depth({**BOOK, "bid_prices": [], "bid_volumes": []})).b == []


@pytest.mark.parametrize(
    "change",
    [
        {"ask_volumes": ["100"]},
        {"bid_prices": []},
        {"bid_prices": ["x"]},
        {"ask_volumes": ["1", "NaN"]},
        {"ts_event": 0},
    ],
)
def test_a_book_with_unequal_lists_or_a_wrong_number_is_refused(change):
    with pytest.raises(Undecodable):
        book_of(0, raw_depth({**BOOK, **change}))
