"""Recordings in seeded disorder: late, too late and dead trades, clock jumps; bars and VWAP against
what the rules say in plain words.

`Disorder` shakes a recording's log and judges each of its records by the definitions of watermark,
lateness and closing, slow and obvious; the rows that the agents give for the same log, cut and
restored at random, are held against it.
"""

import csv
import random
from collections import Counter, defaultdict
from fractions import Fraction
from functools import cache
from itertools import pairwise

import orjson
import pytest
import reference
from unit.raw_records import raw_trade
from unit.test_bars_truth import BAR, LATE, rows_of
from unit.test_vwap import NAMES as VWAP

from processors.agents.bars.agent import Bars
from processors.agents.vwap.agent import Vwap
from processors.decode.raw_records import Undecodable, trade_of
from processors.model.event_time import EventTime
from processors.model.records import ControlRecord, Trade, Unreadable
from processors.model.sessions import Calendars
from producers.recording.reader import read_recordings
from schemas.control import Control
from schemas.decimals import UNIT
from schemas.topics import DEFAULT_INTERVALS, DEFAULT_WINDOWS, load_schema

SECOND, MINUTE = 1_000, 60_000
LENGTHS = {"1m": MINUTE, "5m": 5 * MINUTE, "15m": 15 * MINUTE, "1h": 60 * MINUTE}
DELAY, HORIZON, MAX_FUTURE = 2 * SECOND, 10 * MINUTE, 60 * SECOND
BUSINESS = {
    "binance_btcusdt_perp_20240808": "crypto",
    "sh600519_20230201_fullday": "stock",
    "glbx_esh4_20231225T2300": "common",
}
CLOCK_ERRORS = (
    (0.10, 0.30, -40 * SECOND),
    (0.40, 0.45, -3 * MINUTE),
    (0.66, 0.68, -5 * MINUTE),
    (0.80, 0.90, 3 * MINUTE),
)
"""(from, to, error) of the receiver's clock, from and to as parts of the recording's time."""
JUMPS = 16
"""Trades stamped 20 to 50 s ahead of their neighbours."""
PROGRESS = [field["name"] for field in load_schema("progress")["fields"]]
FIELDS = {"infoway.late": LATE, "infoway.progress": PROGRESS}

in_disorder = pytest.mark.parametrize("name", BUSINESS)
calendars = cache(Calendars)


class Disorder:
    """A recording's log in disorder, what the rules say of it, and what the agents gave; a record's
    offset is its place in `log`."""

    def __init__(self, recordings, name):
        self.chance = random.Random(name)
        self.business = BUSINESS[name]
        self.log = []
        self.sent, self.pushed = {}, {}
        """By offset a trade as the exchange sent it, and as the disorder has it in the log."""
        self.delayed, self.jumped = set(), set()
        self._shake(recordings / f"{name}.jsonl.gz")
        self.late, self.taken = set(), []
        self.watermarks = []
        """By offset the watermark after the record."""
        self.members, self.history = defaultdict(list), defaultdict(list)
        """By (interval, start) the trades of a bar, and its records as (source_offset, cause,
        trade_count)."""
        self._judge()
        event_time = EventTime()
        assert (event_time.watermark_delay_ms, event_time.revision_horizon_ms) == (DELAY, HORIZON)
        rows = rows_of(Bars(DEFAULT_INTERVALS, calendars(), event_time), self.log, self._cuts())
        self.rows = [
            (topic, dict(zip(FIELDS.get(topic, BAR), fields, strict=True)))
            for topic, _, fields in rows
        ]
        self.last = {(bar["interval"], bar["ts_start"]): bar for bar in self.bars()}
        rows = rows_of(Vwap(DEFAULT_WINDOWS, calendars(), event_time), self.log, self._cuts())
        self.vwap = [dict(zip(VWAP, fields, strict=True)) for _, _, fields in rows]

    def bars(self, **wanted):
        """Return the bar records that have these values, in order."""
        return [
            row
            for topic, row in self.rows
            if topic.startswith("infoway.bars.")
            and all(row[name] == wanted[name] for name in wanted)
        ]

    def of(self, topic):
        return [row for found, row in self.rows if found == topic]

    def _cuts(self):
        return sorted(self.chance.sample(range(1, len(self.log)), 40))

    def _delay(self):
        dice = self.chance.random()
        if dice < 0.30:
            return self.chance.randrange(1 * SECOND, 120 * SECOND)
        if dice < 0.32:
            return 20 * MINUTE
        return self.chance.randrange(9 * MINUTE, 11 * MINUTE) if dice < 0.33 else 0

    def _shake(self, path):
        frames = [
            (frame.recv_ms, orjson.loads(frame.frame)) for frame in read_recordings([path]).frames
        ]
        trades = [(received, frame["data"]) for received, frame in frames if frame["code"] == 10002]
        begin, end = trades[0][0], trades[-1][0]
        jumps = set(self.chance.sample(range(len(trades)), JUMPS))
        arrivals = []
        for number, (received, data) in enumerate(trades):
            delay = self._delay()
            jump = self.chance.randrange(20 * SECOND, 50 * SECOND) if number in jumps else 0
            arrivals.append((received + delay, (data, delay, jump)))
        # the trades of 20 min ago come last: marks move event time meanwhile, and the symbol has
        # ended before
        arrivals += [(when, "mark") for when in range(begin, end + 21 * MINUTE, 15 * SECOND)] + [
            (end + 30 * SECOND, "end")
        ]
        for when, what in sorted(arrivals, key=lambda arrival: arrival[0]):
            passed = (when - begin) / (end - begin)
            clock = when + sum(
                error for since, until, error in CLOCK_ERRORS if since <= passed < until
            )
            if isinstance(what, str):
                control = Control(what, "f", self.business, "c", "replay", when, clock * 1000)
                symbol = None if what == "mark" else trades[0][1]["s"]
                self.log.append(ControlRecord(len(self.log), symbol, control))
            else:
                self._push(clock, *what)

    def _push(self, clock, data, delay, jump):
        offset = len(self.log)
        raw = {
            "symbol": data["s"],
            "ts_event": data["t"],
            "price": data["p"],
            "volume": data["v"],
            "direction": data["td"],
        }
        raw |= {
            "trade_type": None,
            "repeat": False,
            "business": self.business,
            "feed": "f",
            "connection": "c",
            "source": "replay",
        }
        self.sent[offset] = raw
        self.pushed[offset] = raw | {"ts_event": data["t"] + jump, "ts_recv": clock * 1000}
        self.delayed |= {offset} if delay else set()
        self.jumped |= {offset} if jump else set()
        try:
            self.log.append(trade_of(offset, raw_trade(self.pushed[offset])))
        except Undecodable as error:
            self.log.append(
                Unreadable(offset, data["s"].encode(), b"", type(error).__name__, str(error))
            )

    def _judge(self):
        greatest, ended, still_open = -(10**18), False, {}
        for record in self.log:
            watermark = greatest - DELAY
            if isinstance(record, ControlRecord):
                ended = ended or record.control.kind == "end"
                if record.control.kind == "mark":
                    greatest = max(greatest, record.control.ts)
            elif isinstance(record, Trade) and record.ts_event < watermark - HORIZON:
                self.late.add(record.offset)
            elif isinstance(record, Trade):
                self.taken.append(record)
                for place, end in self.places(record):
                    self.members[place].append(record)
                    if ended or end <= watermark:
                        self.history[place].append(
                            (record.offset, "late", len(self.members[place]))
                        )
                    else:
                        still_open[place] = end
                greatest = max(greatest, record.ts_event)
            self.watermarks.append(greatest - DELAY)
            for place in [
                place for place, end in still_open.items() if ended or end <= greatest - DELAY
            ]:
                del still_open[place]
                self.history[place].append((record.offset, "close", len(self.members[place])))
        assert not still_open

    def places(self, trade):
        """Yield (interval, start) and end of each bar that the trade belongs to."""
        for interval, length in LENGTHS.items():
            start = trade.ts_event // length * length
            yield (interval, start), start + length
        session = calendars().session_of(self.business, trade.symbol, trade.ts_event)
        if session is not None:
            yield ("1d", session.start), session.end


@cache
def disorder(recordings, name):
    return Disorder(recordings, name)


@in_disorder
def test_of_each_kind_of_disorder_there_is_some(recordings, name):
    case = disorder(recordings, name)
    dead = [record for record in case.log if isinstance(record, Unreadable)]
    assert dead and all("more than 60000 ms ahead" in record.error_text for record in dead)
    assert 0.3 < len(case.delayed) / len(case.sent) < 0.36
    assert len(case.late) > len(case.sent) // 100
    assert (
        {bar["interval"] for bar in case.bars(cause="late")}
        == {*LENGTHS, "1d"}
        == set(DEFAULT_INTERVALS)
    )
    assert (
        case.bars(cause="late", revision=1) or case.business != "stock"
    )  # the futures trade all the time: none of their bars begins late
    assert case.jumped & {bar["source_offset"] for bar in case.bars(cause="close")}
    receipts = [trade.ts_recv for trade in case.taken]
    assert any(later < earlier - 100 * SECOND * 1000 for earlier, later in pairwise(receipts))
    within = [case.watermarks[trade.offset - 1] - trade.ts_event for trade in case.taken]
    assert max(within) > 9 * MINUTE


@in_disorder
def test_every_trade_is_counted_once_or_late_or_dead_and_by_both_agents_alike(recordings, name):
    case = disorder(recordings, name)
    taken = {trade.offset for trade in case.taken}
    dead = {record.offset for record in case.log if isinstance(record, Unreadable)}
    assert dead == {
        offset
        for offset, raw in case.pushed.items()
        if raw["ts_event"] > raw["ts_recv"] // 1000 + MAX_FUTURE
    }
    assert sorted([*taken, *dead, *case.late]) == sorted(case.sent)
    assert [row["source_offset"] for row in case.of("infoway.late")] == sorted(case.late)
    for row in case.of("infoway.late"):
        trade, watermark = case.log[row["source_offset"]], case.watermarks[row["source_offset"] - 1]
        assert (row["ts_event"], row["price"], row["volume"], row["ts_recv"]) == (
            trade.ts_event,
            trade.price,
            trade.volume,
            trade.ts_recv,
        )
        assert (row["ts_watermark"], row["late_ms"]) == (watermark, watermark - trade.ts_event)
    in_session = {
        trade.offset
        for place, members in case.members.items()
        if place[0] == "1d"
        for trade in members
    }
    counts = Counter()
    for (interval, _), bar in case.last.items():
        counts[interval] += bar["trade_count"]
    assert counts == dict.fromkeys(LENGTHS, len(taken)) | {"1d": len(in_session)}
    rows = Counter((row["window"], row["source_offset"]) for row in case.vwap)
    assert rows == Counter(
        (window, offset)
        for window in DEFAULT_WINDOWS
        for offset in (in_session if window == "session" else taken)
    )


@in_disorder
def test_the_last_record_of_each_bar_equals_the_reference_over_the_trades_taken(recordings, name):
    case = disorder(recordings, name)
    assert set(case.last) == set(case.members)
    for place, bar in case.last.items():
        trades, cause = case.members[place], case.log[bar["source_offset"]]
        expected = reference.bar(trades)
        assert {field: bar[field] for field in expected} == expected
        received = cause.control.ts_recv if isinstance(cause, ControlRecord) else cause.ts_recv
        assert bar["ts_recv"] == max(received, *(trade.ts_recv for trade in trades))


@in_disorder
def test_revisions_follow_each_other_and_each_has_its_cause(recordings, name):
    case = disorder(recordings, name)
    found = defaultdict(list)
    for bar in case.bars():
        history = found[bar["interval"], bar["ts_start"]]
        history.append((bar["source_offset"], bar["cause"], bar["trade_count"]))
        assert (bar["revision"], bar["is_closed"]) == (len(history), True)
    assert found == case.history


@in_disorder
def test_no_bar_comes_after_the_progress_that_vouches_for_it(recordings, name):
    case = disorder(recordings, name)
    done, unvouched = -(10**18), set()
    for topic, row in case.rows:
        if topic == "infoway.progress":
            assert row["ts_watermark"] == case.watermarks[row["source_offset"]] >= done
            done = row["ts_watermark"]
            unvouched.discard(row["source_offset"])
        elif topic.startswith("infoway.bars.") and row["revision"] == 1 and row["cause"] == "close":
            assert row["ts_end"] > done
            unvouched.add(row["source_offset"])
    assert not unvouched
    assert done >= max(bar["ts_end"] for bar in case.bars(interval="1m"))


def test_btcusdt_minutes_are_the_exchanges_klines_less_the_trades_refused(recordings):
    case = disorder(recordings, "binance_btcusdt_perp_20240808")
    exact, missing = 0, 0
    with (recordings / "truth_binance_btcusdt_perp_1m_klines.csv").open() as lines:
        klines = [kline for kline in csv.DictReader(lines) if kline["complete_in_recording"] == "1"]
    assert len(klines) == 5
    for kline in klines:
        start = int(kline["open_time_ms"])
        bar = case.last["1m", start]
        ours = {trade.offset for trade in case.members["1m", start]}
        theirs = {
            offset
            for offset, raw in case.sent.items()
            if raw["ts_event"] // MINUTE * MINUTE == start
        }
        gone, come = theirs - ours, ours - theirs
        missing += len(gone)
        assert all(
            offset in case.late or offset in case.jumped or isinstance(case.log[offset], Unreadable)
            for offset in gone
        )
        assert come <= case.jumped
        expected = [
            Fraction(kline[column])
            for column in ("volume", "quote_volume", "count", "taker_buy_volume")
        ]
        for sign, offsets in ((-1, gone), (1, come)):
            for raw in (case.sent[offset] for offset in offsets):
                price, volume = Fraction(raw["price"]), Fraction(raw["volume"])
                changes = (volume, price * volume, 1, volume if raw["direction"] == 1 else 0)
                expected = [
                    figure + sign * change for figure, change in zip(expected, changes, strict=True)
                ]
        assert [Fraction(bar[field], UNIT) for field in ("volume", "turnover")] == expected[:2]
        assert (bar["trade_count"], Fraction(bar["buy_volume"], UNIT)) == tuple(expected[2:])

        moved = gone | come | case.delayed | case.jumped
        first, last = (
            edge(case.sent[offset]["ts_event"] for offset in theirs) for edge in (min, max)
        )
        edges = {"open": {offset for offset in theirs if case.sent[offset]["ts_event"] == first}}
        edges["close"] = {offset for offset in theirs if case.sent[offset]["ts_event"] == last}
        for field in ("high", "low"):
            edges[field] = {
                offset
                for offset in theirs
                if Fraction(case.sent[offset]["price"]) == Fraction(kline[field])
            }
        for field, holders in edges.items():
            kept = holders - gone if field in ("high", "low") else not holders & moved
            if kept and not come:
                assert Fraction(bar[field], UNIT) == Fraction(kline[field])
                exact += 1
    assert missing > 300
    assert exact >= 10


def test_the_day_of_600519_is_the_exchanges_less_the_trades_refused(recordings):
    case = disorder(recordings, "sh600519_20230201_fullday")
    (day,) = [bar for (interval, _), bar in case.last.items() if interval == "1d"]
    with (recordings / "truth_sh600519_20230201_sse_snapshots.csv").open() as lines:
        *_, truth = csv.DictReader(lines)
    refused = [
        case.sent[offset] for offset in case.sent.keys() - {trade.offset for trade in case.taken}
    ]
    volume = Fraction(truth["cum_volume"]) - sum(Fraction(raw["volume"]) for raw in refused)
    turnover = Fraction(truth["cum_turnover"]) - sum(
        Fraction(raw["price"]) * Fraction(raw["volume"]) for raw in refused
    )
    session = [row for row in case.vwap if row["window"] == "session"][-1]
    for row in (day, session):
        assert (Fraction(row["volume"], UNIT), Fraction(row["turnover"], UNIT)) == (
            volume,
            turnover,
        )
        assert row["trade_count"] == int(truth["trades"]) - len(refused)
    assert len(refused) > 500
