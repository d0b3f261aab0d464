"""Depth imbalance: each rule by hand, any book against the reference, and the exchange's own best
prices."""

import csv
import gzip
from dataclasses import replace
from fractions import Fraction

import orjson
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.raw_records import raw_depth

from processors.agents.depth.agent import Imbalance
from processors.agents.depth.figures import imbalance, sides
from processors.agents.depth.state import SymbolBook, packed, unpacked
from processors.decode.raw_records import book_of
from processors.model.event_time import EventTime
from processors.model.records import Book, ControlRecord, SourcesMixed, Unreadable
from schemas.control import Control
from schemas.decimals import UNIT, to_units
from schemas.sides import order_speaks
from schemas.topics import load_schema
from schemas.wire import compile_encoder

T = 1_700_000_000_000
NAMES = [field["name"] for field in load_schema("depth_imbalance")["fields"]]
ENCODE = compile_encoder(load_schema("depth_imbalance"), 1)
ASKS = [(101, 5), (102, 6), (103, 7)]
BIDS = [(100, 1), (99, 2), (98, 3)]


class Run:
    """A partition's log as it is written, and the rows that it gave."""

    def __init__(self, swapped=()):
        self.agent = Imbalance(EventTime(), swapped)
        self.state = self.agent.load(3, {})
        self.entries = {}
        self.offset = 0

    def feed(self, record):
        self.offset += 1
        rows = []
        for topic, key, fields in self.agent.apply(self.state, [record]):
            assert topic == "infoway.depth.imbalance"
            ENCODE(*fields)
            row = dict(zip(NAMES, fields, strict=True))
            assert key == row["symbol"]
            rows.append(row)
        return rows

    def book(self, a, b, symbol="A", business="stock", connection="c1", source="live", feed="f"):
        record = Book(
            self.offset,
            symbol,
            T + self.offset,
            in_units(a),
            in_units(b),
            business,
            feed,
            connection,
            1000 * T + 7,
            source,
        )
        return self.feed(record)[0]

    def control(self, kind, symbol="A", feed="f", connection="c1", source="live"):
        control = Control(
            kind, feed, "stock", connection, source, T + self.offset, 1000 * T, T + self.offset - 1
        )
        return self.feed(ControlRecord(self.offset, symbol, control))

    def restart(self):
        for key, value in self.agent.dirty(self.state):
            self.entries.pop(key, None)
            if value is not None:
                self.entries[key] = value
        self.state = self.agent.load(3, self.entries)


def in_units(levels):
    return [(to_units(str(price)), to_units(str(size))) for price, size in levels]


def test_every_figure_of_a_normal_book():
    row = Run().book(ASKS, BIDS)
    assert row == {
        "symbol": "A",
        "ts_event": T,
        "best_bid": to_units("100"),
        "best_bid_size": to_units("1"),
        "best_ask": to_units("101"),
        "best_ask_size": to_units("5"),
        "spread": to_units("1"),
        "mid": to_units("100.5"),
        "weighted_mid": to_units("100.166666666666666667"),  # (100 x 5 + 101 x 1) / 6
        "imbalance_1": -4 / 6,
        "imbalance_5": -12 / 24,
        "imbalance_10": -12 / 24,
        "imbalance_weighted": -22 / 40,  # bids 1 + 2/2 + 3/3 = 9/3, asks 5 + 6/2 + 7/3 = 31/3
        "bid_volume_5": to_units("6"),
        "ask_volume_5": to_units("18"),
        "bid_volume_10": to_units("6"),
        "ask_volume_10": to_units("18"),
        "ofi": None,
        "bid_levels": 3,
        "ask_levels": 3,
        "book_state": "normal",
        "source": "live",
        "ts_recv": 1000 * T + 7,
        "source_partition": 3,
        "source_offset": 0,
    }


def test_imbalance_takes_the_first_five_and_ten_levels_and_counts_all():
    asks = [(101 + level, 1) for level in range(12)]
    bids = [(100 - level, 2 + level) for level in range(12)]
    row = Run().book(asks, bids)
    assert (row["bid_levels"], row["ask_levels"]) == (12, 12)
    assert (row["bid_volume_5"], row["bid_volume_10"]) == (to_units("20"), to_units("65"))
    assert row["imbalance_1"] == 1 / 3
    assert row["imbalance_5"] == 15 / 25
    assert row["imbalance_10"] == 55 / 75
    harmonic = sum(Fraction(1, level) for level in range(1, 11))
    assert row["imbalance_weighted"] == float(
        Fraction(10) / (10 + 2 * harmonic)
    )  # sum of (i + 1) / i is 10 + H, of the asks H


def test_short_side_is_compared_with_the_levels_that_it_has():
    row = Run().book(ASKS[:1], [(100 - level, 1) for level in range(7)])
    assert row["imbalance_5"] == 0.0
    assert row["imbalance_10"] == 2 / 12
    assert (row["ask_levels"], row["bid_levels"]) == (1, 7)


def test_levels_without_size_or_price_are_no_levels():
    row = Run().book([*ASKS, (0, 0), (0, 0)], [(100, 0), (99, 2), (0, 5), (-1, 4), (98, -3)])
    assert (row["bid_levels"], row["ask_levels"]) == (1, 3)
    assert (row["best_bid"], row["best_bid_size"], row["bid_volume_10"]) == (
        to_units("99"),
        to_units("2"),
        to_units("2"),
    )


def test_prices_below_zero_are_real_for_common():
    row = Run().book([(-36, 5), (0, 1)], [(-38, 2), (-37.5, 4)], business="common")
    assert (row["best_bid"], row["best_ask"], row["mid"]) == (
        to_units("-37.5"),
        to_units("-36"),
        to_units("-36.75"),
    )
    assert (row["bid_levels"], row["ask_levels"], row["book_state"]) == (2, 2, "normal")


def test_unsorted_sides_are_sorted_and_equal_prices_summed():
    row = Run().book(
        [(103, 7), (101, 2), (102, 6), (101, 3)], [(98, 3), (100, 0.5), (99, 2), (100, 0.5)]
    )
    sorted_row = Run().book(ASKS, BIDS)
    assert row == sorted_row


def test_mids_are_rounded_half_to_even_once():
    run = Run()
    tiny = Book(0, "A", T, [(2, 1)], [(1, 1)], "stock", "f", "c1", 0, "live")
    row = run.feed(tiny)[0]
    assert (row["mid"], row["weighted_mid"]) == (2, 2)  # 1.5 units
    tiny = Book(1, "A", T, [(3, 1)], [(2, 1)], "stock", "f", "c1", 0, "live")
    row = run.feed(tiny)[0]
    assert (row["mid"], row["weighted_mid"]) == (2, 2)  # 2.5 units


@pytest.mark.parametrize(
    "a, b, state",
    [
        (ASKS, [], "one_sided"),
        ([], BIDS, "one_sided"),
        ([], [], "empty"),
        ([(0, 0)], [(0, 0)], "empty"),
    ],
)
def test_book_that_lacks_a_side_has_no_figure_of_both(a, b, state):
    row = Run().book(a, b)
    assert row["book_state"] == state
    for name in (
        "spread",
        "mid",
        "weighted_mid",
        "imbalance_1",
        "imbalance_5",
        "imbalance_10",
        "imbalance_weighted",
        "ofi",
    ):
        assert row[name] is None
    assert row["best_ask"] == (to_units("101") if a == ASKS else None)
    assert row["best_ask_size"] == (to_units("5") if a == ASKS else None)
    assert row["best_bid"] == (to_units("100") if b == BIDS else None)
    assert row["best_bid_size"] == (to_units("1") if b == BIDS else None)
    assert row["ask_volume_5"] == row["ask_volume_10"] == (to_units("18") if a == ASKS else 0)
    assert row["bid_volume_5"] == row["bid_volume_10"] == (to_units("6") if b == BIDS else 0)
    assert (row["ask_levels"], row["bid_levels"]) == (3 if a == ASKS else 0, 3 if b == BIDS else 0)


def test_locked_book_has_no_spread_and_all_other_figures():
    row = Run().book([(100, 3), (101, 6)], BIDS)
    assert row["book_state"] == "locked"
    assert (row["spread"], row["mid"], row["weighted_mid"]) == (0, to_units("100"), to_units("100"))
    assert (row["imbalance_1"], row["imbalance_5"]) == (-2 / 4, -3 / 15)
    assert (row["best_bid"], row["best_ask"], row["bid_levels"], row["ask_levels"]) == (
        to_units("100"),
        to_units("100"),
        3,
        2,
    )


def test_crossed_book_has_a_negative_spread_and_all_other_figures():
    row = Run().book([(99.5, 3), (101, 6)], BIDS)
    assert row["book_state"] == "crossed"
    assert (row["best_bid"], row["best_ask"]) == (to_units("100"), to_units("99.5"))
    assert (row["spread"], row["mid"], row["weighted_mid"]) == (
        to_units("-0.5"),
        to_units("99.75"),
        to_units("99.875"),
    )
    assert (row["imbalance_1"], row["imbalance_10"], row["imbalance_weighted"]) == (
        -2 / 4,
        -3 / 15,
        -3 / 9,
    )


def test_order_flow_is_measured_over_crossed_and_locked_books():
    run = Run()
    run.book(ASKS, BIDS)
    crossed = run.book([(99.5, 3), (101, 6)], BIDS)
    locked = run.book([(100, 4), (101, 6)], BIDS)
    assert crossed["ofi"] == to_units("-3")  # bid unchanged: 1 - 1; ask improved: -3
    assert locked["ofi"] == to_units("3")  # bid unchanged; ask retreated: + its whole queue before


# Cont, Kukanov, Stoikov 2014: the book before is bid 100 x 1, ask 101 x 5
@pytest.mark.parametrize(
    "a, b, flow",
    [
        ((101, 5), (100, 1), 0),
        ((101, 5), (100, 4), 3),  # the bid's queue grew
        ((101, 5), (100.5, 4), 4),  # the bid improved: its whole queue
        ((101, 5), (99, 9), -1),  # the bid retreated: the queue before
        ((101, 2), (100, 1), 3),  # the ask's queue shrank
        ((100.5, 2), (100, 1), -2),  # the ask improved
        ((102, 9), (100, 1), 5),  # the ask retreated
        ((102, 9), (100.5, 4), 9),  # both up
    ],
)
def test_order_flow_imbalance(a, b, flow):
    run = Run()
    assert run.book([(101, 5)], [(100, 1)])["ofi"] is None
    assert run.book([a], [b])["ofi"] == flow * UNIT


def test_order_flow_needs_both_sides_of_both_books():
    run = Run()
    run.book(ASKS, BIDS)
    assert run.book([], BIDS)["ofi"] is None
    assert run.book(ASKS, BIDS)["ofi"] is None
    assert run.book(ASKS, BIDS)["ofi"] == 0


@pytest.mark.parametrize("kind", ["gap", "begin", "end"])
def test_order_flow_does_not_span_a_loss(kind):
    run = Run()
    run.book(ASKS, BIDS)
    run.book(ASKS, BIDS, symbol="B")
    assert run.control(kind) == []
    assert run.book(ASKS, BIDS)["ofi"] is None
    assert run.book(ASKS, BIDS, symbol="B")["ofi"] == 0
    assert run.book(ASKS, BIDS)["ofi"] == 0


def test_mark_leaves_the_order_flow_alone():
    run = Run()
    run.book(ASKS, BIDS)
    run.control("mark", symbol=None)
    assert run.book(ASKS, BIDS)["ofi"] == 0


def test_order_flow_is_the_symbols_own():
    run = Run()
    run.book(ASKS, BIDS)
    assert run.book(ASKS, BIDS, symbol="B")["ofi"] is None


def test_reversed_lists_are_told_by_their_prices_from_the_first_book():
    assert Run().book(BIDS, ASKS) == Run().book(ASKS, BIDS)


def test_crossed_book_does_not_turn_the_sides_around():
    crossed_asks, crossed_bids = [(97, 1), (98, 2), (99, 3)], [(103, 1), (102, 2), (101, 3)]
    run = Run()
    first = run.book(crossed_asks, crossed_bids)
    run.book(ASKS, BIDS)
    later = run.book(crossed_asks, crossed_bids)
    for row in (first, later):
        assert (row["book_state"], row["best_ask"], row["best_bid"]) == (
            "crossed",
            to_units("97"),
            to_units("103"),
        )


@pytest.mark.parametrize("crossed", [1, 3, 10, 300])
def test_crossed_books_of_one_level_never_turn_the_sides_around(crossed):
    run = Run()
    for _ in range(crossed):
        row = run.book([(99.9, 300)], [(100.1, 100)])
        assert (row["book_state"], row["best_bid"], row["best_ask"]) == (
            "crossed",
            to_units("100.1"),
            to_units("99.9"),
        )
    sound = run.book([(100.02, 300)], [(100, 100)])
    assert (sound["book_state"], sound["best_ask"], sound["imbalance_1"]) == (
        "normal",
        to_units("100.02"),
        -0.5,
    )


def test_what_the_order_of_levels_has_settled_no_later_book_changes():
    run = Run()
    run.book(ASKS, BIDS)
    for _ in range(5):
        # as swapped as can be, and one-sided, and short
        assert run.book(BIDS, ASKS)["book_state"] == "crossed"
    run.restart()
    assert run.book(BIDS[:1], ASKS)["book_state"] == "crossed"
    assert run.book(BIDS, ASKS, connection="c2")["book_state"] == "normal"


@pytest.mark.parametrize(
    ("a", "b", "speaks"),
    [
        ([101, 102], [100, 99], 1),
        ([100, 99], [101, 102], -1),
        ([101, 102], [100], 1),
        ([101], [100, 99], 1),
        ([99], [100, 101], -1),
        ([100, 99], [], -1),
        ([], [101, 102], -1),
        ([], [], 0),
        ([101], [100], 0),
        ([99], [100], 0),
        ([97, 98, 99], [103, 102, 101], 1),  # crossed, its order sound
        ([102, 101], [99, 100], 0),  # both turned around, and yet not crossed as it stands
        ([102, 101], [100, 99], 0),  # the lists contradict each other
        ([102, 101], [100], 0),  # the worst ask first
        ([101, 103, 102], [100, 99], 0),
        ([101, 101], [100, 99], 0),
        ([101, 101, 102], [100, 100, 99], 1),
    ],
)
def test_only_the_order_within_a_list_speaks(a, b, speaks):
    assert order_speaks(a, b) == speaks


def test_a_setting_swaps_the_sides_of_a_business():
    run = Run(swapped=("japan",))
    assert run.book([(99, 1)], [(101, 3)], business="japan")["book_state"] == "normal"
    assert run.book([(99, 1)], [(101, 3)], business="stock", symbol="B")["book_state"] == "crossed"
    plain, swapped = (
        Run().book(ASKS, BIDS, business="japan"),
        Run(swapped=("japan",)).book(BIDS, ASKS, business="japan"),
    )
    assert plain == swapped


def test_evidence_of_reversed_lists_outlives_a_crossed_book_and_a_restart_but_not_the_connection():
    run = Run()
    run.book(BIDS, ASKS)
    run.restart()
    crossed = run.book(
        [(101, 1)], [(99, 1)]
    )  # one level each: list a, the bids, lies above the asks
    assert (crossed["book_state"], crossed["best_bid"], crossed["best_ask"]) == (
        "crossed",
        to_units("101"),
        to_units("99"),
    )
    other = run.book([(99, 1)], [(101, 1)], connection="c2")
    assert other["book_state"] == "crossed"


def test_sources_never_mix():
    run = Run()
    run.book(ASKS, BIDS)
    with pytest.raises(SourcesMixed):
        run.book(ASKS, BIDS, symbol="B", source="replay")
    with pytest.raises(SourcesMixed):
        run.control("begin", source="replay")


def test_unreadable_record_is_passed_over():
    assert Run().feed(Unreadable(0, None, b"", "E", "")) == []


small = st.integers(0, 12).map(lambda price: price * UNIT // 4)
sizes = st.one_of(st.integers(-1, 4).map(lambda size: size * UNIT), st.integers(1, 10**24))
levels = st.lists(st.tuples(small, sizes), max_size=12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(levels, levels, st.booleans(), st.booleans()), min_size=1, max_size=8))
def test_any_book_agrees_with_the_reference(books):
    run = Run()
    before, evidence = None, SymbolBook("c1")
    for a, b, lost, restart in books:
        if lost:
            run.control("gap")
            before = None
        if restart:
            run.restart()
        record = Book(run.offset, "A", T, a, b, "stock", "f", "c1", 0, "live")
        bids, asks = sides(record, evidence)
        a, b = (b, a) if evidence.reversed else (a, b)
        expected_bids, expected_asks = reference.side(b, bids=True), reference.side(a, bids=False)
        assert [(reference.number(p), reference.number(q)) for p, q in bids] == expected_bids
        assert [(reference.number(p), reference.number(q)) for p, q in asks] == expected_asks
        row = run.feed(record)[0]
        expected = reference.depth(expected_bids, expected_asks, before)
        assert {name: row[name] for name in expected} == expected
        assert all(
            -1 <= row[name] <= 1
            for name in expected
            if name.startswith("imbalance") and row[name] is not None
        )
        before = (expected_bids, expected_asks)


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 10**26), min_size=1, max_size=12),
    st.lists(st.integers(1, 10**26), min_size=1, max_size=12),
)
def test_imbalance_is_antisymmetric_under_swapping_sides(below, above):
    def figures(bid_sizes, ask_sizes):
        bids = [((100 - place) * UNIT, size) for place, size in enumerate(bid_sizes)]
        asks = [((101 + place) * UNIT, size) for place, size in enumerate(ask_sizes)]
        row = Run().feed(Book(0, "A", T, asks, bids, "stock", "f", "c1", 0, "live"))[0]
        return [
            row[name]
            for name in ("imbalance_1", "imbalance_5", "imbalance_10", "imbalance_weighted")
        ]

    assert figures(below, above) == [-value for value in figures(above, below)]


@given(st.integers(1, 10**38), st.integers(1, 10**38))
def test_imbalance_is_the_nearest_double(bid, ask):
    assert imbalance(bid, ask) == float(Fraction(bid - ask, bid + ask))


def books_of(path, symbol):
    with gzip.open(path) as lines:
        for offset, line in enumerate(
            sorted(map(orjson.loads, lines), key=lambda line: line["recv_ms"])
        ):
            pushed = line["frame"]["data"]
            if line["frame"]["code"] == 10005:
                raw = {
                    "symbol": symbol,
                    "ts_event": pushed["t"],
                    "ts_recv": line["recv_ms"] * 1000,
                    "source": "replay",
                }
                raw |= {"business": "crypto", "feed": "crypto-1", "connection": "c1"}
                raw |= {"ask_prices": pushed["a"][0], "ask_volumes": pushed["a"][1]}
                yield book_of(
                    offset,
                    raw_depth(raw | {"bid_prices": pushed["b"][0], "bid_volumes": pushed["b"][1]}),
                )


def test_best_prices_and_sizes_equal_the_exchanges_own(recordings):
    with (recordings / "truth_binance_btcusdt_perp_bbo.csv").open() as lines:
        truth = {int(row["depth_T_ms"]): row for row in csv.DictReader(lines)}
    agent = Imbalance(EventTime())
    state = agent.load(0, {})
    books = list(books_of(recordings / "binance_btcusdt_perp_20240808.jsonl.gz", "BTCUSDT"))
    rows = [dict(zip(NAMES, fields, strict=True)) for _, _, fields in agent.apply(state, books)]
    assert len(rows) == len(books) == 6547
    compared = 0
    for row in rows:
        known = truth.get(row["ts_event"])
        if known is not None:
            bid, bid_size, ask, ask_size = (
                to_units(known[name]) for name in ("bid", "bid_qty", "ask", "ask_qty")
            )
            assert (
                row["best_bid"],
                row["best_bid_size"],
                row["best_ask"],
                row["best_ask_size"],
            ) == (bid, bid_size, ask, ask_size)
            assert row["imbalance_1"] == float(Fraction(bid_size - ask_size, bid_size + ask_size))
            compared += 1
    assert compared == len(truth)


@pytest.mark.parametrize(
    "name",
    ["binance_btcusdt_perp_20240808", "sh600519_20230201_fullday", "glbx_esh4_20231225T2300"],
)
def test_recorded_books_agree_with_the_reference(recordings, name):
    agent = Imbalance(EventTime())
    state = agent.load(0, {})
    before = None
    for book in list(books_of(recordings / f"{name}.jsonl.gz", "S"))[:150]:
        row = dict(zip(NAMES, agent.apply(state, [book])[0][2], strict=True))
        cleaned = reference.side(book.b, bids=True), reference.side(book.a, bids=False)
        expected = reference.depth(*cleaned, before)
        assert {name: row[name] for name in expected} == expected
        before = cleaned


@pytest.mark.parametrize("native", [True, False])
def test_entries_of_the_version_before_are_read_and_written_again(native):
    agent = Imbalance(EventTime(), native=native)
    state = agent.load(3, {})
    book = Book(0, "A", T, in_units(BIDS), in_units(ASKS), "stock", "f", "c1", 1000 * T, "live")
    agent.apply(state, [book])
    entries = dict(agent.dirty(state))
    now = entries[b"book:A"]
    best = [str(to_units(text)) for text in ("100", "1", "101", "5")]
    entries[b"book:A"] = orjson.dumps(["c1", 3, True, best])
    state = agent.load(3, entries)
    assert dict(agent.dirty(state)) == {b"book:A": now}
    assert dict(agent.dirty(state)) == {}
    rows = agent.apply(state, [replace(book, offset=1)])
    assert dict(zip(NAMES, rows[0][2], strict=True))["ofi"] == 0


def test_entries_are_smaller_than_those_of_the_version_before():
    best = (to_units("61800.1"), to_units("2.125"), to_units("61800.2"), to_units("0.5"))
    known = SymbolBook("crypto-1-1722909600000", True, False, best)
    before = orjson.dumps([known.connection, 3, False, [str(units) for units in best]])
    assert unpacked("A", packed(known)) == known
    assert len(packed(known)) < 0.7 * len(before)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("entry", [b"", b"\2\0\0\0", b"\x01"])
def test_an_entry_of_a_newer_version_is_refused(native, entry):
    with pytest.raises(ValueError, match=r"the book of A has the form .* start that one"):
        Imbalance(EventTime(), native=native).load(3, {b"book:A": entry})
