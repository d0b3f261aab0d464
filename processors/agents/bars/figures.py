"""One time bar: folding trades, finer bars and klines into it, its record and its form in the
state; not when it closes."""

from dataclasses import dataclass
from typing import Literal

import orjson

from processors.model.records import Heal, Trade
from schemas.decimals import UNIT, divide_half_even
from schemas.records import BarRecord

Provenance = Literal["trades", "klines", "mixed"]
"""klines: all of the vendor's kline for this very bar; mixed: a kline stands for a part of it."""

EXTREME = 1 << 160
"""Beyond every price and every time."""


@dataclass(slots=True, eq=False)
class TimeBar:
    """A bar [start, end): times in ms, prices and volumes in units of 10^-18, turnover exact in
    units of 10^-36."""

    level: int
    """Index of its interval in the ladder."""
    symbol: str
    start: int
    end: int
    trade_date: int | None = None
    """Days since 1970, for a session."""
    closed: bool = False
    folded: bool = False
    """Whether its trades are in the coarser bars too: what comes later has to go into each."""
    revision: int = 0
    published: int = 0
    """The count of trades in its last record."""
    completeness: str = ""
    """As in its last record."""
    provenance: Provenance = "trades"
    ts_recv: int = 0
    """Greatest receive time of its trades, microseconds."""
    ts_first: int = EXTREME
    open: int = 0
    high: int = -EXTREME
    low: int = EXTREME
    ts_last: int = -EXTREME
    close: int = 0
    volume: int = 0
    turnover: int = 0
    buy: int = 0
    sell: int = 0
    count: int = 0
    dirty: bool = False
    """Whether it changed since it was last written to the state."""

    def add(self, trade: Trade) -> None:
        """Fold a trade that follows in the log whatever the bar has."""
        event, price, volume = trade.ts_event, trade.price, trade.volume
        if event >= self.ts_last:
            self.ts_last = event
            self.close = price
        if event < self.ts_first:
            self.ts_first = event
            self.open = price
        if price > self.high:
            self.high = price
        if price < self.low:
            self.low = price
        self.volume += volume
        self.turnover += price * volume
        if trade.direction == 1:
            self.buy += volume
        elif trade.direction == 2:
            self.sell += volume
        self.count += 1
        if trade.ts_recv > self.ts_recv:
            self.ts_recv = trade.ts_recv

    def fold(self, other: "TimeBar") -> None:
        """Fold a piece that follows in the log whatever the bar has of the same millisecond."""
        if other.ts_last >= self.ts_last:
            self.ts_last = other.ts_last
            self.close = other.close
        if other.ts_first < self.ts_first:
            self.ts_first = other.ts_first
            self.open = other.open
        self.high = max(self.high, other.high)
        self.low = min(self.low, other.low)
        self.volume += other.volume
        self.turnover += other.turnover
        self.buy += other.buy
        self.sell += other.sell
        self.count += other.count
        self.ts_recv = max(self.ts_recv, other.ts_recv)
        if other.provenance != "trades":
            self.provenance = "mixed"

    def replace(self, heal: Heal) -> tuple[int, int]:
        """Take the figures of the vendor's kline in place of what the feed saw; return by how much
        volume and turnover grew."""
        grown = heal.volume - self.volume, heal.turnover * UNIT - self.turnover
        self.open, self.high, self.low, self.close = heal.prices
        self.volume, self.turnover = heal.volume, heal.turnover * UNIT
        # it stands for the whole of its time: whatever a coarser bar has lies before or after it
        self.ts_first, self.ts_last = self.start, self.end - 1
        self.buy = self.sell = self.count = self.published = 0
        self.ts_recv = max(self.ts_recv, heal.ts_recv)
        self.provenance = "klines"
        return grown

    def correct(self, healed: "TimeBar", volume: int, turnover: int) -> None:
        """Take a healed piece in place of what this bar has of it; `volume` and `turnover` are by
        how much it grew."""
        self.volume += volume
        self.turnover += turnover
        self.high = max(self.high, healed.high)
        self.low = min(self.low, healed.low)
        if healed.ts_first <= self.ts_first:
            self.ts_first, self.open = healed.ts_first, healed.open
        if healed.ts_last >= self.ts_last:
            self.ts_last, self.close = healed.ts_last, healed.close
        self.ts_recv = max(self.ts_recv, healed.ts_recv)
        self.provenance = "mixed"

    def record(
        self,
        interval: str,
        cause: str,
        source: str,
        ts_recv: int,
        partition: int,
        offset: int,
    ) -> BarRecord:
        """Return the bar's record, caused by the raw record received at `ts_recv`
        (microseconds)."""
        # a kline knows neither sides nor trades
        known = self.provenance == "trades"
        return BarRecord(
            self.symbol,
            interval,
            self.start,
            self.end,
            self.trade_date,
            self.open,
            self.high,
            self.low,
            self.close,
            self.volume,
            divide_half_even(self.turnover, UNIT),
            divide_half_even(self.turnover, self.volume) if self.volume else None,
            self.buy if known else None,
            self.sell if known else None,
            self.count if known else None,
            self.ts_first if known else None,
            self.ts_last if known else None,
            self.revision,
            self.closed,
            cause,
            self.completeness,
            self.provenance,
            source,
            max(self.ts_recv, ts_recv),
            partition,
            offset,
        )


def dump(bar: TimeBar) -> bytes:
    """Return all of a bar but its interval, symbol and start; big integers as texts, since orjson
    has 64 bits."""
    exact = (bar.open, bar.high, bar.low, bar.close, bar.volume, bar.turnover, bar.buy, bar.sell)
    flags = (bar.closed, bar.folded, bar.revision, bar.published, bar.completeness, bar.provenance)
    return orjson.dumps(
        (
            bar.end,
            bar.trade_date,
            flags,
            bar.count,
            bar.ts_recv,
            bar.ts_first,
            bar.ts_last,
            tuple(map(str, exact)),
        )
    )


def restore(level: int, symbol: str, start: int, value: bytes) -> TimeBar:
    """Return the bar that `dump` wrote."""
    end, trade_date, flags, count, ts_recv, ts_first, ts_last, exact = orjson.loads(value)
    bar = TimeBar(level, symbol, start, end, trade_date, *flags)
    bar.count, bar.ts_recv, bar.ts_first, bar.ts_last = count, ts_recv, ts_first, ts_last
    bar.open, bar.high, bar.low, bar.close, bar.volume, bar.turnover, bar.buy, bar.sell = map(
        int, exact
    )
    return bar
