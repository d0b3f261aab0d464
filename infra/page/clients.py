"""A browser's WebSocket: it names what it shows, and gets that, then changes. Nothing is queued:
each message is made of what changed since the one before."""

import asyncio
import time
from typing import Any, NamedTuple

import orjson
from aiohttp import WSMsgType, web

from infra.page.market import Market
from infra.page.series import Series, Shown

PERIOD_S = 0.1
"""Seconds between two messages to a client, at least: 10 a second."""
QUIET_S = 1.0
"""Seconds after which a client hears that nothing has changed."""
RETRY_S = 2.0
"""Seconds before the past of a symbol, which could not be read, is asked for again."""
MOST_BYTES = 4_096
"""Of a client's message."""
MOST_REQUESTS = 200
"""Messages of a client in REQUESTS_S; more end its connection."""
REQUESTS_S = 10.0
MOST_CLIENTS = 100
LONGEST_SYMBOL = 1_000


class BadRequest(ValueError):
    """A client's message is none; the text says why."""


class ClientView(NamedTuple):
    """What a client shows beside the watch list."""

    symbol: str
    interval: str


def wanted_of(text: str, intervals: tuple[str, ...]) -> ClientView | None:
    """Return what a client's message asks for, None for the watch list alone. Raises BadRequest."""
    try:
        message = orjson.loads(text)
    except ValueError:
        raise BadRequest("not JSON") from None
    if not isinstance(message, dict) or set(message) != {"show"}:
        raise BadRequest("expected an object with show alone")
    show = message["show"]
    if show is None:
        return None
    if not isinstance(show, dict) or set(show) != {"symbol", "interval"}:
        raise BadRequest("expected show to have symbol and interval")
    symbol, interval = show["symbol"], show["interval"]
    if not isinstance(symbol, str) or not 0 < len(symbol) <= LONGEST_SYMBOL:
        raise BadRequest(f"expected a symbol of 1 to {LONGEST_SYMBOL} characters")
    if interval not in intervals:
        raise BadRequest(f"expected an interval of {', '.join(intervals)}")
    return ClientView(symbol, interval)


class PageClient:
    """One connection."""

    def __init__(self, market: Market, socket: web.WebSocketResponse) -> None:
        self._market, self._socket = market, socket
        self._sent = -1
        """The market's version that the client has."""
        self._wanted: ClientView | None = None
        self._series: Series | None = None
        self._whole = False
        """Whether the client has all of the series, and needs changes alone."""
        self._retry_at = 0.0

    async def serve(self) -> None:
        """Serve the connection until it ends."""
        names = self._market.names
        await self._send(
            {"hello": {"intervals": names.intervals, "windows": names.windows}},
        )
        sending = asyncio.create_task(self._send_changes())
        try:
            await self._receive()
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def _receive(self) -> None:
        requests, since = 0, time.monotonic()
        async for message in self._socket:
            now = time.monotonic()
            if now - since > REQUESTS_S:
                requests, since = 0, now
            requests += 1
            if message.type != WSMsgType.TEXT or requests > MOST_REQUESTS:
                await self._socket.close(code=1008, message=b"too much, or no text")
                return
            try:
                self._wanted = wanted_of(message.data, self._market.names.intervals)
            except BadRequest as error:
                await self._socket.close(code=1008, message=str(error).encode()[:100])
                return
            self._series, self._whole, self._retry_at = None, False, 0.0

    async def _send_changes(self) -> None:
        said_at = 0.0
        while not self._socket.closed:
            now = time.monotonic()
            change = self._change(now)
            if change or now - said_at > QUIET_S:
                said_at = now
                try:
                    # returns once the client has room for it: a slow one gets fewer messages
                    await self._send(change | {"status": self._market.status()})
                except ConnectionError:
                    return
            await asyncio.sleep(PERIOD_S)

    async def _send(self, message: Shown) -> None:
        await self._socket.send_str(orjson.dumps(message).decode())

    def _change(self, now: float) -> dict[str, Any]:
        """Return what the client has not got yet."""
        market, sent = self._market, self._sent
        change: dict[str, Any] = {}
        rows = market.rows.since(sent)
        if rows:
            change["rows"] = rows
        feeds = market.rows.feeds.since(sent)
        if feeds:
            change["feeds"] = feeds
        self._sent = market.version
        series = self._series_wanted(now)
        if series is not None:
            change |= self._change_of(series, sent)
        return change

    def _series_wanted(self, now: float) -> Series | None:
        if self._wanted is None:
            return None
        if self._series is None or (self._series.failure and now > self._retry_at):
            # of symbols that no topic has: nothing is read
            if self._wanted.symbol not in self._market.rows.rows:
                return None
            self._series, self._whole = self._market.series(*self._wanted), False
            self._retry_at = now + RETRY_S
        self._series.asked_at = now
        return self._series

    def _change_of(self, series: Series, sent: int) -> dict[str, Any]:
        found = series.since(sent if self._whole else -1)
        if (
            self._whole
            and not found["bars"]
            and not found["imbalance"]
            and not any(found["vwaps"].values())
        ):
            return {}
        whole = not self._whole
        # until the past has come the client gets all that there is, each time
        self._whole = series.loaded
        return {
            "series": {
                "symbol": series.symbol,
                "interval": series.interval,
                "whole": whole,
                "loaded": series.loaded,
                "failure": series.failure,
                "book": series.book,
                **found,
            }
        }
