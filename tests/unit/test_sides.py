"""Feeds whose sides seem to be the other way round are reported once a connection, and nothing is
swapped."""

import json
import random

import pytest

from processors.model.sessions import _MARKET_OF_BUSINESS
from processors.settings import Settings, SettingsError, swapped_sides
from producers.feed.metrics import FeedCounters
from producers.feed.outputs import Publication
from producers.feed.protocol import FeedProtocol
from producers.feed.settings import FeedSettings
from producers.feed.sides import BOOKS, MOST_CROSSED, Sides
from producers.vendor.pushes import DepthPush
from producers.vendor.symbols import Feed
from schemas.business import BUSINESSES
from schemas.topics import FEED_STATUS

NOW = 1752826113_000_000
PARTITIONS = {"infoway.raw.trade": 6, "infoway.raw.depth": 6, "infoway.raw.kline": 6}
SOUND, CROSSED = (["100.02"], ["1"], ["100"], ["1"]), (["99.90"], ["3"], ["100.10"], ["1"])
SWAPPED = (["100", "99"], ["1", "1"], ["101", "102"], ["1", "1"])


def book_of(symbol, lists):
    return DepthPush(symbol, NOW // 1000, *lists, None)


def looked(sides, *books):
    """What is reported of these books."""
    return [reason for book in books if (reason := sides.look(book_of("A", book)))]


def test_a_feed_that_is_nearly_always_crossed_is_suspect_once_a_connection():
    sides = Sides("stock", swapped=False)
    crossed = [CROSSED] * (MOST_CROSSED + 1)
    (reason,) = looked(sides, *([SOUND] * (BOOKS - len(crossed))), *crossed, *[CROSSED] * 3 * BOOKS)
    assert reason == (
        "books of stock seem to have the bids in list a and the asks in list b: 991 of 1000 "
        "books of one level are crossed; "
        "nothing is swapped by itself: check, and name it in INFOWAY_SWAP_SIDES"
    )
    assert sides.is_suspect


@pytest.mark.parametrize("crossed", [0, 3, 500, MOST_CROSSED])
def test_a_feed_that_is_crossed_for_a_while_is_not(crossed):
    assert not looked(
        Sides("stock", swapped=False),
        *[CROSSED] * crossed,
        *[SOUND] * (BOOKS - crossed),
        *[CROSSED] * (BOOKS - 1),
    )


def test_books_of_every_symbol_count_and_one_sided_ones_do_not():
    sides = Sides("stock", swapped=False)
    found = [
        sides.look(book_of(f"S{number % 7}", CROSSED))
        or sides.look(book_of("B", ([], [], ["1"], ["1"])))
        for number in range(BOOKS)
    ]
    assert len([reason for reason in found if reason]) == 1


def test_levels_without_size_are_none():
    padded = (["99.90", "0"], ["3", "0"], ["100.10", "0"], ["1", "0"])
    assert len(looked(Sides("stock", swapped=False), *[padded] * BOOKS)) == 1


def test_the_order_of_levels_says_at_once_that_sides_are_swapped_and_only_once_a_symbol():
    sides = Sides("stock", swapped=False)
    (reason,) = looked(sides, SWAPPED, SWAPPED, CROSSED)
    assert "the order of its levels says so" in reason
    # with list a for the bids its books are sound
    assert not looked(sides, *[CROSSED] * 2 * BOOKS)
    assert not sides.is_suspect


def test_with_the_sides_swapped_by_a_setting_the_rest_is_suspect():
    assert not looked(Sides("stock", swapped=True), SWAPPED, *[CROSSED] * BOOKS)
    (reason,) = looked(Sides("stock", swapped=True), *[SOUND] * BOOKS)
    assert "leave it out of INFOWAY_SWAP_SIDES" in reason


def test_what_is_found_is_a_status_and_a_count_of_the_feed_and_again_on_the_next_connection():
    feed = Feed("stock-1", "stock", ("A", "B"))
    core = FeedProtocol(
        feed, FeedSettings("live"), PARTITIONS, FeedCounters(feed.name), random.Random(1)
    )

    def statuses(symbol, book, times):
        a, b = book[:2], book[2:]
        frame = json.dumps(
            {"code": 10005, "data": {"s": symbol, "t": NOW // 1000, "a": a, "b": b}}
        ).encode()
        outputs = [output for _ in range(times) for output in core.receive(frame, NOW)]
        return [
            output.record
            for output in outputs
            if isinstance(output, Publication) and output.topic == FEED_STATUS
        ]

    for connection in (1, 2):
        core.connected(NOW)
        (suspect,) = statuses("A", CROSSED, 2 * BOOKS)
        assert suspect[3] == "degraded"
        assert "books of one level are crossed" in suspect[4]
        assert suspect[7] == ["A", "B"]
        (swapped,) = statuses("B", SWAPPED, 2)
        assert (swapped[3], swapped[7]) == ("degraded", ["B"])
        assert (core.counters.suspect_sides, core.counters.swapped_sides) == (
            connection,
            connection,
        )
        core.disconnected(NOW, "lost")


def test_the_setting_names_businesses():
    assert swapped_sides({}) == frozenset()
    assert swapped_sides({"INFOWAY_SWAP_SIDES": " japan, crypto"}) == {"japan", "crypto"}
    with pytest.raises(
        SettingsError, match=r"INFOWAY_SWAP_SIDES names 'coins': choose from stock, crypto"
    ):
        swapped_sides({"INFOWAY_SWAP_SIDES": "japan,coins"})
    cluster = {"INFOWAY_BOOTSTRAP": "b:1", "INFOWAY_REGISTRY": "http://r"}
    assert Settings.from_environment({**cluster, "INFOWAY_SWAP_SIDES": "korea"}).swapped_sides == {
        "korea"
    }
    with pytest.raises(SettingsError, match=r"INFOWAY_EMIT_MS.*INFOWAY_SWAP_SIDES"):
        Settings.from_environment({**cluster, "INFOWAY_EMIT_MS": "x", "INFOWAY_SWAP_SIDES": "x"})


def test_every_business_is_known_to_the_calendars():
    assert set(BUSINESSES) == {"stock", *_MARKET_OF_BUSINESS}
