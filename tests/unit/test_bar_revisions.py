"""Bars after their close: late trades, ends, gaps, symbols that move; and how far a feed is told to
be done."""

from unit.bar_log import HOUR, MINUTE, Run, T, bars_of, shown

from schemas.decimals import UNIT


def test_late_trade_revises_closed_bar():
    run = Run()
    run.trade(1_000, 10)
    run.trade(3_000, 11)
    run.mark(100_000)
    assert shown(run.trade(500, 12)) == [("1m", 0, 2, "late", 3)]
    row = bars_of(run.rows)[-1]
    assert (row["is_closed"], row["open"], row["close"], row["source_offset"]) == (
        True,
        12 * UNIT,
        11 * UNIT,
        3,
    )
    assert shown(run.trade(600, 13)) == [("1m", 0, 3, "late", 4)]


def test_late_trade_makes_the_bar_that_never_was():
    run = Run()
    run.mark(62_000)
    assert shown(run.trade(1_000)) == [("1m", 0, 1, "late", 1)]


def test_late_trade_revises_the_closed_levels_and_is_folded_into_the_open_one():
    run = Run(("1m", "5m", "15m"))
    run.trade(1_000)
    run.mark(310_000)
    assert shown(run.trade(2_000)) == [("1m", 0, 2, "late", 2), ("5m", 0, 2, "late", 2)]
    assert shown(run.trade(61_000)) == [("1m", 1, 1, "late", 1), ("5m", 0, 3, "late", 3)]
    (row,) = bars_of(run.mark(902_000), "15m")
    assert (row["trade_count"], row["revision"], row["cause"]) == (3, 1, "close")


def test_too_late_trade_goes_to_late_and_into_no_bar():
    run = Run(watermark_delay_ms=2_000, revision_horizon_ms=60_000)
    run.trade(1_000)
    run.mark(200_000)
    rows = run.trade(137_999, 10, 3, 2)
    ((topic, row),) = rows
    assert topic == "late"
    assert (row["ts_event"], row["ts_watermark"], row["late_ms"]) == (
        T + 137_999,
        T + 198_000,
        60_001,
    )
    assert (row["turnover"], row["direction"], row["feed"]) == (30 * UNIT, 2, "f")
    assert shown(run.trade(138_000)) == [("1m", 2, 1, "late", 1)]


def test_a_repeat_is_counted_nowhere():
    run = Run()
    run.trade(1_000)
    assert run.trade(1_000, repeat=True) == []
    assert run.trade(-10 * HOUR, repeat=True) == []
    assert bars_of(run.mark(62_000))[0]["trade_count"] == 1


def test_an_end_closes_all_open_bars_of_its_symbol_at_once():
    run = Run(("1m", "5m"))
    run.control("begin", 0)
    run.trade(1_000)
    run.trade(61_000)
    run.trade(61_000, symbol="B")
    rows = run.control("end", 70_000)
    assert shown(rows) == [
        ("1m", 0, 1, "close", 1),
        ("1m", 1, 1, "close", 1),
        ("5m", 0, 1, "close", 2),
    ]
    assert [row["completeness"] for row in bars_of(rows)] == ["complete", "partial", "partial"]
    assert {row["symbol"] for row in bars_of(rows)} == {"A"}
    assert shown(run.trade(62_000)) == [("1m", 1, 2, "late", 2), ("5m", 0, 2, "late", 3)], (
        "after the end all of its bars are closed"
    )


def test_an_end_closes_bars_in_the_order_of_their_ends():
    run = Run(("1m", "5m"))
    run.trade(299_500)
    run.trade(300_500)
    assert [row[:2] for row in shown(run.control("end", 301_000))] == [
        ("1m", 4),
        ("5m", 0),
        ("1m", 5),
        ("5m", 5),
    ]


def test_a_bar_that_an_end_closed_is_open_again_when_the_symbol_begins_before_it_is_over():
    run = Run(("1m", "5m"))
    run.control("begin", 0)
    run.trade(61_000)
    run.control("end", 70_000)
    run.restart()
    assert bars_of(run.control("begin", 80_000, connection="c2")) == []
    run.trade(90_000, connection="c2")
    run.trade(130_000, connection="c2")
    assert shown(run.rows) == [
        ("1m", 1, 1, "close", 1),
        ("5m", 0, 1, "close", 1),
        ("1m", 1, 2, "close", 2),
    ]
    rows = bars_of(run.mark(302_000))
    assert shown(run.rows)[-2:] == [("1m", 2, 1, "close", 1), ("5m", 0, 2, "close", 3)]
    assert [row["completeness"] for row in rows] == ["complete", "partial"]


def test_a_gap_that_becomes_known_after_the_close_revises_the_bars_that_it_touches():
    run = Run(("1m", "5m"))
    run.control("begin", 0)
    for minute in range(5):
        run.trade(minute * MINUTE + 1_000)
    run.mark(190_000)
    assert shown(run.control("gap", 130_000, ts_from=70_000)) == [
        ("1m", 1, 2, "gap", 1),
        ("1m", 2, 2, "gap", 1),
    ]
    assert bars_of(run.control("gap", 130_000, ts_from=70_000)) == [], (
        "what is known already revises nothing"
    )
    rows = bars_of(run.mark(400_000))
    assert [(row["interval"], row["completeness"], row["revision"]) for row in rows] == [
        ("1m", "complete", 1),
        ("1m", "complete", 1),
        ("5m", "gap", 1),
    ]


def test_a_reconnect_marks_the_open_bar_and_revises_the_closed_one():
    run = Run(feed_latency_ms=1_000)
    run.control("begin", 0)
    run.trade(1_000, recv=T + 1_000)
    run.mark(60_500)
    run.trade(62_000, recv=T + 60_500)
    assert shown(run.control("begin", 100_000, connection="c2")) == [("1m", 0, 2, "gap", 1)]
    assert bars_of(run.mark(130_000))[0]["completeness"] == "gap"


def test_a_bar_is_partial_where_its_feed_began_inside():
    run = Run()
    run.control("begin", 30_000)
    run.trade(40_000)
    run.trade(70_000)
    assert [row["completeness"] for row in bars_of(run.mark(130_000))] == ["complete"]
    assert [row["completeness"] for row in bars_of(run.rows)] == ["partial", "complete"]


def test_bars_follow_their_symbol_to_another_feed():
    run = Run()
    run.control("begin", 0)
    run.trade(1_000)
    run.control("begin", 0, symbol="B", feed="g", connection="d")
    run.trade(20_000, symbol="B", feed="g", connection="d")
    assert bars_of(run.control("begin", 30_000, feed="g", connection="d")) == []
    assert bars_of(run.mark(90_000, feed="f")) == []
    run.restart()
    assert [row["symbol"] for row in bars_of(run.mark(62_000, feed="g"))] == ["A", "B"]


def test_moving_to_a_feed_that_is_further_on_closes_what_is_over_there():
    run = Run()
    run.trade(1_000)
    run.mark(200_000, feed="g")
    assert shown(run.control("begin", 30_000, feed="g")) == [("1m", 0, 1, "close", 1)]


def test_progress_comes_after_the_closes_when_the_watermark_crosses_the_finest_intervals_end():
    run = Run(("1m", "5m"))
    run.trade(3_000)
    assert run.trade(61_999) == []
    rows = run.trade(62_000)
    assert [topic for topic, _ in rows] == ["bars.1m", "progress"]
    assert rows[-1][1] == {
        "partition": 3,
        "feed": "f",
        "ts_watermark": T + 60_000,
        "source_offset": 2,
    }
    assert run.trade(121_999) == []
    run.restart()
    assert run.trade(121_999) == []
    assert [topic for topic, _ in run.mark(122_000)] == ["bars.1m", "progress"]


def test_progress_is_told_at_an_end():
    run = Run()
    run.trade(1_000)
    rows = run.control("end", 2_000)
    assert [topic for topic, _ in rows] == ["bars.1m", "progress"]
    assert rows[-1][1]["ts_watermark"] == T - 1_000
