"""What REST tells of instruments and markets beside prices: a few symbols, hours and days, in the shapes of the vendor's pages.

The shape of `trading_schedule` is that of answers which the official client has for its tests. Its `summary` texts are left empty.
"""

import re
from datetime import date, timedelta
from typing import Any

from infra.simulator.refusals import HttpError, Refusal
from infra.simulator.synthetic import SAMPLES

_SUFFIXES = {
    "STOCK_HK": (".HK",), "STOCK_US": (".US",), "STOCK_CN": (".SH", ".SZ"), "STOCK_JP": (".JP",), "STOCK_KS": (".KS",),
    "STOCK_IN": (".IN",), "STOCK_TW": (".TW",), "CRYPTO": ("USDT",), "FOREX": ("JPY",),
}  # fmt: skip
_SCHEDULED = ("ENERGY", "FOREX", "FUTURES", "METAL", "INDICES")
_TYPES = frozenset((*_SUFFIXES, *_SCHEDULED))
_MARKETS = frozenset(("HK", "US", "CN", "JP", "KS", "TW", "IN"))
_HOURS = {
    "CN": ("A 股市场", [("09:30:00", "11:30:00"), ("13:00:00", "14:57:00")]),
    "HK": ("港股市场", [("09:30:00", "12:00:00"), ("13:00:00", "16:00:00")]),
    "US": ("美股市场", [("09:30:00", "16:00:00")]),
}
"""Local times; closing auctions are not in them, as on the vendor's page."""


def symbols(query: dict[str, str]) -> list[dict[str, str]]:
    """Return the symbols of a type that have prices of their own here."""
    kind = query.get("type")
    if kind is None:
        raise HttpError(400, "Required parameter 'type' is not present.")
    if kind not in _TYPES:
        raise Refusal(506, "Param error：type")
    wanted = query["symbols"].split(",") if "symbols" in query else SAMPLES
    found = [symbol for symbol in _of_type(kind) if symbol in wanted]
    return [
        {"symbol": symbol, "name_cn": symbol, "name_hk": symbol, "name_en": symbol}
        for symbol in found
    ]


def markets() -> list[dict[str, Any]]:
    """Return the hours of three markets; the vendor has more."""
    return [
        {
            "market": market,
            "remark": remark,
            "trade_schedules": [
                {"begin_time": begin, "end_time": end, "type": "NormalTrade"}
                for begin, end in hours
            ],
        }
        for market, (remark, hours) in _HOURS.items()
    ]


def trading_days(query: dict[str, str]) -> dict[str, list[str]]:
    """Return weekdays: made-up markets know no holidays."""
    for name in ("market", "beginDay", "endDay"):
        if name not in query:
            raise HttpError(400, f"Required parameter '{name}' is not present.")
    begin, end = _day(query["beginDay"]), _day(query["endDay"])
    if query["market"] not in _MARKETS or not 0 <= (end - begin).days <= 366:
        raise Refusal(506, "Param error：market, or a range of more than a year")
    days = [begin + timedelta(days=number) for number in range((end - begin).days + 1)]
    return {
        "trade_days": [f"{day:%Y%m%d}" for day in days if day.weekday() < 5],
        "half_trade_days": [],
    }


def trading_schedule(query: dict[str, str]) -> list[dict[str, Any]]:
    """Return the sessions of what is no stock, of one type if it is named; any market that is named is ignored."""
    kind = query.get("type")
    if kind is not None and kind not in _SCHEDULED:
        raise HttpError(400, f"type must be one of {'/'.join(_SCHEDULED)}")
    return [
        _session(symbol, each)
        for each in _SCHEDULED
        if kind in (None, each)
        for symbol in _of_type(each)
    ]


def _of_type(kind: str) -> list[str]:
    return [symbol for symbol in SAMPLES if symbol.endswith(_SUFFIXES.get(kind, ("\0",)))]


def _session(symbol: str, kind: str) -> dict[str, Any]:
    """Return what forex has: from Sunday to Friday around the clock, a day that begins at 17:00 in New York."""
    segment = {
        "days": "周日至周五",
        "days_en": "Sunday-Friday",
        "overnight": True,
        "continuous_24h": True,
        "native": {"start": "17:00", "end": "17:00"},
        "gmt0": {
            "summer": {"start": "21:00", "end": "21:00"},
            "winter": {"start": "22:00", "end": "22:00"},
        },
    }
    return {
        "symbol": symbol,
        "type": kind,
        "name": symbol,
        "timezone": "America/New_York",
        "session": "1700-1700",
        "holidays": {"summary": "", "dates": []},
        "is_24_7": False,
        "trading_hours": {"summary": "", "segments": [segment], "is_dst": True},
        "break_time": {"summary": "", "windows": []},
    }


def _day(text: str) -> date:
    try:
        if re.fullmatch(r"[0-9]{8}", text):
            return date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        pass
    raise Refusal(506, f"Param error：{text[:20]} is no day as YYYYMMDD")
