"""Bars that an outage cut, healed by the vendor's klines: against the bars of the day as it would
have been without the outage."""

import random
from dataclasses import replace

import orjson
import pytest
from unit.bar_log import DAY, HOUR, MINUTE, Run, T, bars_of, path  # noqa: F401

from processors.decode.raw_records import Undecodable, heal_of
from processors.model.records import Heal
from schemas.control import Control
from schemas.decimals import UNIT

NAMES = ("1m", "5m", "15m", "1h", "1d")
LENGTHS = {"1m": MINUTE, "5m": 5 * MINUTE, "15m": 15 * MINUTE, "1h": HOUR}
OPEN = 570 * MINUTE
FIGURES = ("open", "high", "low", "close", "volume", "turnover", "vwap")


def kline_of(trades, start, length):
    """The vendor's bar of [start, start + length) over all trades (ts, price, volume): whole, as
    nobody missed one."""
    inside = sorted(
        (trade for trade in trades if start <= trade[0] < start + length),
        key=lambda trade: trade[0],
    )
    if not inside:
        return None
    prices = [price for _, price, _ in inside]
    return (
        (prices[0], max(prices), min(prices), prices[-1]),
        sum(volume for _, _, volume in inside),
        sum(price * volume for _, price, volume in inside),
    )


def heal(run, kline, start, interval="1m", symbol="A"):
    prices, volume, turnover = kline
    length = LENGTHS[interval]
    units = tuple(price * UNIT for price in prices)
    at = (T + start, T + start + length)
    return run.feed(
        Heal(
            run.offset,
            symbol,
            interval,
            *at,
            units,
            volume * UNIT,
            turnover * UNIT,
            "stock",
            (T + start + DAY) * 1000,
        )
    )


def last_bars(rows):
    return {(row["interval"], row["ts_start"]): row for row in bars_of(rows)}


def play(run, trades, seen, outage):
    """Feed the trades that were seen; the feed was down for the outage, and began again at its
    end."""
    run.control("begin", OPEN - HOUR)
    back = False
    for trade in trades:
        if trade[0] >= outage[1] and not back:
            run.control("begin", outage[1], connection="c2", ts_from=outage[0])
            back = True
        if trade in seen:
            run.trade(*trade, connection="c2" if back else "c1", recv=trade[0])
    if not back:
        run.control("begin", outage[1], connection="c2", ts_from=outage[0])


def minutes(outage):
    return range((outage[0] - 1_000) // MINUTE * MINUTE, -(-outage[1] // MINUTE) * MINUTE, MINUTE)


@pytest.mark.parametrize("update_ms", [None, 1_000])
@pytest.mark.parametrize("seed", range(8))
def test_healed_bars_of_every_interval_are_those_of_the_day_without_the_outage(seed, update_ms):
    chance = random.Random(seed)
    start = OPEN + chance.randrange(100 * MINUTE)
    outage = (start, start + chance.choice((1, 5_000, 90_000, 20 * MINUTE, 70 * MINUTE)))
    times = sorted(
        OPEN + chance.randrange(180 * MINUTE) for _ in range(chance.choice((20, 200, 600)))
    )
    trades = [(time, chance.randint(1, 50), chance.randint(1, 9)) for time in times]
    seen = [trade for trade in trades if not outage[0] <= trade[0] < outage[1]]
    run, whole = Run(NAMES, update_ms), Run(NAMES, update_ms)
    for trade in trades:
        whole.trade(*trade, recv=trade[0])
    heals = [(kline, at) for at in minutes(outage) if (kline := kline_of(trades, at, MINUTE))]
    heals += chance.sample(heals, len(heals) // 2)
    chance.shuffle(heals)
    early = chance.randrange(len(heals) + 1)
    play(run, trades, seen, outage)
    for kline, at in heals[:early]:
        heal(run, kline, at)
        if chance.random() < 0.3:
            run.restart()
    for each in (run, whole):
        # hours later: what waits for its close closes, what can no longer be revised is dropped,
        # but for what can be healed
        each.mark(OPEN + 10 * HOUR)
        each.mark(OPEN + 11 * HOUR)
    for kline, at in heals[early:]:
        heal(run, kline, at)
        if chance.random() < 0.3:
            run.restart()
    found, expected = last_bars(run.rows), last_bars(whole.rows)
    assert found.keys() == expected.keys()
    for key, row in expected.items():
        bar = found[key]
        assert {name: bar[name] for name in FIGURES} == {name: row[name] for name in FIGURES}
        assert bar["is_closed"]
        known = [
            bar[name] is not None
            for name in ("buy_volume", "sell_volume", "trade_count", "ts_first", "ts_last")
        ]
        assert known == [bar["provenance"] == "trades"] * 5
        assert bar["completeness"] == "gap" or bar["provenance"] == "trades"


def cut(names=("1m", "5m"), update_ms=None, back=150_000):
    """A run whose second minute is cut at 90 s, until 150 s; all but the last minutes are
    closed."""
    run = Run(names, update_ms)
    run.control("begin", 0)
    run.trade(1_000, 10, 1)
    run.trade(70_000, 11, 2, direction=1)
    run.mark(90_000)
    run.control("begin", back, connection="c2", ts_from=90_000)
    run.trade(back + 1_000, 12, 1, connection="c2")
    run.mark(400_000)
    return run


def test_a_healed_bar_has_the_klines_figures_and_not_what_a_kline_cannot_know():
    run = cut()
    rows = heal(run, ((11, 15, 9, 14), 20, 250), 60_000)
    minute, five = bars_of(rows)
    assert [minute[name] for name in ("open", "high", "low", "close", "volume", "turnover")] == [
        n * UNIT for n in (11, 15, 9, 14, 20, 250)
    ]
    assert minute["vwap"] == 125 * UNIT // 10
    assert [
        minute[name] for name in ("buy_volume", "sell_volume", "trade_count", "ts_first", "ts_last")
    ] == [None] * 5
    assert (minute["cause"], minute["provenance"], minute["completeness"]) == (
        "healed",
        "klines",
        "gap",
    )
    assert (minute["source"], minute["source_offset"], minute["ts_recv"]) == (
        "live",
        run.offset - 1,
        (T + 60_000 + DAY) * 1000,
    )
    assert (five["cause"], five["provenance"], five["volume"], five["turnover"]) == (
        "healed",
        "mixed",
        22 * UNIT,
        272 * UNIT,
    )
    assert (five["open"], five["close"], five["trade_count"]) == (10 * UNIT, 12 * UNIT, None)
    assert [row["revision"] for row in (minute, five)] == [2, 2]


def test_the_same_kline_again_changes_nothing_and_another_one_corrects():
    run = cut()
    heal(run, ((11, 15, 9, 14), 20, 250), 60_000)
    assert heal(run, ((11, 15, 9, 14), 20, 250), 60_000) == []
    minute, five = bars_of(heal(run, ((11, 15, 9, 14), 21, 260), 60_000))
    assert (minute["volume"], five["volume"], five["turnover"], minute["cause"]) == (
        21 * UNIT,
        23 * UNIT,
        282 * UNIT,
        "healed",
    )


@pytest.mark.parametrize("update_ms", [None, 1_000])
def test_a_late_trade_is_in_the_kline_already(update_ms):
    run = cut(("1m", "5m", "15m"), update_ms)
    heal(run, ((11, 15, 9, 14), 20, 250), 60_000)
    run.trade(410_000, 10, 1, connection="c2")
    assert run.trade(95_000, 99, 7, connection="c2") == []
    # another minute's late trade still revises what the kline made mixed, and its provenance stays
    rows = bars_of(run.trade(2_000, 10, 1, connection="c2"))
    assert [(row["interval"], row["provenance"], row["volume"]) for row in rows] == [
        ("1m", "trades", 2 * UNIT),
        ("5m", "mixed", 23 * UNIT),
    ]
    run.mark(HOUR)
    fifteen = bars_of(run.rows, "15m")[-1]
    assert (fifteen["provenance"], fifteen["volume"], fifteen["high"]) == (
        "mixed",
        24 * UNIT,
        15 * UNIT,
    )


def test_a_kline_of_a_coarser_bar_stands_whatever_heals_its_pieces():
    run = cut(("1m", "5m", "15m"))
    run.mark(HOUR)
    five, fifteen = bars_of(heal(run, ((10, 20, 5, 12), 100, 1_200), 0, "5m"))
    assert (five["provenance"], fifteen["provenance"], fifteen["volume"]) == (
        "klines",
        "mixed",
        100 * UNIT,
    )
    assert [row["interval"] for row in bars_of(heal(run, ((11, 15, 9, 14), 20, 250), 60_000))] == [
        "1m"
    ]


def test_a_bar_that_was_seen_whole_is_not_touched():
    run = cut()
    assert heal(run, ((1, 1, 1, 1), 1, 1), 0) == []
    assert heal(run, ((1, 1, 1, 1), 1, 1), 240_000) == []


def test_a_kline_without_a_trade_makes_no_bar():
    run = cut(back=400_000)
    assert heal(run, ((11, 11, 11, 11), 0, 0), 180_000) == []
    assert [row["interval"] for row in bars_of(heal(run, ((11, 12, 11, 12), 0, 0), 180_000))] == [
        "1m",
        "5m",
    ]


def test_a_bar_that_is_still_open_is_healed_and_published_when_it_closes():
    run = Run(("1m", "5m"))
    run.control("begin", 0)
    run.trade(1_000, 10, 1)
    run.control("begin", 20_000, connection="c2", ts_from=10_000)
    run.trade(21_000, 10, 1, connection="c2")
    assert heal(run, ((10, 10, 10, 10), 5, 50), 0) == []
    assert run.trade(22_000, 10, 1, connection="c2") == []
    (minute,) = bars_of(run.mark(62_000))
    assert (minute["cause"], minute["provenance"], minute["volume"], minute["revision"]) == (
        "healed",
        "klines",
        5 * UNIT,
        1,
    )
    (five,) = bars_of(run.mark(302_000))
    assert (five["cause"], five["provenance"], five["volume"]) == ("close", "mixed", 5 * UNIT)


def test_an_outage_can_be_healed_for_two_days_and_its_bars_are_dropped_then():
    run = cut()
    run.mark(2 * DAY)
    assert [row["interval"] for row in bars_of(heal(run, ((11, 15, 9, 14), 20, 250), 60_000))] == [
        "1m",
        "5m",
    ]
    run.mark(2 * DAY + HOUR)
    assert heal(run, ((11, 15, 9, 14), 21, 250), 60_000) == []
    run.mark(2 * DAY + 2 * HOUR)
    assert not run.kept()


def test_later_revisions_of_a_healed_bar_keep_its_provenance():
    run = cut()
    heal(run, ((11, 15, 9, 14), 20, 250), 60_000)
    run.restart()
    # a symbol that ended and begins again has its bars open again, and they close anew
    rows = bars_of(run.control("gap", 70_000, ts_from=1_000, connection="c2"))
    assert ("1m", 1, "gap", "gap", "trades") in [
        (r["interval"], r["ts_start"] - T == 0, r["cause"], r["completeness"], r["provenance"])
        for r in rows
    ]
    assert {row["provenance"] for row in bars_of(run.rows, "5m")[-1:]} == {"mixed"}


def test_a_heal_moves_no_feed_and_no_clock():
    run = Run()
    run.control("begin", 0)
    run.trade(1_000)
    before = replace(run.state.feeds.feed("f"))
    heal(run, ((1, 1, 1, 1), 1, 1), 10 * HOUR)
    assert run.state.feeds.feed("f") == before
    assert heal(run, ((1, 1, 1, 1), 1, 1), 0, symbol="never seen") == []


def control(**kline):
    given = {
        "interval": "1m",
        "ts_start": T,
        "open": "2",
        "high": "3.5",
        "low": "1",
        "close": "2",
        "volume": "5",
        "turnover": "10",
    }
    text = orjson.dumps({**given, **kline}).decode()
    return Control(
        "heal", "stock-1", "stock", "rest-1", "rest", T + MINUTE, (T + MINUTE) * 1000, kline=text
    )


def test_a_heal_is_read_exactly():
    heal = heal_of(7, "A", control(volume="5.000000000000000001"))
    assert (heal.ts_start, heal.ts_end, heal.volume) == (T, T + MINUTE, 5 * UNIT + 1)
    assert heal.prices == (2 * UNIT, 35 * UNIT // 10, UNIT, 2 * UNIT)


@pytest.mark.parametrize(
    "wrong",
    [
        {"interval": "1d"},
        {"interval": ["1m"]},
        {"ts_start": T + 1},
        {"ts_start": "1"},
        {"open": 2},
        {"open": "4"},
        {"low": "2.5"},
        {"volume": "-1"},
        {"turnover": "NaN"},
        {"close": "1e40"},
        {"high": None},
    ],
)
def test_what_is_no_kline_heals_nothing_and_says_why(wrong):
    with pytest.raises(Undecodable):
        heal_of(7, "A", control(**wrong))


@pytest.mark.parametrize("text", [None, "", "[]", "nonsense", "{}", "1"])
def test_a_heal_without_a_kline_is_refused(text):
    with pytest.raises(Undecodable):
        heal_of(
            7, "A", Control("heal", "stock-1", "stock", "rest-1", "rest", T, T * 1000, kline=text)
        )


def test_a_heal_without_a_key_is_refused():
    with pytest.raises(Undecodable):
        heal_of(7, None, control())
