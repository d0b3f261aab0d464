"""A trade of any year from 2010 to 2100 has its bars and windows: no date is a dead letter, and no
calendar is asked in vain."""

import logging
import os
import subprocess
import sys
from datetime import UTC, date, datetime
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.raw_records import raw_trade
from unit.test_decode import TRADE
from unit.test_health import healthy_worker

from infra.dashboard import view
from infra.dashboard.board import Board
from infra.dashboard.selection import Selection
from infra.ingest.producer_process import Feeding
from infra.runtime import worker
from infra.runtime.deployment import Deployment
from infra.runtime.exit_codes import Code
from processors.agents.bars.agent import Bars
from processors.agents.vwap.agent import Vwap
from processors.decode.trades import TradeReader
from processors.engine.transactions.exits import Exit
from processors.model.event_time import EventTime
from processors.model.records import Trade
from processors.model.sessions import Calendars
from processors.settings import Settings
from producers.vendor.symbols import Feed
from schemas.topics import Topology

MARKETS = {
    "00700.HK": ("stock", "Asia/Hong_Kong", "11:00"),
    "AAPL.US": ("stock", "America/New_York", "10:00"),
    "600519.SH": ("stock", "Asia/Shanghai", "10:00"),
    "002594.SZ": ("stock", "Asia/Shanghai", "10:00"),
    "7203.JP": ("japan", "Asia/Tokyo", "10:00"),
    "005930.KS": ("korea", "Asia/Seoul", "11:00"),
    "RELIANCE.IN": ("india", "Asia/Kolkata", "10:00"),
    "2330.TW": ("taiwan", "Asia/Taipei", "10:00"),
    "BTCUSDT": ("crypto", "UTC", "10:00"),
    "USDJPY": ("common", "America/New_York", "10:00"),
}


@cache
def calendars():
    return Calendars()


def ms(text, zone="UTC"):
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


def raw(symbol, ts):
    return {
        **TRADE,
        "symbol": symbol,
        "business": MARKETS[symbol][0],
        "ts_event": ts,
        "ts_recv": (ts + 1) * 1000,
    }


@given(st.sampled_from(list(MARKETS)), st.integers(ms("2010-01-01"), ms("2101-01-01") - 1))
def test_a_trade_of_any_year_has_a_minute_bar_and_rolling_windows(symbol, ts):
    read = TradeReader(calendars())
    log = [read(0, raw_trade(raw(symbol, ts))), read(1, raw_trade(raw(symbol, ts + 120_000)))]
    assert all(isinstance(record, Trade) for record in log)
    bars, vwap = (
        Bars(["1m", "1h", "1d"], calendars(), EventTime()),
        Vwap(["1m", "5m", "session"], calendars(), EventTime()),
    )
    topics = [topic for topic, *_ in bars.apply(bars.load(0, {}), log)]
    assert topics.count("infoway.bars.1m") == 1
    windows = [topic for topic, *_ in vwap.apply(vwap.load(0, {}), log)]
    assert windows.count("infoway.vwap.1m") == windows.count("infoway.vwap.5m") == 2
    sessions = [calendars().session_of(MARKETS[symbol][0], symbol, trade.ts_event) for trade in log]
    assert (
        windows.count("infoway.vwap.session")
        == sum(session is not None for session in sessions)
        == 2 - read.outside_sessions
    )


class Untouchable:
    def __getattr__(self, name):
        raise AssertionError(f"calendars.{name} was asked")


@pytest.mark.parametrize("symbol", MARKETS)
def test_what_needs_no_calendar_asks_none(symbol):
    read = TradeReader(Untouchable(), uses_sessions=False)
    log = [
        read(at, raw_trade(raw(symbol, ms("2027-01-05T12:00") + at * 120_000))) for at in range(3)
    ]
    for computation in (
        Bars(["1m", "5m", "1h"], Untouchable(), EventTime()),
        Vwap(["1m", "1h"], Untouchable(), EventTime()),
    ):
        assert computation.apply(computation.load(0, {}), log)


@pytest.mark.parametrize(
    ("intervals", "windows", "activity", "uses"),
    [
        (("1m", "1h"), ("1m",), (), False),
        (("1m", "1d"), ("1m",), (), True),
        (("1m",), ("1m", "session"), (), True),
        (("1m",), ("1m",), ("tick-10",), True),
    ],
)
def test_sessions_are_counted_where_something_depends_on_them(
    tmp_path, intervals, windows, activity, uses
):
    assert (
        Settings(
            "b:1", "http://r", Topology("", intervals, windows, None, activity), "0", tmp_path
        ).uses_sessions
        is uses
    )


def test_an_assumed_session_is_counted_and_logged_once_a_date_and_market(caplog):
    read = TradeReader(Calendars())
    with caplog.at_level(logging.WARNING):
        for day in ("2026-12-30", "2027-01-04", "2027-01-05", "2027-01-09"):
            for clock in ("10:00", "14:00", "20:00"):
                read(0, raw_trade(raw("600519.SH", ms(f"{day}T{clock}", "Asia/Shanghai"))))
                read(0, raw_trade(raw("AAPL.US", ms(f"{day}T{clock}", "America/New_York"))))
        read(0, raw_trade(raw("002594.SZ", ms("2027-01-04T10:00", "Asia/Shanghai"))))
    assert read.sessions_assumed == {"CN": 2}
    assert read.outside_sessions == 2 * 3 + 2 + 3 + 1  # the evenings, and all of a Saturday
    assert [message.split(" (")[0] for message in caplog.messages] == [
        f"CN: no calendar knows the session of {day}" for day in ("2027-01-04", "2027-01-05")
    ]
    assert "they end on 2026-12-31" in caplog.messages[0]


def test_what_is_remembered_of_assumed_sessions_is_bounded(monkeypatch):
    monkeypatch.setattr("processors.decode.trades._MOST_REMEMBERED", 50)
    read = TradeReader(Calendars())
    for at in range(200):
        read(
            0,
            raw_trade(raw("600519.SH", ms("2040-01-02T10:00", "Asia/Shanghai") + at * 86_400_000)),
        )
    assert len(read._assumed) <= 50
    assert read.sessions_assumed["CN"] > 140


def test_a_worker_shows_assumed_sessions_the_calendars_end_and_their_fingerprint():
    health = healthy_worker()
    health.trades = TradeReader(Calendars())
    health.trades(0, raw_trade(raw("600519.SH", ms("2027-01-04T10:00", "Asia/Shanghai"))))
    health.trades(0, raw_trade(raw("BTCUSDT", ms("2027-01-04T10:00"))))
    health.trades.calendars.report_change("vwap", 0, "others")
    samples = {(sample.name, *sample.labels.values()): sample.value for sample in health.samples()}
    assert samples["infoway_sessions_assumed", "CN"] == 1
    assert (
        samples["infoway_calendar_days_left", "CN"]
        == (date(2026, 12, 31) - datetime.now(UTC).date()).days
    )
    assert samples["infoway_calendars", health.trades.calendars.fingerprint] == 1
    assert samples["infoway_calendars_changed",] == 1
    assert not any(name[1:] in (("crypto",), ("US",)) for name in samples)
    [left] = [
        sample.value
        for sample in worker._calendar_samples(health.trades, date(2026, 12, 1))
        if "left" in sample.name
    ]
    assert left == 30


def test_the_live_view_names_a_calendar_that_ends(monkeypatch):
    feeding = object.__new__(Feeding)
    feeding._calendars = Calendars()
    monkeypatch.setattr(
        Feeding,
        "feeds",
        [
            Feed("stock-1", "stock", ("600519.SH", "AAPL.US")),
            Feed("crypto-1", "crypto", ("BTCUSDT",)),
        ],
    )
    assert feeding.calendars_ending(date(2026, 6, 1)) == []
    [note] = feeding.calendars_ending(date(2026, 11, 29))
    assert (
        note == "the calendar of CN ends on 2026-12-31, in 32 days: sessions after it are assumed"
    )
    deployment = Deployment("b:1", "http://r", Topology(), {}, False)
    seen = view.Seen(deployment, [], notes=[note])
    assert view.lines(Board(deployment, ()), seen)[-1] == note
    renderables = view.screen(Board(deployment, ()), seen, Selection(), 200, 30).renderables
    assert note in [str(each) for each in renderables]


def test_a_wrong_file_ends_a_worker_and_a_command_in_one_line(tmp_path):
    path = tmp_path / "sessions.yaml"
    path.write_text("sessions: [{market: XX, date: 2027-02-30, closed: true, source: x}]")
    environment = {
        **os.environ,
        "INFOWAY_BOOTSTRAP": "127.0.0.1:1",
        "INFOWAY_REGISTRY": "http://127.0.0.1:1",
        "INFOWAY_SESSIONS": str(path),
    }
    done = subprocess.run(
        [sys.executable, "-c", "import processors.app"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == Exit.SETUP_WRONG
    assert f"processors: INFOWAY_SESSIONS={path}: row 1 " in done.stderr
    assert "market is 'XX'" in done.stderr
    assert "date is no date" in done.stderr
    assert "Traceback" not in done.stderr
    command = [sys.executable, "-m", "infra", "worker"]
    done = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == Code.SETTINGS_WRONG
    assert f"infoway-streams: INFOWAY_SESSIONS={path}: row 1 " in done.stderr
