"""Synthetic markets: seeded random walks as the vendor's trade, depth and kline data; exact
decimals, no real prices, no I/O."""

import random
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

KLINE_SECONDS = {1: 60, 2: 300, 3: 900, 4: 1800, 5: 3600, 6: 7200, 7: 14_400, 8: 86_400}
"""Kline types made here, by their length; longer ones are acked and stay silent."""

_START = {
    "00005.HK": ("98.15", "0.05", 400),
    "00285.HK": ("36.00", "0.02", 500),
    "00700.HK": ("520.00", "0.20", 100),
    "002594.SZ": ("330.00", "0.01", 100),
    "TSLA.US": ("329.65", "0.01", 1),
    "AAPL.US": ("211.18", "0.01", 1),
    "BTCUSDT": ("118500.00", "0.01", 0),
    "USDJPY": ("148.520", "0.001", 0),
}
"""The symbols that have prices of their own."""
KEPT = 500
"""Finished klines of each type that a market keeps."""
DEPTH = 5000
"""Klines of each type that a market makes up for the time before its first trade."""
_SUFFIXES = {"stock": "HK|US|SH|SZ", "japan": "JP", "india": "IN", "korea": "KS|KQ", "taiwan": "TW"}


def trades_on(business: str, symbol: str) -> bool:
    """Return whether a symbol has a market on a business; a wrong one is acked and silent."""
    if business in _SUFFIXES:
        return re.fullmatch(rf"[A-Z0-9&-]{{1,12}}\.({_SUFFIXES[business]})", symbol) is not None
    crypto = re.fullmatch(r"[A-Z0-9]{2,12}(USDT|USDC)", symbol) is not None
    if business == "crypto":
        return crypto or re.fullmatch(r"[A-Z0-9]{3,12}USD", symbol) is not None
    return (
        business == "common" and not crypto and re.fullmatch(r"[A-Z0-9]{3,12}", symbol) is not None
    )


@dataclass
class ServedKline:
    """A kline under way."""

    start: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    turnover: Decimal

    def count(self, price: Decimal, volume: Decimal, turnover: Decimal) -> None:
        """Take in a trade."""
        self.high, self.low, self.close = max(self.high, price), min(self.low, price), price
        self.volume += volume
        self.turnover += turnover

    def rest(self) -> dict[str, str]:
        """Return the kline as REST writes it: the start as text, the change in percent as `pc`."""
        change = self.close - self.open
        return {
            "t": str(self.start),
            "o": str(self.open),
            "h": str(self.high),
            "l": str(self.low),
            "c": str(self.close),
            "v": str(self.volume),
            "vw": str(self.turnover),
            "pc": f"{change * 100 / self.open:.2f}%",
            "pca": str(change),
        }


@dataclass
class MadeUpMarket:
    """One symbol's market; the same symbol, business and seed give the same walk."""

    symbol: str
    business: str
    seed: int = 0
    klines: dict[int, ServedKline] = field(default_factory=dict)
    last_trade: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        price, tick, lot = _START.get(
            self.symbol, ("100.00", "0.01", 100 if self.business != "crypto" else 0)
        )
        self.tick = Decimal(tick)
        self._price = Decimal(price)
        self._first_price = self._price
        self._first: dict[int, int] = {}
        self._finished: dict[int, deque[ServedKline]] = {
            number: deque(maxlen=KEPT) for number in KLINE_SECONDS
        }
        self._lot = lot
        self._random = random.Random(f"{self.seed} {self.symbol}")
        self._levels = 5 if self.symbol.endswith((".SH", ".SZ")) else 10
        # HK and US trades come without a direction
        self._directed = self.business == "crypto" or self.symbol.endswith((".SH", ".SZ"))

    def trade(self, now_ms: int) -> dict[str, Any]:
        """Return the next trade's data, and count it in every kline under way."""
        steps = self._random.choice((-2, -1, -1, 0, 0, 0, 1, 1, 2))
        # low enough for any walk, high enough that the deepest bid stays positive
        self._price = max(self.tick * (self._levels + 1), self._price + steps * self.tick)
        volume = self._volume(self._random)
        turnover = self._price * volume
        for number, seconds in KLINE_SECONDS.items():
            self._count(number, now_ms // 1000 // seconds * seconds, volume, turnover)
        direction = self._random.choice((1, 2)) if self._directed else 0
        self.last_trade = {
            "s": self.symbol,
            "t": now_ms,
            "p": str(self._price),
            "v": str(volume),
            "vw": str(turnover),
            "td": direction,
        }
        return self.last_trade

    def book(self, now_ms: int) -> dict[str, Any]:
        """Return the book around the last price: lists a ascending, b descending, prices then
        sizes."""
        best_bid = self._price - self.tick * self._random.randint(0, 1)
        asks = [best_bid + self.tick * (level + 1) for level in range(self._levels)]
        bids = [best_bid - self.tick * level for level in range(self._levels)]
        return {
            "s": self.symbol,
            "t": now_ms,
            "a": [[str(price) for price in asks], [str(self._size()) for _ in asks]],
            "b": [[str(price) for price in bids], [str(self._size()) for _ in bids]],
        }

    def kline(self, number: int) -> dict[str, Any] | None:
        """Return the kline of a type under way; None before the first trade and for types that are
        not made."""
        kline = self.klines.get(number)
        if kline is None:
            return None
        change = kline.close - kline.open
        return {
            "s": self.symbol,
            "o": str(kline.open),
            "h": str(kline.high),
            "l": str(kline.low),
            "c": str(kline.close),
            "v": str(kline.volume),
            "vw": str(kline.turnover),
            "pca": str(change),
            "pfr": f"{change * 100 / kline.open:.2f}%",
            "t": kline.start,
            "ty": number,
        }

    def past(self, number: int) -> Iterator[ServedKline]:
        """Yield the klines of a type, newest first: those of the trades so far, then made-up ones
        that lead up to the first price."""
        if number not in self.klines:
            return
        yield self.klines[number]
        yield from reversed(self._finished[number])
        if len(self._finished[number]) == KEPT:
            # what was thrown away cannot be made up
            return
        chance, close = (
            random.Random(f"{self.seed} {self.symbol} before {number}"),
            self._first_price,
        )
        for back in range(1, DEPTH + 1):
            opened = max(self.tick * self._levels, close + chance.randint(-20, 20) * self.tick)
            high = max(opened, close) + chance.randint(0, 5) * self.tick
            low = max(self.tick, min(opened, close) - chance.randint(0, 5) * self.tick)
            volume = self._volume(chance)
            yield ServedKline(
                self._first[number] - back * KLINE_SECONDS[number],
                opened,
                high,
                low,
                close,
                volume,
                close * volume,
            )
            close = opened

    def _count(self, number: int, start: int, volume: Decimal, turnover: Decimal) -> None:
        kline, price = self.klines.get(number), self._price
        if kline is not None and kline.start == start:
            kline.count(price, volume, turnover)
            return
        if kline is not None:
            self._finished[number].append(kline)
        self._first.setdefault(number, start)
        self.klines[number] = ServedKline(start, price, price, price, price, volume, turnover)

    def _volume(self, chance: random.Random) -> Decimal:
        if self.business == "common":
            # forex brokers report ticks without a volume now and then
            return Decimal(chance.choice((0, 1, 1, 2, 5)))
        return (
            Decimal(chance.randint(1, 20) * self._lot)
            if self._lot
            else Decimal(chance.randint(1, 500_000)).scaleb(-6)
        )

    def _size(self) -> Decimal:
        return (
            Decimal(self._random.randint(1, 60) * self._lot)
            if self._lot
            else Decimal(self._random.randint(1, 9_000_000)).scaleb(-6)
        )
