"""The vendor's klines beside our bars: what is equal, what differs, and what cannot be compared and
why."""

import csv
import random
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from operator import itemgetter
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from unit.raw_records import bar_record, raw_kline
from unit.test_bars_truth import ended, make, recorded, rows_of

from processors.agents.reconciliation.agent import UNPAIRED, WAIT_MS, Reconciliation
from processors.agents.reconciliation.figures import (
    Circumstances,
    Figures,
    compare,
    session_of_day,
    touches_auction,
)
from processors.decode.raw_records import Undecodable, bar_revision_of, kline_of
from processors.kernels.compiled import AVAILABLE
from processors.model.event_time import EventTime
from processors.model.records import BarRevision, ControlRecord, Kline, SourcesMixed
from processors.model.sessions import Calendars
from schemas.control import Control
from schemas.decimals import UNIT, to_units
from schemas.topics import load_schema
from schemas.wire import compile_encoder

MINUTE = 60_000
T = 1_723_161_300_000  # 2024-08-08 23:55 UTC
CALENDARS = Calendars()
SCHEMA = load_schema("reconciliation")
FIELDS = [field["name"] for field in SCHEMA["fields"]]
HEALTHY = Circumstances(healthy=True, auctions=False, session=False)


def figures(price=10, volume=5, turnover=50):
    return Figures(*(price * UNIT,) * 4, volume * UNIT, turnover * UNIT)


@pytest.mark.parametrize(
    ("ours", "theirs", "market", "verdict"),
    [
        (figures(), figures(), HEALTHY, ("equal", None)),
        (figures(), figures(), replace(HEALTHY, healthy=False, auctions=True), ("equal", None)),
        (figures(), figures(price=11), HEALTHY, ("differs", None)),
        (figures(volume=4, turnover=40), figures(), HEALTHY, ("differs", None)),
        (
            figures(volume=4, turnover=40),
            figures(),
            replace(HEALTHY, healthy=False),
            ("not_comparable", "gap"),
        ),
        (
            figures(volume=4, turnover=40),
            figures(),
            replace(HEALTHY, auctions=True),
            ("not_comparable", "auction"),
        ),
        (figures(volume=500), figures(volume=5), HEALTHY, ("not_comparable", "unit")),
        (figures(volume=5), figures(volume=500), HEALTHY, ("not_comparable", "unit")),
        # half of the trades are missing: half of the turnover too, so it is no matter of units
        (
            figures(volume=5, turnover=50),
            figures(volume=10, turnover=100),
            HEALTHY,
            ("differs", None),
        ),
        (figures(volume=6), figures(volume=5), HEALTHY, ("differs", None)),
        (figures(volume=0), figures(volume=5), HEALTHY, ("differs", None)),
        (None, figures(), HEALTHY, ("differs", None)),
        (None, figures(volume=0, turnover=0), replace(HEALTHY, healthy=False), ("equal", None)),
        (None, figures(), replace(HEALTHY, healthy=False), ("not_comparable", "gap")),
        (None, figures(), replace(HEALTHY, expired=True), ("not_comparable", "expired")),
        (figures(), None, HEALTHY, ("differs", None)),
        (figures(), None, replace(HEALTHY, healthy=False), ("not_comparable", "gap")),
        # a session without its auctions has less than ours, never more
        (
            figures(volume=9, turnover=90),
            figures(),
            replace(HEALTHY, auctions=True, session=True),
            ("not_comparable", "auction"),
        ),
        (
            figures(volume=4, turnover=40),
            figures(),
            replace(HEALTHY, auctions=True, session=True),
            ("differs", None),
        ),
        (None, figures(), replace(HEALTHY, auctions=True, session=True), ("differs", None)),
    ],
)
def test_a_bar_and_a_kline_are_judged(ours, theirs, market, verdict):
    assert compare(ours, theirs, UNIT // 1000, market) == verdict


def test_turnover_is_equal_to_the_last_digit_that_the_vendor_wrote():
    ours = Figures(*(UNIT,) * 4, UNIT, to_units("12.3456"))
    for text, step, status in (
        ("12.345", "0.001", "equal"),
        ("12.346", "0.001", "equal"),
        ("12.347", "0.001", "differs"),
    ):
        assert (
            compare(ours, replace(ours, turnover=to_units(text)), to_units(step), HEALTHY)[0]
            == status
        )
    raw = {
        "turnover": "12.345",
        "volume": "1",
        **dict.fromkeys(("open", "high", "low", "close"), "1"),
    }
    raw |= {
        "symbol": "A",
        "interval": "1m",
        "ts_start": T,
        "business": "crypto",
        "feed": "f",
        "connection": "c",
        "ts_recv": T * 1000,
        "source": "live",
    }
    assert kline_of(0, raw_kline(raw)).turnover_step == to_units("0.001")
    assert kline_of(0, raw_kline(raw | {"turnover": "12"})).turnover_step == UNIT
    with pytest.raises(Undecodable, match="nan"):
        kline_of(0, raw_kline(raw | {"volume": "nan"}))


def at(zone, text):
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()) * 1000


@pytest.mark.parametrize(
    ("business", "symbol", "zone", "day", "clean", "touched"),
    [
        (
            "stock",
            "00700.HK",
            "Asia/Hong_Kong",
            "2024-08-08",
            ("09:31", "11:58", "15:58"),
            ("09:20", "09:30", "11:59", "12:00", "13:00", "15:59"),
        ),
        (
            "stock",
            "600519.SH",
            "Asia/Shanghai",
            "2024-08-08",
            ("09:31", "14:55"),
            ("09:25", "09:30", "14:56", "14:57", "14:59", "15:00"),
        ),
        (
            "stock",
            "AAPL.US",
            "America/New_York",
            "2024-07-03",
            ("09:31", "12:58"),
            ("09:30", "12:59", "13:00"),
        ),
        (
            "korea",
            "005930.KS",
            "Asia/Seoul",
            "2024-08-08",
            ("09:01", "15:18"),
            ("09:00", "15:20", "15:30"),
        ),
        ("crypto", "BTCUSDT", "UTC", "2024-08-08", ("00:00", "23:59"), ()),
        ("common", "USDJPY", "America/New_York", "2024-08-08", ("16:59", "17:00"), ()),
    ],
)
def test_a_bar_inside_of_continuous_trading_has_no_auction(
    business, symbol, zone, day, clean, touched
):
    for clock, expected in [(clock, False) for clock in clean] + [
        (clock, True) for clock in touched
    ]:
        start = at(zone, f"{day}T{clock}")
        session = CALENDARS.session_of(business, symbol, start)
        assert session is not None
        assert touches_auction(session, start, start + MINUTE) is expected, clock


@pytest.mark.parametrize(
    ("business", "symbol", "starts", "trade_date"),
    [
        (
            "stock",
            "00700.HK",
            ("2024-08-07T16:00", "2024-08-08T00:00", "2024-08-08T01:00", "2024-08-08T01:30"),
            "2024-08-08",
        ),
        (
            "stock",
            "AAPL.US",
            ("2024-08-08T00:00", "2024-08-08T04:00", "2024-08-08T13:30"),
            "2024-08-08",
        ),
        ("japan", "7203.JP", ("2024-08-07T15:00", "2024-08-08T00:00"), "2024-08-08"),
        (
            "india",
            "TCS.IN",
            ("2024-08-07T18:30", "2024-08-08T00:00", "2024-08-08T03:45"),
            "2024-08-08",
        ),
        ("crypto", "BTCUSDT", ("2024-08-08T00:00",), "2024-08-08"),
        ("common", "USDJPY", ("2024-08-07T21:00",), "2024-08-08"),
        ("stock", "00700.HK", ("2024-08-11T16:00", "2024-08-12T00:00"), "2024-08-12"),
        ("crypto", "BTCUSDT", ("2024-08-08T08:00",), None),
        ("common", "USDJPY", ("2024-08-08T00:00",), None),
        ("stock", "00700.HK", ("2024-08-08T05:00", "2024-08-10T00:00", "2024-08-11T00:00"), None),
    ],
)
def test_a_daily_kline_is_that_of_the_session_which_its_start_names(
    business, symbol, starts, trade_date
):
    for text in starts:
        session = session_of_day(CALENDARS, business, symbol, at("UTC", text))
        assert (
            session and datetime.fromtimestamp(session.trade_date * 86_400, UTC).date().isoformat()
        ) == trade_date, text


ENCODE = compile_encoder(SCHEMA, 1)


class Log:
    """One partition of the klines and of the bar topics, and what the agent says of them."""

    def __init__(
        self,
        intervals=("1m", "5m", "1h", "1d"),
        symbol="BTCUSDT",
        business="crypto",
        native=AVAILABLE,
    ):
        self.agent = Reconciliation(intervals, CALENDARS, EventTime(), native)
        self.state = self.agent.load(2, {})
        self.entries = {}
        self.offset = 0
        self.symbol, self.business = symbol, business
        self.begin(T - 10 * MINUTE)

    def take(self, record):
        rows = self.agent.apply(self.state, [record])
        for topic, key, row in rows:
            ENCODE(*row)
            assert (topic, key) == ("infoway.reconciliation", self.symbol)
        return [dict(zip(FIELDS, row, strict=True)) for _, _, row in rows]

    def restart(self):
        for key, value in self.agent.dirty(self.state):
            self.entries.pop(key, None)
            if value is not None:
                self.entries[key] = value
        self.state = self.agent.load(2, self.entries)

    def begin(self, ts, connection="c1", ts_from=None, kind="begin"):
        control = Control(kind, "f", self.business, connection, "live", ts, ts * 1000, ts_from)
        return self.take(ControlRecord(self.offset, self.symbol, control))

    def kline(self, minute, volume=5, interval="1m", price=10, length=MINUTE, connection="c1"):
        self.offset += 1
        numbers = ((price * UNIT,) * 4, volume * UNIT, price * volume * UNIT, UNIT // 1000)
        start = T + minute * length
        return self.take(
            Kline(
                self.offset,
                self.symbol,
                interval,
                start,
                *numbers,
                self.business,
                "f",
                connection,
                (start + 9) * 1000,
                "live",
            )
        )

    def bar(
        self,
        minute,
        volume=5,
        interval="1m",
        price=10,
        revision=1,
        completeness="complete",
        from_trades=True,
        source="live",
        length=MINUTE,
    ):
        self.offset += 1
        start = T + minute * length
        numbers = ((price * UNIT,) * 4, volume * UNIT, price * volume * UNIT)
        return self.take(
            BarRevision(
                self.offset,
                self.symbol,
                interval,
                start,
                start + length,
                *numbers,
                revision,
                from_trades,
                completeness,
                source,
                start * 1000,
            )
        )


def told(rows):
    return [((row["ts_start"] - T) // MINUTE, row["status"], row["reason"]) for row in rows]


def test_they_are_compared_once_both_are_final_whichever_comes_first():
    log = Log()
    assert log.kline(0, volume=3) == []
    assert log.kline(0, volume=5) == []
    assert log.bar(0) == [], "the kline is final only when a later one has come"
    (row,) = log.kline(1)
    assert told([row]) == [(0, "equal", None)]
    assert (row["revision"], row["bar_revision"], row["completeness"], row["trade_date"]) == (
        1,
        1,
        "complete",
        19943,
    )
    assert (row["vendor_volume"], row["volume"], row["volume_ratio"]) == (5 * UNIT, 5 * UNIT, UNIT)
    assert (row["kline_offset"], row["bar_offset"], row["ts_recv"]) == (2, 3, (T + 9) * 1000)
    assert log.kline(2) == []
    (row,) = log.bar(1)
    assert told([row]) == [(1, "equal", None)]
    assert (row["day_equal"], row["day_differs"], row["day_not_comparable"]) == (2, 0, 0)


def test_a_revision_is_compared_again_and_the_days_totals_follow():
    log = Log()
    log.kline(0, volume=8)
    log.kline(1)
    (first,) = log.bar(0, volume=6)
    assert (first["status"], first["volume_ratio"], first["day_differs"]) == (
        "differs",
        to_units("0.75"),
        1,
    )
    (second,) = log.bar(0, volume=8, revision=2)
    assert (
        second["status"],
        second["volume_ratio"],
        second["revision"],
        second["bar_revision"],
    ) == ("equal", UNIT, 2, 2)
    assert (second["day_equal"], second["day_differs"]) == (1, 0)
    assert log.kline(0, volume=8) == [], "the same once more says nothing new"
    (third,) = log.kline(0, volume=9)
    assert (third["status"], third["revision"]) == ("differs", 3)


def test_an_open_bar_and_one_made_of_klines_prove_nothing():
    log = Log()
    log.kline(0)
    log.kline(1)
    assert log.bar(0, from_trades=False) == []


def test_a_kline_whose_trades_never_came_is_told_when_its_bar_can_no_longer_come():
    log = Log()
    for minute in range(16):
        log.kline(minute, volume=0 if minute == 2 else 5)
    assert told(log.bar(0)) == [(0, "equal", None)]
    assert told(log.bar(10)) == [(10, "equal", None)]
    assert told(log.bar(12)) == [(12, "equal", None), (1, "differs", None)]
    (*_, row) = log.bar(13)
    assert told([row]) == [(2, "equal", None)], (
        "nothing was traded, says the vendor, and we have no bar"
    )
    assert (row["open"], row["bar_revision"], row["bar_offset"], row["volume"]) == (
        None,
        None,
        None,
        None,
    )
    assert row["volume_ratio"] == UNIT // 2, "of this date: minute 0 of minutes 0 and 1"


def test_a_bar_whose_kline_never_came_is_told_with_the_next_kline():
    log = Log()
    log.kline(0)
    log.bar(0)
    assert log.bar(1) == []
    (equal, lacking) = log.kline(2)
    assert told([equal, lacking]) == [(0, "equal", None), (1, "differs", None)]
    assert (lacking["vendor_open"], lacking["kline_offset"], lacking["vendor_volume"]) == (
        None,
        None,
        None,
    )


def test_a_gap_explains_what_is_missing_on_either_side():
    log = Log()
    log.kline(0)
    log.kline(1)
    assert told(log.bar(0, volume=4, completeness="gap")) == [(0, "not_comparable", "gap")]
    assert told(log.bar(1, volume=4, completeness="partial")) == []
    log.begin(T + 5 * MINUTE, "c2", ts_from=T + 2 * MINUTE)
    log.bar(3)
    assert told(log.kline(6, connection="c2")) == [
        (1, "not_comparable", "gap"),
        (3, "not_comparable", "gap"),
    ]


def test_bars_from_before_the_first_kline_are_not_held_against_it():
    log = Log()
    log.bar(0)
    log.bar(1)
    log.kline(2)
    assert log.kline(3) == []
    assert told(log.bar(2)) == [(2, "equal", None)]
    assert log.bar(1, revision=2) == []
    assert told(log.kline(0)) == [(0, "not_comparable", "expired")], (
        "an older kline, when its bar is no longer at hand"
    )


def test_a_kline_between_our_bars_is_not_aligned():
    log = Log(symbol="600519.SH", business="stock")
    half_past = 30 * MINUTE
    start = T - T % 3_600_000 + half_past
    for shift in (0, 3_600_000):
        rows = log.take(replace_start(log, start + shift))
    assert [
        (row["ts_start"], row["status"], row["reason"], row["volume_ratio"]) for row in rows
    ] == [(start, "not_comparable", "alignment", None)]
    assert rows[0]["day_not_comparable"] == 1


def replace_start(log, start):
    return kline_at(log, "1h", start)


def kline_at(log, interval, start):
    log.offset += 1
    return Kline(
        log.offset,
        log.symbol,
        interval,
        start,
        (UNIT,) * 4,
        UNIT,
        UNIT,
        1,
        log.business,
        "f",
        "c1",
        start * 1000,
        "live",
    )


def test_an_interval_without_bars_of_ours_is_passed_over():
    log = Log()
    assert [
        row for minute in range(3) for row in log.kline(minute, interval="30m", length=30 * MINUTE)
    ] == []
    assert [row for minute in range(3) for row in log.kline(minute, interval="1M")] == []
    sixty = Log(intervals=("60m",))
    sixty.take(replace_start(sixty, T - T % 3_600_000))
    assert len(sixty.take(replace_start(sixty, T - T % 3_600_000 + 7_200_000))) == 0
    assert "60m" in {interval for _, interval in sixty.state._streams}


@pytest.mark.parametrize("native", [False, True])
def test_what_waits_is_bounded_where_the_vendor_sends_no_klines(native):
    log = Log(native=native)
    for minute in range(100):
        log.bar(minute)
    log.restart()
    pairs = log.state.stream(log.symbol, "1m").pairs
    assert len(pairs) == 60 > UNPAIRED
    assert min(pairs) == T + 40 * MINUTE


def test_pairs_are_forgotten_once_no_revision_can_come():
    log = Log()
    for minute in range(60):
        log.kline(minute)
        log.bar(minute)
    log.restart()
    assert len([key for key in log.entries if key.startswith(b"pair:")]) < 15


@pytest.mark.parametrize("volume", [5, 6])
def test_a_pair_that_was_judged_and_forgotten_is_not_judged_again(volume):
    """A kline by REST, the same or another: our bar is gone, so nothing better can be said."""
    log, rows = Log(("1m",)), []
    for minute in range(3 * 1_440):
        rows += log.kline(minute) + log.bar(minute)
    for minute in (0, 100, 2 * 1_440, 3 * 1_440 - 100):
        log.restart()
        assert log.kline(minute, volume=volume) == []
    assert {row["status"] for row in rows} == {"equal"}
    assert [key for key in log.entries if key.startswith(b"judged:")][20:] == [], "two days of them"
    assert (
        sum(day.counts["equal"] for day in log.state.stream("BTCUSDT", "1m").days.values())
        <= 3 * 1_440
    )
    assert all(
        not day.counts["not_comparable"] for day in log.state.stream("BTCUSDT", "1m").days.values()
    )


def test_a_first_kline_in_the_far_future_hides_none_of_the_next():
    log = Log(("1m",))
    log.take(replace(kline_at(log, "1m", T + 10**11), ts_recv=(T - MINUTE) * 1000))
    log.bar(0)
    assert told(log.kline(0)) == [(0, "equal", None)]


def test_what_waits_is_bounded_over_a_month_in_which_klines_come_and_bars_do_not():
    log, rows, most = Log(("1m",)), [], 0
    for minute in range(30 * 1_440):
        rows += log.kline(minute)
        if minute % 1_000 == 0:
            log.restart()
            most = max(most, len(log.entries))
    assert most <= WAIT_MS // MINUTE + 60 + 10 + 20
    assert {(row["status"], row["reason"], row["revision"]) for row in rows} == {
        ("not_comparable", "expired", 1)
    }
    assert [row["ts_start"] for row in rows] == [T + minute * MINUTE for minute in range(len(rows))]
    assert len(rows) > 27 * 1_440


def test_what_waits_is_bounded_over_a_month_in_which_bars_come_and_klines_do_not_any_more():
    log, most = Log(("1m", "1h")), 0
    for interval, length in (("1m", MINUTE), ("1h", 60 * MINUTE)):
        log.kline(0, interval=interval, length=length)
        log.kline(1, interval=interval, length=length)
    for minute in range(0, 30 * 1_440, 10):
        log.bar(minute)
        if minute % 60 == 0:
            log.bar(minute // 60, interval="1h", length=60 * MINUTE)
        if minute % 1_000 == 0:
            log.restart()
            most = max(most, len(log.entries))
    assert most <= WAIT_MS // MINUTE // 10 + 6 + 48 + 20


def test_a_kline_that_begins_in_the_far_future_lets_nothing_expire():
    log = Log(("1m",))
    log.kline(0)
    log.take(replace(kline_at(log, "1m", T + 10**11), ts_recv=T * 1000))
    assert told(log.bar(0)) == [(0, "equal", None)]


def test_sources_do_not_mix():
    log = Log()
    log.kline(0)
    with pytest.raises(SourcesMixed):
        log.bar(0, source="replay")


MOVES = st.lists(
    st.tuples(st.integers(0, 24), st.sampled_from((5, 6)), st.sampled_from(("complete", "gap"))),
    max_size=25,
)


@given(
    MOVES,
    st.lists(st.integers(0, 24), min_size=1, max_size=25),
    st.lists(st.tuples(st.integers(1, 24), st.integers(1, 9)), max_size=3),
    st.randoms(use_true_random=False),
)
@example([(1, 5, "complete"), (20, 5, "complete")], [3, 20], [(4, 3)], random.Random(0))
def test_the_last_word_on_a_bar_does_not_depend_on_how_topics_interleave_nor_on_restarts(
    bars, klines, gaps, chance
):
    """Each topic keeps its order; between them any order may come, and a restart anywhere. Among
    the klines are gaps that reach back over some of them."""
    ordered = sorted(set(bars))
    closed = [("bar", minute, volume, completeness) for minute, volume, completeness in ordered]
    revisions = Counter()
    pushed = [("kline", minute, 5, "") for minute in [0, *klines]]
    pushed = sorted(
        pushed + [("lost", minute, back, "") for minute, back in gaps], key=itemgetter(1)
    )

    def run(one, other, restarts):
        log, last = Log(), {}
        revisions.clear()
        log.kline(0)
        while one or other:
            source = one if one and (not other or chance.random() < 0.5) else other
            kind, minute, volume, completeness = source.pop(0)
            if kind == "kline":
                rows = log.kline(minute, volume)
            elif kind == "lost":
                at = T + minute * MINUTE
                rows = log.begin(at, ts_from=at - volume * MINUTE, kind="gap")
            else:
                revisions[minute] += 1
                rows = log.bar(
                    minute, volume, revision=revisions[minute], completeness=completeness
                )
            for row in rows:
                last[row["ts_start"]] = [
                    row[name]
                    for name in FIELDS[: FIELDS.index("volume_ratio")]
                    if name != "revision"
                ]
            if restarts and chance.random() < 0.5:
                log.restart()
        return last, [
            (day.ours, day.theirs, day.counts)
            for _, day in sorted(log.state.stream("BTCUSDT", "1m").days.items())
        ]

    expected = run([*closed, *pushed], [], restarts=False)
    assert run(list(closed), list(pushed), restarts=True) == expected
    assert run([*pushed, *closed], [], restarts=True) == expected


def test_the_exchanges_klines_are_equal_to_the_bars_of_the_recorded_trades(recordings):
    trades = recorded(recordings / "binance_btcusdt_perp_20240808.jsonl.gz")
    rows = rows_of(make(("1m",)), ended(trades))
    names = [field["name"] for field in load_schema("bar")["fields"]]
    bars = [
        bar_revision_of(offset, bar_record(dict(zip(names, row, strict=True))))
        for offset, (topic, _, row) in enumerate(rows)
        if ".bars." in topic
    ]
    with (recordings / "truth_binance_btcusdt_perp_1m_klines.csv").open() as lines:
        klines = list(csv.DictReader(lines))
    complete = {
        int(kline["open_time_ms"]) for kline in klines if kline["complete_in_recording"] == "1"
    }
    log = Log()
    log.state = log.agent.load(2, {})
    found = []
    for offset, kline in enumerate(klines):
        raw = {name: kline[name] for name in ("open", "high", "low", "close", "volume")} | {
            "turnover": kline["quote_volume"]
        }
        raw |= {
            "symbol": "BTCUSDT",
            "interval": "1m",
            "ts_start": int(kline["open_time_ms"]),
            "business": "stock",
            "feed": "f",
        }
        found += log.take(
            kline_of(
                offset,
                raw_kline(
                    raw
                    | {"connection": "c1", "ts_recv": raw["ts_start"] * 1000, "source": "replay"}
                ),
            )
        )
    for bar in bars:
        found += log.take(bar)
    last = {row["ts_start"]: (row["status"], row["reason"]) for row in found}
    assert len(last) == len(klines) - 1  # the last one is not final
    for start, verdict in last.items():
        assert verdict == (("equal", None) if start in complete else ("not_comparable", "gap"))
    assert sum(verdict[0] == "equal" for verdict in last.values()) >= 4
