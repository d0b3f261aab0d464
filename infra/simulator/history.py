"""What REST shows of the markets: the last trade and book, and klines of the past, made up or of a
recording as far as played."""

from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal, InvalidOperation
from itertools import islice
from typing import Any, Protocol

import orjson

from infra.simulator.playback import AddressedFrame
from infra.simulator.protocol import Channel
from infra.simulator.synthetic import KLINE_SECONDS, MadeUpMarket, ServedKline, trades_on


class MarketHistory(Protocol):
    """The markets' past and present; times of klines in seconds, `now_ms` in ms UTC."""

    def knows(self, business: str, symbol: str) -> bool:
        """Return whether there is such a symbol."""

    def trade(self, business: str, symbol: str, now_ms: int) -> dict[str, Any]:
        """Return the last trade's data."""

    def book(self, business: str, symbol: str, now_ms: int) -> dict[str, Any]:
        """Return the last book's data."""

    def klines(
        self, business: str, symbol: str, number: int, count: int, last: int, now_ms: int
    ) -> list[ServedKline]:
        """Return the newest `count` klines of a type that start by `last`, newest first."""


class MadeUp:
    """Synthetic markets, each made when it is first asked for or subscribed to."""

    def __init__(self, make: Callable[[str, str], MadeUpMarket]) -> None:
        self._make = make
        self._markets: dict[tuple[str, str], MadeUpMarket] = {}

    def market(self, business: str, symbol: str) -> MadeUpMarket:
        """Return the one market of a symbol."""
        key = (business, symbol)
        if key not in self._markets:
            self._markets[key] = self._make(symbol, business)
        return self._markets[key]

    def knows(self, business: str, symbol: str) -> bool:
        """Return whether such a symbol could have a market."""
        return trades_on(business, symbol)

    def trade(self, business: str, symbol: str, now_ms: int) -> dict[str, Any]:
        """Return the last trade, the first one where there was none."""
        market = self.market(business, symbol)
        return market.last_trade or market.trade(now_ms)

    def book(self, business: str, symbol: str, now_ms: int) -> dict[str, Any]:
        """Return a book around the last price."""
        return self.market(business, symbol).book(now_ms)

    def klines(
        self, business: str, symbol: str, number: int, count: int, last: int, now_ms: int
    ) -> list[ServedKline]:
        """Return klines of the walk so far and of a made-up past before it."""
        self.trade(business, symbol, now_ms)
        return list(
            islice(
                (
                    kline
                    for kline in self.market(business, symbol).past(number)
                    if kline.start <= last
                ),
                count,
            )
        )


class Played:
    """A recording, as far as it has been played: `played` counts its frames. It says nothing of
    businesses."""

    def __init__(self, frames: Sequence[AddressedFrame]) -> None:
        self.played = 0
        self._frames = frames
        self._symbols = {frame.symbol for frame in frames if frame.channel is not None}

    def knows(self, business: str, symbol: str) -> bool:
        """Return whether the recording has the symbol."""
        return symbol in self._symbols

    def trade(self, business: str, symbol: str, now_ms: int) -> dict[str, Any]:
        """Return the last trade that was played; without one, none but the symbol."""
        return next(self._backwards("trade", symbol), {"s": symbol})

    def book(self, business: str, symbol: str, now_ms: int) -> dict[str, Any]:
        """Return the last book that was played; without one, none but the symbol."""
        return next(self._backwards("depth", symbol), {"s": symbol})

    def klines(
        self, business: str, symbol: str, number: int, count: int, last: int, now_ms: int
    ) -> list[ServedKline]:
        """Return klines of the trades that were played, from UTC midnight on; weeks and longer are
        not made."""
        seconds = KLINE_SECONDS.get(number)
        if seconds is None:
            return []
        klines: dict[int, ServedKline] = {}
        for trade in reversed(list(self._backwards("trade", symbol))):
            try:
                start = trade["t"] // 1000 // seconds * seconds
                price, volume = Decimal(trade["p"]), Decimal(trade["v"])
                turnover = Decimal(trade["vw"]) if trade.get("vw") else price * volume
            except (KeyError, TypeError, ValueError, InvalidOperation):
                # recordings of broken frames are played too
                continue
            if start in klines:
                klines[start].count(price, volume, turnover)
            elif start <= last:
                klines[start] = ServedKline(start, price, price, price, price, volume, turnover)
        return [klines[start] for start in sorted(klines, reverse=True)[:count]]

    def _backwards(self, channel: Channel, symbol: str) -> Iterator[dict[str, Any]]:
        for frame in reversed(self._frames[: self.played]):
            if frame.channel == channel and frame.symbol == symbol:
                data: dict[str, Any] = orjson.loads(frame.frame)["data"]
                yield data
