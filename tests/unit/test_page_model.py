"""What the live page knows: the newest of everything, bars by the contract, and nothing that
grows."""

import asyncio

import pytest
from page_records import MINUTE, bar, imbalance, status, vwap

from infra.page.clients import BadRequest, ClientView, wanted_of
from infra.page.follow import Told
from infra.page.market import MOST_SERIES, Market
from infra.page.recent import Recent
from infra.page.rows import WatchRows, change_percent
from infra.page.series import MOST_BARS, MOST_POINTS, Series
from schemas.decimals import to_units
from schemas.topics import Topology

INTERVALS = ("1m", "5m")


def series():
    return Series("BTCUSDT", "1m", ("1m", "session"))


def shown(found):
    return {each["ts_start"]: each for each in found.since(0)["bars"]}


def test_changes_since_a_version_are_the_newest_of_each_key():
    recent = Recent()
    for version in range(1, 1_000):
        recent.put("a", version, version)
    recent.put("b", "b", 1_000)
    assert recent.since(0) == [999, "b"]
    assert recent.since(999) == ["b"]
    assert recent.since(1_000) == []
    assert len(recent) == 2
    recent.put("a", "again", 1_001)
    assert recent.since(1_000) == ["again"]
    assert recent.since(0) == ["b", "again"]


def test_a_bar_has_every_digit_of_its_record():
    found = series()
    found.take("infoway.bars.1m", bar(), 1)
    (only,) = shown(found).values()
    assert only["vwap"] == "100.500000000000000001"
    assert only["volume"] == "12.5"
    assert only["no_side_volume"] == "1"


def test_the_bar_is_its_record_of_the_greatest_source_offset():
    found = series()
    found.take("infoway.bars.1m", bar(offset=9, revision=2, cause="late", close="102"), 1)
    found.take("infoway.bars.1m", bar(offset=5), 2)
    (only,) = shown(found).values()
    assert (only["revision"], only["close"]) == (2, "102")
    assert [each["cause"] for each in only["revisions"]] == ["close", "late"]


def test_what_was_read_of_the_past_changes_no_newer_bar():
    past, now = series(), series()
    past.take("infoway.bars.1m", bar(offset=1), 1)
    past.take("infoway.bars.1m", bar(start=MINUTE, offset=2), 1)
    now.take("infoway.bars.1m", bar(start=MINUTE, offset=7, revision=2, cause="healed"), 1)
    now.merge(past, 2)
    assert {start: each["cause"] for start, each in shown(now).items()} == {
        0: "close",
        MINUTE: "healed",
    }


def test_updates_of_an_open_bar_are_no_revisions_to_tell():
    found = series()
    for number in range(1, 60):
        open_bar = bar(offset=number, revision=number, cause="update", is_closed=False)
        found.take("infoway.bars.1m", open_bar, number)
    found.take("infoway.bars.1m", bar(offset=60, revision=60), 60)
    (only,) = shown(found).values()
    assert [each["revision"] for each in only["revisions"]] == [60]


def test_a_series_keeps_the_newest_bars_and_points_alone():
    found = series()
    for number in range(3 * MOST_POINTS):
        found.take("infoway.bars.1m", bar(start=number * MINUTE, offset=number), 1)
        found.take("infoway.vwap.1m", vwap(ts=number * MINUTE), 1)
        found.take("infoway.depth.imbalance", imbalance(ts=number * MINUTE), 1)
    assert len(found.bars) == MOST_BARS
    assert min(found.bars) == (3 * MOST_POINTS - MOST_BARS) * MINUTE
    assert len(found.vwaps["1m"]) == len(found.imbalance) == MOST_POINTS


def test_a_line_has_the_last_record_of_each_part_of_a_bar():
    found = series()
    for ts in (100, 14_000, 2_000, 15_001):
        found.take("infoway.vwap.1m", vwap(ts=ts, value=str(ts)), 1)
    assert [point[1:3] for point in found.since(0)["vwaps"]["1m"]] == [
        [14_000, "14000"],
        [15_001, "15001"],
    ]


def test_change_is_exact_and_rounded_once():
    assert change_percent(to_units("100.005"), to_units("100")) == "0"
    assert change_percent(to_units("100.015"), to_units("100")) == "0.02"
    assert change_percent(to_units("95"), to_units("100")) == "-5"
    assert change_percent(1, 0) is None


def raw_trade(price, ts):
    return {"symbol": "BTCUSDT", "price": price, "ts_event": ts, "source": "simulated"}


def test_change_is_against_the_session_before_the_newest_trade():
    rows = WatchRows("1m")
    day = 86_400_000
    rows.take("infoway.bars.1d", bar(interval="1d", length=day, close="50"), 0, 1)
    rows.take("infoway.raw.trade", raw_trade("55", day + 5), 0, 2)
    assert rows.since(0)[0]["change"] == "10"
    # its own session has closed: yesterday's close stays what it is compared with
    rows.take("infoway.bars.1d", bar(interval="1d", start=day, length=day, close="55"), 0, 3)
    assert rows.since(0)[0]["change"] == "10"
    rows.take("infoway.raw.trade", raw_trade("66", 2 * day + 5), 0, 4)
    assert rows.since(0)[0]["change"] == "20"


def test_a_late_trade_is_not_the_last_price():
    rows = WatchRows("1m")
    rows.take("infoway.raw.trade", raw_trade("100", 2_000), 0, 1)
    rows.take("infoway.raw.trade", raw_trade("90", 1_000), 0, 2)
    assert rows.since(0)[0]["last"] == "100"


def test_the_state_of_a_feed_is_that_of_its_symbols():
    rows = WatchRows("1m")
    rows.take("infoway.depth.imbalance", imbalance(), 0, 1)
    rows.take("infoway.feed.status", status("down"), 0, 2)
    assert [(row["feed"], row["state"]) for row in rows.since(1)] == [("crypto-1", "down")]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"show": 1}',
        '{"show": {"symbol": "A"}}',
        '{"show": {"symbol": "", "interval": "1m"}}',
        '{"show": {"symbol": 5, "interval": "1m"}}',
        '{"show": {"symbol": "A", "interval": "../../etc"}}',
        '{"show": {"symbol": "A", "interval": ["1m"]}}',
        '{"show": {"symbol": "A", "interval": "1m", "more": 1}}',
        '{"show": null, "more": 1}',
        '{"show": {"symbol": "%s", "interval": "1m"}}' % ("A" * 1_001),
        "[" * 4_000,
    ],
)
def test_a_message_that_is_none_is_refused(text):
    with pytest.raises(BadRequest):
        wanted_of(text, INTERVALS)


def test_a_message_names_what_is_shown():
    assert wanted_of('{"show": {"symbol": "<b>", "interval": "5m"}}', INTERVALS) == ClientView(
        "<b>", "5m"
    )
    assert wanted_of('{"show": null}', INTERVALS) is None


def test_only_so_many_series_are_kept():
    async def ask():
        market = Market(
            Topology("", ("1m",), ("1m",)),
            lambda symbol, interval, lines: Series(symbol, interval, ()),
        )
        for number in range(MOST_SERIES + 5):
            market.series(f"S{number}", "1m")
        market.take([Told("infoway.bars.1m", bar(f"S{MOST_SERIES}"), 1)])
        market.take([Told("infoway.bars.1m", bar("S0"), 1)])
        kept = len(market._series), "S0" in market._of_symbol
        newest = market.series(f"S{MOST_SERIES}", "1m")
        await market.close()
        return kept, len(newest.bars)

    assert asyncio.run(ask()) == ((MOST_SERIES, False), 1)


def test_what_nobody_looks_at_any_more_is_not_read():
    read = []

    def past(symbol, interval, lines):
        read.append((symbol, lines))
        return Series(symbol, interval, ("1m",))

    async def leave():
        market = Market(Topology("", ("1m",), ("1m",)), past)
        first = market.series("LEFT", "1m")
        first.asked_at -= 60
        kept = market.series("KEPT", "1m")
        await asyncio.gather(*market._loading)
        again = market.series("LEFT", "1m")
        await asyncio.gather(*market._loading)
        await market.close()
        return first.loaded, kept.loaded, again.loaded

    assert asyncio.run(leave()) == (False, True, True)
    assert read == [("KEPT", False), ("KEPT", True), ("LEFT", False), ("LEFT", True)]
