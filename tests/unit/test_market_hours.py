"""When data of a symbol is expected, by the exchange calendars."""

from datetime import datetime

import pytest

from infra.ingest.producer_process import market_hours
from processors.model.sessions import Calendars
from producers.vendor.symbols import business_of


@pytest.mark.parametrize(
    ("symbol", "time", "is_open"),
    [
        ("00700.HK", "2025-07-18T11:00+08:00", True),
        ("00700.HK", "2025-07-18T12:30+08:00", False),
        ("00700.HK", "2025-07-18T20:00+08:00", False),
        ("00700.HK", "2025-07-19T11:00+08:00", False),
        ("AAPL.US", "2025-07-18T20:00+08:00", False),
        ("AAPL.US", "2025-07-18T11:00-04:00", True),
        ("BTCUSDT", "2025-07-19T03:00+00:00", True),
        ("USDJPY", "2025-07-19T12:00+00:00", False),
        ("00700.HK", "2095-07-18T11:00+08:00", False),  # an assumed session: nobody knows
        ("600519.SH", "2026-12-31T10:00+08:00", True),
        ("600519.SH", "2027-01-04T10:00+08:00", False),
    ],
)
def test_data_is_expected_while_the_market_of_a_symbol_trades(symbol, time, is_open):
    now = int(datetime.fromisoformat(time).timestamp()) * 1_000_000
    assert market_hours(Calendars())(business_of(symbol), symbol, now) is is_open
