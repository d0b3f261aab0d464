"""The simulator's WebSocket server: connections, playing of recordings at a speed, and the clock of synthetic markets."""

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from infra.recordings import Recording, read_recordings
from infra.simulator.protocol import PUSH, Channel, Limits, Session
from infra.simulator.synthetic import Market, trades_on

CODES: dict[Channel, int] = {channel: code for code, channel in PUSH.items()}
BUSINESSES = frozenset(("stock", "crypto", "common", "japan", "india", "korea", "taiwan"))
BAD_KEYS = frozenset(("", "bad-key"))


class Simulator:
    """A running simulator. `files` are played once, from when everything in them is subscribed; without files markets are made up."""

    def __init__(
        self,
        files: Sequence[Path] = (),
        host: str = "127.0.0.1",
        port: int = 0,
        speed: float = 1.0,
        rate: float = 5.0,
        seed: int = 0,
        limits: Limits | None = None,
    ) -> None:
        """speed: of the recordings, 0 as fast as the clients read; rate: trades a second and symbol of made-up markets.

        Raises UnreadableRecording.
        """
        self.recording: Recording | None = read_recordings(files) if files else None
        self.finished = threading.Event()
        """Set once every frame of the recordings has been sent."""
        self._host, self._port = host, port
        self._speed, self._rate, self._seed = speed, rate, seed
        self._limits = limits or Limits()
        self._sessions: dict[ServerConnection, Session] = {}
        self._markets: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self._server: Server | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def port(self) -> int:
        """The port it listens on."""
        assert self._server is not None
        number: int = next(iter(self._server.sockets)).getsockname()[1]
        return number

    @property
    def url(self) -> str:
        """The address for a client."""
        return f"ws://{self._host}:{self.port}/ws"

    async def start(self) -> None:
        """Listen; raises OSError where the port is taken."""
        self._loop = asyncio.get_running_loop()
        self._server = await serve(self._converse, self._host, self._port, process_request=_refuse_bad_key, compression=None, max_queue=64)
        self._tasks.append(asyncio.create_task(self._watch_heartbeats()))
        if self.recording is not None:
            self._tasks.append(asyncio.create_task(self._play(self.recording)))

    async def stop(self) -> None:
        """Close every connection and the port."""
        tasks = [*self._tasks, *self._markets.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    def drop_connections(self) -> None:
        """Cut every connection without a goodbye, as a network does; from any thread."""
        assert self._loop is not None
        for connection in list(self._sessions):
            self._loop.call_soon_threadsafe(connection.transport.abort)

    def send_raw(self, text: str) -> None:
        """Send a text to every client, whatever it is; from any thread."""
        assert self._loop is not None

        async def send() -> None:
            for connection in list(self._sessions):
                await connection.send(text)

        asyncio.run_coroutine_threadsafe(send(), self._loop).result(10)

    async def _converse(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        session = Session(_query(connection.request, "business"), time.monotonic(), self._limits)
        self._sessions[connection] = session
        with suppress(ConnectionClosed):
            for text in session.greeting():
                await connection.send(text)
            async for message in connection:
                for reply in session.receive(message, time.monotonic()):
                    await connection.send(reply)
                if session.closing:
                    await connection.close()
                self._subscribed(session)
        del self._sessions[connection]

    def _subscribed(self, session: Session) -> None:
        self._changed.set()
        if self.recording is None:
            for symbol in session.symbols():
                key = (session.business, symbol)
                if key not in self._markets and trades_on(*key):
                    self._markets[key] = asyncio.create_task(self._make_up(Market(symbol, session.business, self._seed)))

    async def _play(self, recording: Recording) -> None:
        frames = [(frame.recv_ms, frame.frame, *_addressed(frame.frame)) for frame in recording.frames]
        wanted = {(channel, symbol) for _, _, channel, symbol in frames if channel is not None}
        while not all(any(session.wants(channel, symbol) for session in self._sessions.values()) for channel, symbol in wanted):
            self._changed.clear()
            await self._changed.wait()
        began, first = time.monotonic(), frames[0][0] if frames else 0
        for received, frame, channel, symbol in frames:
            if self._speed:
                await asyncio.sleep(max(0.0, began + (received - first) / 1000 / self._speed - time.monotonic()))
            for connection, session in list(self._sessions.items()):
                # a frame that names no channel or symbol goes to all: clients must cope
                if channel is None or session.wants(channel, symbol):
                    with suppress(ConnectionClosed):
                        await connection.send(frame, text=True)
        self.finished.set()

    async def _make_up(self, market: Market) -> None:
        pause = 1 / self._rate
        sent: dict[int, dict[str, Any]] = {}
        while True:
            await asyncio.sleep(pause)
            now = time.time_ns() // 1_000_000
            trade, book = market.trade(now), market.book(now)
            await self._push(market, "trade", trade)
            await self._push(market, "depth", book)
            for number in {number for session in self._sessions.values() for symbol, number in session.klines if symbol == market.symbol}:
                kline = market.kline(number)
                if kline is not None and kline != sent.get(number):
                    sent[number] = kline
                    await self._push(market, "kline", kline, number)

    async def _push(self, market: Market, channel: Channel, data: dict[str, Any], number: int | None = None) -> None:
        plain = orjson.dumps({"code": CODES[channel], "data": data})
        for connection, session in list(self._sessions.items()):
            if session.business == market.business and session.wants(channel, market.symbol, number):
                typed = channel == "trade" and market.symbol in session.with_type
                frame = orjson.dumps({"code": CODES[channel], "data": {**data, "ty": ""}}) if typed else plain
                with suppress(ConnectionClosed):
                    await connection.send(frame, text=True)

    async def _watch_heartbeats(self) -> None:
        while True:
            await asyncio.sleep(min(1.0, self._limits.heartbeat / 4))
            for connection, session in list(self._sessions.items()):
                for text in session.overdue(time.monotonic()):
                    with suppress(ConnectionClosed):
                        await connection.send(text)
                        await connection.close()


@contextmanager
def running_simulator(
    files: Sequence[Path] = (),
    host: str = "127.0.0.1",
    port: int = 0,
    speed: float = 1.0,
    rate: float = 5.0,
    limits: Limits | None = None,
) -> Iterator[Simulator]:
    """Run a simulator in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="simulator", daemon=True)
    thread.start()

    async def make() -> Simulator:
        simulator = Simulator(files, host, port, speed, rate, limits=limits)
        await simulator.start()
        return simulator

    try:
        simulator = asyncio.run_coroutine_threadsafe(make(), loop).result(60)
        try:
            yield simulator
        finally:
            asyncio.run_coroutine_threadsafe(simulator.stop(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _refuse_bad_key(connection: ServerConnection, request: Request) -> Response | None:
    if _query(request, "apikey") in BAD_KEYS:
        return connection.respond(HTTPStatus.UNAUTHORIZED, "api key refused\n")
    if _query(request, "business") not in BUSINESSES:
        return connection.respond(HTTPStatus.BAD_REQUEST, "no such business\n")
    return None


def _query(request: Request, name: str) -> str:
    return parse_qs(urlsplit(request.path).query).get(name, [""])[0]


def _addressed(frame: bytes) -> tuple[Channel | None, str]:
    document = orjson.loads(frame)
    data = document.get("data")
    symbol = data.get("s") if isinstance(data, dict) else None
    code = document.get("code")
    if isinstance(symbol, str) and isinstance(code, int) and code in PUSH:
        return PUSH[code], symbol
    return None, ""
