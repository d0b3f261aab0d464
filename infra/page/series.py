"""What the charts of one symbol and one interval show: bars with their revisions, VWAPs and
imbalance over time, and the newest book. Numbers stay the topics' own digits, as text."""

from collections.abc import Mapping
from typing import Any

from infra.page.recent import Recent
from processors.model.intervals import DAY, ladder
from schemas.decimals import to_text
from schemas.topics import DEPTH_IMBALANCE

MOST_BARS = 500
"""Bars of a series that are kept, the newest."""
MOST_POINTS = 2 * MOST_BARS
"""Points of a line that are kept, the newest."""
MOST_REVISIONS = 8
"""Revisions of a bar that are remembered, the newest, without updates of an open one."""
POINTS_A_BAR = 4
"""Points of a line in the time of a bar: the last record of each part of it."""

Shown = dict[str, Any]
"""What JSON shows of a record."""

_BAR_DECIMALS = ("open", "high", "low", "close", "volume", "turnover", "vwap")
_BAR_SIDES = ("buy_volume", "sell_volume")
_BAR_PLAIN = (
    "ts_start",
    "ts_end",
    "trade_count",
    "revision",
    "is_closed",
    "cause",
    "completeness",
    "provenance",
    "source",
    "ts_recv",
    "source_partition",
    "source_offset",
)
_BAR_REVISION = ("revision", "cause", "completeness", "close", "volume", "ts_recv")
_BOOK_DECIMALS = (
    "best_bid",
    "best_bid_size",
    "best_ask",
    "best_ask_size",
    "spread",
    "mid",
    "weighted_mid",
    "bid_volume_5",
    "ask_volume_5",
    "bid_volume_10",
    "ask_volume_10",
    "ofi",
)
_BOOK_PLAIN = (
    "ts_event",
    "imbalance_1",
    "imbalance_5",
    "imbalance_10",
    "imbalance_weighted",
    "bid_levels",
    "ask_levels",
    "book_state",
    "ts_recv",
)


def text(units: int | None) -> str | None:
    """Return a decimal as text, with every digit that the topic has."""
    return None if units is None else to_text(units)


def length_ms(interval: str) -> int:
    """Return the length of an interval in ms, a day for the market's session."""
    (found,) = ladder([interval]).intervals
    return DAY if found.is_session else found.length_ms


class Series:
    """One symbol by one interval. Records may come twice and in any order of topics; within a topic
    they come in the order of the log."""

    def __init__(self, symbol: str, interval: str, windows: tuple[str, ...]) -> None:
        self.symbol, self.interval = symbol, interval
        self.bars: Recent[int, Shown] = Recent()
        self.vwaps: dict[str, Recent[int, list[Any]]] = {window: Recent() for window in windows}
        self.imbalance: Recent[int, list[Any]] = Recent()
        self.book: Shown | None = None
        self.loaded = False
        """Whether what the topics had before has been read."""
        self.failure = ""
        """Why it could not be."""
        self.asked_at = 0.0
        """When a client last looked at it, by the monotonic clock."""
        self._part_ms = max(1_000, length_ms(interval) // POINTS_A_BAR)

    def take(self, name: str, record: Mapping[str, Any], version: int) -> None:
        """Take a record of this symbol; `name` is the topic's in the contract."""
        if name == f"infoway.bars.{self.interval}":
            self._take_bar(record, version)
        elif name.startswith("infoway.vwap."):
            line = self.vwaps.get(record["window"])
            if line is not None:
                ts_event = record["ts_event"]
                self._put(line, ts_event, [text(record["vwap"]), text(record["stdev"])], version)
        elif name == DEPTH_IMBALANCE:
            ts_event = record["ts_event"]
            self._put(self.imbalance, ts_event, [record["imbalance_5"]], version)
            if self.book is None or ts_event >= self.book["ts_event"]:
                self.book = {name: text(record[name]) for name in _BOOK_DECIMALS} | {
                    name: record[name] for name in _BOOK_PLAIN
                }

    def merge(self, before: "Series", version: int) -> None:
        """Take what another series of the same symbol and interval has from the topics' past."""
        for bar in before.bars.since(0):
            self._put_bar(bar, version)
        for window, line in before.vwaps.items():
            for _, ts_event, *figures in line.since(0):
                self._put(self.vwaps[window], ts_event, figures, version)
        for _, ts_event, *figures in before.imbalance.since(0):
            self._put(self.imbalance, ts_event, figures, version)
        if before.book and (self.book is None or before.book["ts_event"] > self.book["ts_event"]):
            self.book = before.book

    def since(self, version: int) -> Shown:
        """Return what changed after a version."""
        return {
            "bars": self.bars.since(version),
            "vwaps": {window: line.since(version) for window, line in self.vwaps.items()},
            "imbalance": self.imbalance.since(version),
        }

    def _take_bar(self, record: Mapping[str, Any], version: int) -> None:
        bar = {name: record[name] for name in _BAR_PLAIN} | {
            name: text(record[name]) for name in (*_BAR_DECIMALS, *_BAR_SIDES)
        }
        bought, sold = record["buy_volume"], record["sell_volume"]
        bar["no_side_volume"] = (
            None if bought is None or sold is None else text(record["volume"] - bought - sold)
        )
        # an open bar is told often: what counts is what changed once it was closed
        bar["revisions"] = (
            [{name: bar[name] for name in _BAR_REVISION}] if record["cause"] != "update" else []
        )
        self._put_bar(bar, version)

    def _put_bar(self, bar: Shown, version: int) -> None:
        start = bar["ts_start"]
        known = self.bars.get(start)
        if known is not None:
            # the contract: the greatest source_offset of (symbol, interval, ts_start) is the bar
            newer = (bar["source_offset"], bar["revision"]) >= (
                known["source_offset"],
                known["revision"],
            )
            told = {each["revision"]: each for each in (*known["revisions"], *bar["revisions"])}
            revisions = [told[number] for number in sorted(told)][-MOST_REVISIONS:]
            bar = {**(bar if newer else known), "revisions": revisions}
        self.bars.put(start, bar, version)
        if len(self.bars) > MOST_BARS:
            self.bars.drop(min(self.bars))

    def _put(
        self, line: Recent[int, list[Any]], ts_event: int, figures: list[Any], version: int
    ) -> None:
        """Set the point of a part of a bar: its number, the time (ms) of its last record, and that
        record's figures."""
        part = ts_event // self._part_ms
        known = line.get(part)
        if known is not None and known[1] > ts_event:
            return
        line.put(part, [part, ts_event, *figures], version)
        if len(line) > MOST_POINTS:
            line.drop(min(line))
