"""The watch list: the newest of everything about each symbol, and the health of the feeds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from infra.page.recent import Recent
from infra.page.series import Shown, text
from schemas.decimals import divide_half_even, to_text, to_units
from schemas.topics import DEPTH_IMBALANCE, FEED_STATUS, RAW_TRADE

MOST_SYMBOLS = 20_000
"""Symbols of a watch list; more are counted, and the page says so."""
MOST_FEEDS = 1_000
SESSION_BARS = "infoway.bars.1d"
_TWO_DIGITS = 10**16


@dataclass(slots=True)
class Row:
    """One symbol. Prices are in units of 10^-18; None where nothing has come yet."""

    symbol: str
    last: int | None = None
    last_ts: int = 0
    first: int | None = None
    """The first price known."""
    closes: tuple[tuple[int, int], ...] = ()
    """End and close of the two newest closed sessions."""
    vwaps: dict[str, int | None] = field(default_factory=dict)
    imbalance: float | None = None
    bar: dict[str, Any] = field(default_factory=dict)
    """Completeness, provenance, cause and revision of the newest bar."""
    source: str = ""
    newest_ms: int = 0
    """When Kafka got the newest record of the symbol."""

    def shown(self, feed: tuple[str, str]) -> Shown:
        """Return what the page gets; `feed` is the symbol's feed and its state."""
        base, base_is_close = self._base()
        return {
            "symbol": self.symbol,
            "last": text(self.last),
            "change": change_percent(self.last, base),
            "base": text(base),
            "base_is_close": base_is_close,
            "vwaps": {window: text(vwap) for window, vwap in self.vwaps.items()},
            "imbalance": self.imbalance,
            "bar": self.bar,
            "source": self.source,
            "newest_ms": self.newest_ms,
            "feed": feed[0],
            "state": feed[1],
        }

    def _base(self) -> tuple[int | None, bool]:
        """Return what the change is against, and whether it is a session's close: of the last
        session before the newest price's, else the first price known."""
        for end, close in reversed(self.closes):
            if end <= self.last_ts:
                return close, True
        return self.first, False


class WatchRows:
    """The rows of all symbols, and the feeds."""

    def __init__(self, shortest: str) -> None:
        """`shortest` is the finest interval of bars."""
        self.rows: Recent[str, Row] = Recent()
        self.feeds: Recent[str, Shown] = Recent()
        self.left_out = 0
        """Records of symbols beyond MOST_SYMBOLS."""
        self.progress: dict[tuple[str, int], int] = {}
        """Watermark by feed and partition, in ms."""
        self.source = ""
        """The source of the newest record that names one."""
        self._feed_of: dict[str, tuple[str, str]] = {}
        self._shortest = f"infoway.bars.{shortest}"

    def take(self, name: str, record: Mapping[str, Any], at_ms: int, version: int) -> None:
        """Take a record; `name` is its topic's in the contract, `at_ms` when Kafka got it. Raises
        NotADecimal for a raw trade without a price."""
        if name == FEED_STATUS:
            self._take_status(record, version)
            return
        if name == "infoway.progress":
            key = record["feed"], record["partition"]
            if key in self.progress or len(self.progress) < MOST_FEEDS:
                self.progress[key] = record["ts_watermark"]
            return
        symbol = record["symbol"]
        row = self.rows.get(symbol)
        if row is None:
            if len(self.rows) >= MOST_SYMBOLS:
                self.left_out += 1
                return
            row = Row(symbol)
        self._change(row, name, record)
        row.newest_ms = max(row.newest_ms, at_ms)
        if record.get("source"):
            row.source = self.source = record["source"]
        self.rows.put(symbol, row, version)

    def since(self, version: int) -> list[Shown]:
        """Return the rows that changed after a version."""
        return [
            row.shown(self._feed_of.get(row.symbol, ("", ""))) for row in self.rows.since(version)
        ]

    def watermarks(self) -> dict[str, int]:
        """Return, by feed, up to which event time (ms) all its bars have been published."""
        found: dict[str, int] = {}
        for (feed, _), watermark in self.progress.items():
            found[feed] = min(watermark, found.get(feed, watermark))
        return found

    def _change(self, row: Row, name: str, record: Mapping[str, Any]) -> None:
        if name == RAW_TRADE:
            _price(row, to_units(record["price"]), record["ts_event"])
        elif name == DEPTH_IMBALANCE:
            row.imbalance = record["imbalance_5"]
        elif name.startswith("infoway.vwap."):
            row.vwaps[record["window"]] = record["vwap"]
        elif name == self._shortest:
            row.bar = {
                key: record[key] for key in ("completeness", "provenance", "cause", "revision")
            }
            # `ts_end - 1`: a trade of the bar's last millisecond is as new
            _price(row, record["close"], record["ts_last"] or record["ts_end"] - 1)
        if name == SESSION_BARS and record["is_closed"]:
            closes = dict(row.closes) | {record["ts_end"]: record["close"]}
            row.closes = tuple(sorted(closes.items())[-2:])

    def _take_status(self, record: Mapping[str, Any], version: int) -> None:
        feed = record["feed"]
        if feed not in self.feeds and len(self.feeds) >= MOST_FEEDS:
            return
        shown = {key: record[key] for key in ("feed", "business", "state", "reason", "ts_from")}
        self.feeds.put(feed, shown | {"symbols": len(record["symbols"])}, version)
        for symbol in record["symbols"]:
            if symbol in self._feed_of or len(self._feed_of) < MOST_SYMBOLS:
                self._feed_of[symbol] = feed, record["state"]
            row = self.rows.get(symbol)
            if row is not None:
                self.rows.put(symbol, row, version)


def change_percent(last: int | None, base: int | None) -> str | None:
    """Return the change from `base` to `last` in percent with two digits, None without a base above
    0."""
    if last is None or base is None or base <= 0:
        return None
    hundredths = divide_half_even((last - base) * 10_000, base)
    return to_text(hundredths * _TWO_DIGITS)


def _price(row: Row, price: int, ts_event: int) -> None:
    if ts_event >= row.last_ts:
        row.last, row.last_ts = price, ts_event
    if row.first is None:
        row.first = price
