"""Symbols spread over connections within a package, or every limit that they exceed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.vendor.plan import FREE, Package, PlanTooSmall, on_running_feeds, plan
from producers.vendor.symbols import BadSymbols, Feed, plan_feeds

PRO = Package("Pro", requests=20, connections=9, a_connection=600, symbols=5000)
MIXED = ["00700.HK", "AAPL.US", "BTCUSDT", "USDJPY", "7203.JP"]


def stocks(count):
    return [f"{number:05d}.HK" for number in range(count)]


def package(connections=9, a_connection=600, symbols=5000):
    return Package("Test", 1, connections, a_connection, symbols)


@pytest.mark.parametrize(
    ("symbols", "bought", "expected"),
    [
        ([], FREE, {}),
        (["AAPL.US"], FREE, {"stock-1": 1}),
        (stocks(10), FREE, {"stock-1": 10}),
        (MIXED, PRO, {"stock-1": 2, "crypto-1": 1, "common-1": 1, "japan-1": 1}),
        (stocks(601), PRO, {"stock-1": 600, "stock-2": 1}),
        # the vendor's 600 a connection holds whatever a package says
        (stocks(601), package(a_connection=5000), {"stock-1": 600, "stock-2": 1}),
        (
            [*stocks(5), "BTCUSDT"],
            package(a_connection=2, connections=4),
            {"stock-1": 2, "stock-2": 2, "stock-3": 1, "crypto-1": 1},
        ),
        (["AAPL.US", "AAPL.US"], package(symbols=1), {"stock-1": 1}),
    ],
)
def test_each_business_has_connections_of_its_own_within_the_limits(symbols, bought, expected):
    feeds = plan(symbols, bought).feeds
    assert {feed.name: len(feed.symbols) for feed in feeds} == expected
    assert all(feed.name.startswith(f"{feed.business}-") for feed in feeds)
    assert {symbol for feed in feeds for symbol in feed.symbols} == set(symbols)


@pytest.mark.parametrize(
    ("symbols", "bought", "parts"),
    [
        (MIXED, FREE,
            ["4 connections are needed and it has 1, 3 too few", "crypto-1 (1 symbol: BTCUSDT)",
            "common-1", "japan-1"]),
        (stocks(12), package(symbols=10),
            ["stock 12", "12 symbols are needed and it has 10, 2",
            "(2 symbols: 00010.HK, 00011.HK)"]),
        (stocks(20), package(symbols=10), ["10 symbols: 00010.HK, 00011.HK, 00012.HK, 00013.HK, "
                                           "00014.HK and 5 more"]),
        (stocks(11), FREE,
            ["2 connections are needed and it has 1", "11 symbols are needed and it has 10"]),
        (["AAPL.US", "BTCUSDT"], package(connections=0),
            ["2 connections are needed and it has 0", "stock-1", "crypto-1"]),
        (["AAPL.US"], package(a_connection=0), ["1 symbols a connection are needed and it has 0"]),
    ],
)  # fmt: skip
def test_a_package_that_is_too_small_names_everything_that_does_not_fit(symbols, bought, parts):
    with pytest.raises(PlanTooSmall) as raised:
        plan(symbols, bought)
    text = str(raised.value)
    assert text.startswith(f"the package {bought.name} is too small")
    assert "\n" not in text
    for part in parts:
        assert part in text


def test_what_fits_is_not_named_as_too_much():
    with pytest.raises(PlanTooSmall) as raised:
        plan(["AAPL.US", "BTCUSDT"], FREE)
    (shortage,) = raised.value.shortages
    assert [feed.name for feed in shortage.unfit] == ["crypto-1"]
    assert (shortage.needed, shortage.allowed) == (2, 1)


def test_a_connection_subscribes_by_one_frame_a_channel_however_many_its_symbols_and_intervals():
    assert plan(stocks(600), PRO).frames == 3
    assert plan(stocks(600), PRO, klines=("1m", "5m", "1d")).frames == 3
    assert plan(stocks(600), PRO, klines=()).frames == 2


def test_frames_that_leave_no_room_for_heartbeats_are_a_shortage(monkeypatch):
    monkeypatch.setattr("producers.vendor.plan.FRAMES", 10)
    with pytest.raises(
        PlanTooSmall, match="3 subscription frames a minute on a connection are needed and it has 2"
    ):
        plan(["AAPL.US"], PRO)


def test_an_override_moves_a_symbol_to_another_connection():
    assert [feed.name for feed in plan(["BTCUSD", "XYZ"], PRO, {"BTCUSD": "common"}).feeds] == [
        "common-1"
    ]


def test_mistakes_in_symbols_come_before_any_limit():
    with pytest.raises(BadSymbols, match=r"700\.HK"):
        plan(["700.HK", *stocks(50)], FREE)


def on(name, *symbols):
    return Feed(name, name.rpartition("-")[0], symbols)


A, B, C, D, E, F = stocks(6)


@pytest.mark.parametrize(
    ("symbols", "running", "bought", "expected"),
    [
        # a symbol stays where it is, though a fresh plan would have it elsewhere
        (
            [B, C, D],
            [on("stock-1", A, B), on("stock-2", C, D)],
            package(a_connection=2),
            [on("stock-1", B), on("stock-2", C, D)],
        ),
        # what is new fills up what runs, then begins feeds under names that are free
        (
            [C, D, E, F],
            [on("stock-2", C)],
            package(a_connection=2),
            [on("stock-2", C, D), on("stock-1", E, F)],
        ),
        ([A, "BTCUSDT"], [on("stock-1", A)], PRO, [on("stock-1", A), on("crypto-1", "BTCUSDT")]),
        # a feed without a symbol is given up
        (["BTCUSDT"], [on("stock-1", A)], FREE, [on("crypto-1", "BTCUSDT")]),
        # too few connections for all to stay: the smallest feed that a fresh plan does without
        (
            [A, B, C, "BTCUSDT"],
            [on("stock-1", A), on("stock-2", B, C)],
            package(a_connection=3, connections=2),
            [on("crypto-1", "BTCUSDT"), on("stock-2", B, C, A)],
        ),
        # a package that has become smaller
        (
            [A, B, C],
            [on("stock-1", A, B, C)],
            package(a_connection=2),
            [on("stock-1", A, B), on("stock-2", C)],
        ),
    ],
)
def test_a_plan_for_feeds_that_run_moves_no_symbol_that_can_stay(
    symbols, running, bought, expected
):
    assert list(plan(symbols, bought, running=running).feeds) == expected


def test_a_symbol_that_another_business_carries_now_leaves_its_feed():
    feeds = plan(["XYZ"], FREE, {"XYZ": "common"}, running=[on("crypto-1", "XYZ")]).feeds
    assert feeds == (on("common-1", "XYZ"),)


SYMBOLS = [*stocks(12), "BTCUSDT", "ETHUSDT", "USDJPY", "7203.JP"]


@given(
    st.lists(st.lists(st.sampled_from(SYMBOLS), unique=True, min_size=1), min_size=1, max_size=5),
    st.integers(1, 5),
)
def test_any_row_of_changes_stays_within_the_package_and_carries_every_symbol_once(lists, limit):
    running = []
    for symbols in lists:
        fresh = plan_feeds(symbols, limit=limit)
        before = {symbol: feed.name for feed in running for symbol in feed.symbols}
        roomy = on_running_feeds(fresh, running, limit)
        assert all(
            before.get(symbol, feed.name) == feed.name for feed in roomy for symbol in feed.symbols
        )
        running = on_running_feeds(fresh, running, limit, len(fresh))
        assert len(running) <= len(fresh)
        assert len({feed.name for feed in running}) == len(running)
        assert all(1 <= len(feed.symbols) <= limit for feed in running)
        assert sorted(symbol for feed in running for symbol in feed.symbols) == sorted(symbols)
