"""Bars against a slow reference in fractions, as properties of any log, and against the exchanges'
own figures."""

import csv
import gzip
from collections import defaultdict
from fractions import Fraction
from itertools import pairwise

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.raw_records import raw_trade

from processors.agents.bars.agent import Bars
from processors.decode.raw_records import trade_of
from processors.model.event_time import EventTime
from processors.model.records import ControlRecord, Trade
from processors.model.trading_days import Session
from schemas.control import Control
from schemas.decimals import UNIT, to_units
from schemas.topics import load_schema

MINUTE, DAY = 60_000, 86_400_000
LENGTHS = {"10s": 10_000, "1m": MINUTE, "5m": 5 * MINUTE, "15m": 15 * MINUTE, "1h": 60 * MINUTE}
T = 19_676 * DAY
BAR = [field["name"] for field in load_schema("bar")["fields"]]
LATE = [field["name"] for field in load_schema("late_trade")["fields"]]
CONTENT = (
    "open",
    "high",
    "low",
    "close",
    "volume",
    "turnover",
    "vwap",
    "buy_volume",
    "sell_volume",
    "trade_count",
    "ts_first",
    "ts_last",
)


class Market:
    """Every day from 01:00 to 07:30 UTC: Shanghai with its auctions."""

    fingerprint = "every day"

    def session_of(self, business, symbol, ts_ms):
        day = ts_ms // DAY
        session = Session(day, day * DAY + 60 * MINUTE, day * DAY + 450 * MINUTE)
        return session if session.start <= ts_ms < session.end else None


def make(intervals=tuple(LENGTHS), update_ms=None, **event_time):
    return Bars(intervals, Market(), EventTime(**event_time), update_ms)


def rows_of(bars, log, cuts=()):
    """Return the rows of a log that is cut into batches, the state restored from its topic before
    each of them."""
    entries, rows = {}, []
    for begin, end in pairwise([0, *cuts, len(log)]):
        state = bars.load(0, entries)
        rows += bars.apply(state, log[begin:end])
        for key, value in bars.dirty(state):
            entries.pop(key, None)
            if value is not None:
                entries[key] = value
    return rows


def final_bars(rows):
    """Return the last record of each bar, after checking that its revisions count up by one and its
    offsets do not go back."""
    found = {}
    for topic, _, fields in rows:
        if topic.startswith("infoway.bars."):
            bar = dict(zip(BAR, fields, strict=True))
            place = (bar["symbol"], bar["interval"], bar["ts_start"])
            before = found.get(place, {"revision": 0, "source_offset": -1})
            assert bar["revision"] == before["revision"] + 1
            assert bar["source_offset"] >= before["source_offset"]
            found[place] = bar
    return found


def content(bars):
    return {place: tuple(bar[name] for name in CONTENT) for place, bar in bars.items()}


def reference(trades, lengths=LENGTHS):
    """Return the content of every bar of these trades (log order), by grouping and sorting them:
    slow and obvious."""
    groups = defaultdict(list)
    for trade in trades:
        for interval, length in lengths.items():
            groups[trade.symbol, interval, trade.ts_event // length * length].append(trade)
    found = {}
    for place, members in groups.items():
        members.sort(key=lambda trade: (trade.ts_event, trade.offset))
        prices = [trade.price for trade in members]
        volume = sum(Fraction(trade.volume, UNIT) for trade in members)
        turnover = sum(
            Fraction(trade.price, UNIT) * Fraction(trade.volume, UNIT) for trade in members
        )
        by_side = [
            sum(trade.volume for trade in members if trade.direction == side) for side in (1, 2)
        ]
        vwap = round(turnover / volume * UNIT) if volume else None
        sums = (round(volume * UNIT), round(turnover * UNIT), vwap, *by_side, len(members))
        found[place] = (
            prices[0],
            max(prices),
            min(prices),
            prices[-1],
            *sums,
            members[0].ts_event,
            members[-1].ts_event,
        )
    return found


def refused(log, delay=2_000, horizon=600_000):
    """Return the offsets of the trades that are too late, by the plain definition: one feed, judged
    by the log before."""
    greatest, found = -(10**18), set()
    for trade in log:
        if trade.ts_event < greatest - delay - horizon:
            found.add(trade.offset)
        greatest = max(greatest, trade.ts_event)
    return found


def trade(
    offset, ts, price, volume, direction, symbol="A", feed="f", connection="c1", repeat=False
):
    return Trade(
        offset,
        symbol,
        T + ts,
        price,
        volume,
        direction,
        None,
        repeat,
        "stock",
        feed,
        connection,
        (T + ts) * 1000 + offset,
        "live",
    )


def control(offset, kind, ts, symbol, feed, connection, ts_from=None):
    return ControlRecord(
        offset,
        symbol,
        Control(kind, feed, "stock", connection, "live", T + ts, (T + ts) * 1000, ts_from),
    )


def end_of(log, symbols):
    """Return the controls that end these symbols on feed f, long after every trade."""
    return [
        control(len(log) + place, "end", 10 * DAY, symbol, "f", "c1")
        for place, symbol in enumerate(symbols)
    ]


numbers = st.integers(1, 5 * UNIT)
trades_of_day = st.lists(
    st.tuples(
        st.integers(0, 2 * 60 * MINUTE),
        numbers,
        st.integers(0, 3 * UNIT),
        st.integers(0, 2),
        st.sampled_from("AB"),
    ),
    min_size=1,
    max_size=60,
)


@st.composite
def logs(draw):
    """Trades in disorder, repeats, marks and controls of three symbols on two feeds with
    reconnects, in log order."""
    log, now = [], 0
    for offset in range(draw(st.integers(1, 70))):
        now += draw(st.sampled_from((0, 7, 900, 20_000, 70_000, 400_000)))
        symbol, feed = draw(st.sampled_from(("Af", "Bf", "Cg", "Cf")))
        connection = draw(st.sampled_from(("c1", "c1", "c1", "c2")))
        kind = draw(
            st.sampled_from(
                ("trade",) * 12 + ("mark", "mark", "begin", "end", "gap", "gap of all", "repeat")
            )
        )
        if kind in ("trade", "repeat"):
            ts = now - draw(st.sampled_from((0, 0, 0, 5_000, 100_000, 590_000, 1_300_000)))
            values = (draw(numbers), draw(st.integers(0, UNIT)), draw(st.integers(0, 2)))
            log.append(
                trade(offset, ts, *values, symbol, feed, connection, repeat=kind == "repeat")
            )
        else:
            since = T + now - draw(st.sampled_from((10, 100_000)))
            whole = kind in ("mark", "gap of all")
            log.append(
                control(
                    offset,
                    kind.split()[0],
                    now,
                    None if whole else symbol,
                    feed,
                    connection,
                    since if kind != "mark" else None,
                )
            )
    return log


@settings(max_examples=80, deadline=None)
@given(logs(), st.data(), st.sampled_from((None, 1_000)))
def test_batches_and_restarts_at_any_record_change_no_row(log, data, update_ms):
    bars = make(("10s", "1m", "5m", "1h", "1d"), update_ms)
    whole = rows_of(bars, log)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(log)))))
    assert rows_of(bars, log, cuts) == whole
    assert rows_of(bars, log, range(1, len(log))) == whole


@settings(max_examples=80, deadline=None)
@given(logs())
def test_revisions_of_any_log_count_up_and_the_volume_of_its_bars_is_that_of_the_trades_taken(log):
    log += [
        control(len(log) + place, "end", 10 * DAY, symbol, feed, "c1")
        for place, (symbol, feed) in enumerate(("Af", "Bf", "Cf", "Cg"))
    ]
    rows = rows_of(make(), log)
    late = {
        fields[LATE.index("source_offset")] for topic, _, fields in rows if topic == "infoway.late"
    }
    taken = [
        record
        for record in log
        if isinstance(record, Trade) and not record.repeat and record.offset not in late
    ]
    found = final_bars(rows)
    assert content(found) == reference(taken)
    assert all(bar["is_closed"] for bar in found.values())


@settings(max_examples=100, deadline=None)
@given(trades_of_day, st.sampled_from((None, 5_000)))
def test_the_last_records_equal_the_reference_and_late_trades_are_those_of_the_definition(
    day, update_ms
):
    log = [trade(offset, *values) for offset, values in enumerate(day)]
    late = refused(log)
    rows = rows_of(make(update_ms=update_ms), log + end_of(log, "AB"))
    assert {
        fields[LATE.index("source_offset")] for topic, _, fields in rows if topic == "infoway.late"
    } == late
    found = final_bars(rows)
    taken = [record for record in log if record.offset not in late]
    assert content(found) == reference(taken)
    assert sum(bar["volume"] for bar in found.values() if bar["interval"] == "1h") == sum(
        record.volume for record in taken
    )
    for bar in found.values():
        assert bar["vwap"] is None or bar["low"] <= bar["vwap"] <= bar["high"]


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_the_order_of_arrival_within_the_horizon_changes_no_final_bar(data):
    times = data.draw(st.lists(st.integers(0, 600_000), min_size=1, max_size=40, unique=True))
    values = [
        (ts, data.draw(numbers), data.draw(st.integers(0, UNIT)), data.draw(st.integers(0, 2)))
        for ts in times
    ]
    contents = []
    for order in (sorted(values), data.draw(st.permutations(values))):
        log = [trade(offset, *value) for offset, value in enumerate(order)]
        contents.append(content(final_bars(rows_of(make(), log + end_of(log, "A")))))
    assert contents[0] == contents[1]


def recorded(path):
    """Return the trades of a recording in its order of arrival."""
    with gzip.open(path) as lines:
        frames = sorted((orjson.loads(line) for line in lines), key=lambda line: line["recv_ms"])
    trades = []
    for frame in frames:
        pushed = frame["frame"]["data"]
        if frame["frame"]["code"] == 10002:
            raw = {
                "symbol": pushed["s"],
                "ts_event": pushed["t"],
                "price": pushed["p"],
                "volume": pushed["v"],
                "direction": pushed["td"],
                "trade_type": None,
                "repeat": False,
                "business": "stock",
                "feed": "f",
                "connection": "c1",
                "ts_recv": frame["recv_ms"] * 1000,
                "source": "replay",
            }
            trades.append(trade_of(len(trades), raw_trade(raw)))
    return trades


def ended(trades):
    last = trades[-1]
    stop = Control("end", "f", "stock", "c1", "replay", last.ts_recv // 1000, last.ts_recv)
    return [*trades, ControlRecord(len(trades), last.symbol, stop)]


def test_one_minute_bars_equal_the_exchanges_klines(recordings):
    trades = recorded(recordings / "binance_btcusdt_perp_20240808.jsonl.gz")
    found = final_bars(
        rows_of(make(("1m", "5m", "15m", "1h", "1d")), ended(trades), range(155, len(trades), 155))
    )
    with (recordings / "truth_binance_btcusdt_perp_1m_klines.csv").open() as lines:
        klines = [line for line in csv.DictReader(lines) if line["complete_in_recording"] == "1"]
    assert len(klines) == 5
    columns = {"open": "open", "high": "high", "low": "low", "close": "close", "volume": "volume"}
    columns |= {"turnover": "quote_volume", "buy_volume": "taker_buy_volume"}
    for kline in klines:
        bar = found["BTCUSDT", "1m", int(kline["open_time_ms"])]
        assert {name: bar[name] for name in columns} == {
            name: to_units(kline[column]) for name, column in columns.items()
        }
        assert bar["trade_count"] == int(kline["count"])
        assert bar["vwap"] == round(
            Fraction(kline["quote_volume"]) / Fraction(kline["volume"]) * UNIT
        )
        assert (bar["is_closed"], bar["revision"], bar["cause"]) == (True, 1, "close")
        # the recorder's clock ran slow: by it the feed ended 1.27 s before the last minute was over
        assert bar["completeness"] == ("partial" if kline is klines[-1] else "complete")


def test_the_day_equals_the_exchanges_last_snapshot(recordings):
    trades = recorded(recordings / "sh600519_20230201_fullday.jsonl.gz")
    found = final_bars(rows_of(make(("1m", "5m", "15m", "1h", "1d")), ended(trades)))
    (day,) = [bar for (_, interval, _), bar in found.items() if interval == "1d"]
    with (recordings / "truth_sh600519_20230201_sse_snapshots.csv").open() as lines:
        *_, last = csv.DictReader(lines)
    columns = {
        "open": "open",
        "high": "high",
        "low": "low",
        "close": "last",
        "volume": "cum_volume",
        "turnover": "cum_turnover",
    }
    assert {name: day[name] for name in columns} == {
        name: to_units(last[column]) for name, column in columns.items()
    }
    assert day["trade_count"] == int(last["trades"])
