"""The simulator's server, WebSocket and REST on one port: connections, whom a frame is sent to, the clock of synthetic markets."""

import asyncio
import logging
import threading
import time
from collections.abc import Collection, Iterator, Sequence
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
from infra.simulator.faults import Faults
from infra.simulator.history import MadeUp, Played
from infra.simulator.http import PlainRequest, connection_of
from infra.simulator.playback import AddressedFrame, addressed, paced
from infra.simulator.protocol import PUSH, Channel, Limits, Session
from infra.simulator.rest import BUSINESSES, RestService
from infra.simulator.script import Fault
from infra.simulator.synthetic import Market, trades_on

CODES: dict[Channel, int] = {channel: code for code, channel in PUSH.items()}
BAD_KEYS = frozenset(("bad-key",))
GOODBYE = 2.0

log = logging.getLogger(__name__)


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
        refused_keys: Collection[str] = BAD_KEYS,
        wait_for_subscribers: bool = True,
        script: Sequence[Fault] = (),
    ) -> None:
        """speed: of the recordings, 0 as fast as the clients read; rate: trades a second and symbol of made-up markets.

        Without `wait_for_subscribers` a recording is played from the start on, to whoever is there.
        A missing key is refused like `refused_keys`; `script`: what goes wrong, from the start on. Raises UnreadableRecording.
        """
        self.recording: Recording | None = read_recordings(files) if files else None
        for broken in self.recording.broken if self.recording else ():
            log.warning("%s:%d: %s; passed over", broken.path, broken.line, broken.reason)
        self.finished = threading.Event()
        """Set once every frame of the recordings has been sent."""
        self._host, self._port = host, port
        self._speed, self._rate = speed, rate
        self._limits = limits or Limits()
        self._refused_keys, self._wait_for_subscribers = frozenset(refused_keys), wait_for_subscribers
        self._sessions: dict[ServerConnection, Session] = {}
        self._keys: dict[ServerConnection, str] = {}
        self._faults = Faults(script, lambda: self._sessions)
        self._markets: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._frames = addressed(self.recording.frames if self.recording else ())
        self._played = Played(self._frames)
        self._made_up = MadeUp(lambda symbol, business: Market(symbol, business, seed))
        self._rest = RestService(self._played if self.recording else self._made_up, self._refused_keys, self._limits)
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

    @property
    def rest_url(self) -> str:
        """The address for a client of REST."""
        return f"http://{self._host}:{self.port}"

    async def start(self) -> None:
        """Listen; raises OSError where the port is taken."""
        self._loop = asyncio.get_running_loop()
        # no pings of our own: they would cut off a client that reads slowly, and its frames would be lost; the heartbeat decides
        self._server = await serve(
            self._converse,
            self._host,
            self._port,
            process_request=self._refuse,
            compression=None,
            max_queue=64,
            ping_interval=None,
            create_connection=connection_of(self._answer),
        )
        self._tasks += [asyncio.create_task(self._watch_heartbeats()), asyncio.create_task(self._faults.run())]
        if self.recording is not None:
            self._tasks.append(asyncio.create_task(self._play()))

    async def stop(self) -> None:
        """Close every connection and the port; raises what a feed failed of."""
        tasks = [*self._tasks, *self._markets.values()]
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert self._server is not None
        self._server.close()
        try:
            await asyncio.wait_for(self._server.wait_closed(), GOODBYE)
        except TimeoutError:
            # a client that does not read takes no goodbye either
            for connection in list(self._sessions):
                connection.transport.abort()
            await self._server.wait_closed()
        for failure in ended:
            if isinstance(failure, Exception):
                raise failure

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
                with suppress(ConnectionClosed):
                    await connection.send(text)

        asyncio.run_coroutine_threadsafe(send(), self._loop).result(10)

    async def _converse(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        key = _query(connection.request, "apikey")
        others = [other for other, its_key in self._keys.items() if its_key == key]

        def elsewhere() -> int:
            mine = [other for other, its_key in self._keys.items() if its_key == key and other is not connection]
            return sum(len(self._sessions[other].symbols()) for other in mine)

        session = Session(_query(connection.request, "business"), time.monotonic(), self._limits, elsewhere)
        if len(others) >= self._limits.connections:
            await _end(connection, session.refuse())
            return
        self._sessions[connection], self._keys[connection] = session, key
        with suppress(ConnectionClosed):
            for text in session.greeting():
                await connection.send(text)
            async for message in connection:
                for reply in session.receive(message, time.monotonic()):
                    await connection.send(reply)
                if session.closing:
                    await connection.close()
                self._subscribed(session)
        del self._sessions[connection], self._keys[connection]

    def _subscribed(self, session: Session) -> None:
        self._changed.set()
        if self.recording is None:
            for symbol in session.symbols():
                key = (session.business, symbol)
                if key not in self._markets and trades_on(*key):
                    self._markets[key] = asyncio.create_task(self._make_up(self._made_up.market(*key)))

    async def _play(self) -> None:
        if self._wait_for_subscribers:
            await self._subscribers(self._frames)
        async for frame in paced(self._frames, self._speed):
            self._played.played += 1
            for connection, session in list(self._sessions.items()):
                # a frame that names no channel or symbol goes to all: clients must cope
                if frame.channel is None or session.wants(frame.channel, frame.symbol):
                    await self._faults.deliver(connection, frame.frame)
        self.finished.set()

    async def _subscribers(self, frames: Sequence[AddressedFrame]) -> None:
        wanted = {(frame.channel, frame.symbol) for frame in frames if frame.channel is not None}
        while not all(any(session.wants(channel, symbol) for session in self._sessions.values()) for channel, symbol in wanted):
            self._changed.clear()
            await self._changed.wait()

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
                await self._faults.deliver(connection, frame)

    async def _watch_heartbeats(self) -> None:
        while True:
            await asyncio.sleep(min(1.0, self._limits.heartbeat / 4))
            now = time.monotonic()
            overdue = [(connection, session.overdue(now)) for connection, session in list(self._sessions.items())]
            await asyncio.gather(*(_end(connection, texts) for connection, texts in overdue if texts))

    def _answer(self, request: PlainRequest) -> tuple[int, bytes]:
        return self._faults.rest(*self._rest.answer(request, time.time_ns() // 1_000_000))

    def _refuse(self, connection: ServerConnection, request: Request) -> Response | None:
        if fault := self._faults.active("refuse"):
            return connection.respond(HTTPStatus(fault.status), "by script\n")
        key = _query(request, "apikey")
        if not key or key in self._refused_keys:
            return connection.respond(HTTPStatus.UNAUTHORIZED, "api key refused\n")
        if _query(request, "business") not in BUSINESSES:
            return connection.respond(HTTPStatus.BAD_REQUEST, "no such business\n")
        return None


@contextmanager
def running_simulator(
    files: Sequence[Path] = (),
    host: str = "127.0.0.1",
    port: int = 0,
    speed: float = 1.0,
    rate: float = 5.0,
    seed: int = 0,
    limits: Limits | None = None,
    refused_keys: Collection[str] = BAD_KEYS,
    wait_for_subscribers: bool = True,
    script: Sequence[Fault] = (),
) -> Iterator[Simulator]:
    """Run a simulator in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="simulator", daemon=True)
    thread.start()

    async def make() -> Simulator:
        simulator = Simulator(files, host, port, speed, rate, seed, limits, refused_keys, wait_for_subscribers, script)
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


async def _end(connection: ServerConnection, last_words: Sequence[str]) -> None:
    try:
        async with asyncio.timeout(GOODBYE):
            for text in last_words:
                await connection.send(text)
            await connection.close()
    except (TimeoutError, ConnectionClosed):
        # a client that does not read takes no goodbye either, and close() would wait for it without end
        connection.transport.abort()


def _query(request: Request, name: str) -> str:
    return parse_qs(urlsplit(request.path).query).get(name, [""])[0]
