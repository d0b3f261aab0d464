"""The simulator's server, WebSocket and REST on one port: connections, whom a frame is sent to, the
clock of synthetic markets."""

import asyncio
import logging
import threading
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from infra.simulator.accounts import Account, Accounts
from infra.simulator.faults import Faults
from infra.simulator.history import MadeUp, Played
from infra.simulator.http import PlainRequest, connection_of
from infra.simulator.outbox import Outbox
from infra.simulator.playback import AddressedFrame, addressed, paced
from infra.simulator.protocol import PUSH, Channel, ClientSession, Limits
from infra.simulator.rest import BUSINESSES, RestService
from infra.simulator.script import Fault
from infra.simulator.synthetic import MadeUpMarket, trades_on
from producers.recording.reader import Recording, read_recordings

CODES: dict[Channel, int] = {channel: code for code, channel in PUSH.items()}
BAD_KEYS = frozenset(("bad-key",))
GOODBYE = 2.0
AHEAD = 100
"""Pushes of a recording on their way to one client before its next frame waits: as fast as the
clients read, and none is lost."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Client:
    """One connection with what is kept of it."""

    session: ClientSession
    account: Account
    outbox: Outbox


@dataclass(frozen=True, slots=True)
class SimulatorOptions:
    """What a simulator serves, where and how."""

    files: Sequence[Path] = ()
    """Recordings, played once everything in them is subscribed to; none: made-up markets."""
    host: str = "127.0.0.1"
    port: int = 0
    speed: float = 1.0
    """Of the recordings; 0: as fast as the clients read."""
    rate: float = 5.0
    """Trades a second and symbol of made-up markets."""
    seed: int = 0
    limits: Limits | None = None
    """None: as Limits has them by itself."""
    refused_keys: Collection[str] = BAD_KEYS
    """A missing key is refused, too."""
    wait_for_subscribers: bool = True
    """Without, a recording is played from the start on, to whoever is there."""
    script: Sequence[Fault] = ()
    """What goes wrong, from the start on."""


class Simulator:
    """A running simulator."""

    def __init__(self, options: SimulatorOptions) -> None:
        """Raises UnreadableRecording."""
        files = options.files
        self.recording: Recording | None = read_recordings(files) if files else None
        for broken in self.recording.broken if self.recording else ():
            log.warning("%s:%d: %s; passed over", broken.path, broken.line, broken.reason)
        self.finished = threading.Event()
        """Set once every frame of the recordings has been sent."""
        self._host, self._port = options.host, options.port
        self._speed, self._rate = options.speed, options.rate
        self._wait_for_subscribers = options.wait_for_subscribers
        refused_keys = frozenset(options.refused_keys)
        self._limits = options.limits or Limits()
        self._accounts = Accounts(self._limits, refused_keys)
        self._clients: dict[ServerConnection, Client] = {}
        self._faults = Faults(options.script, lambda: self._clients)
        self._markets: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._frames = addressed(self.recording.frames if self.recording else ())
        self._played = Played(self._frames)
        self._made_up = MadeUp(
            lambda symbol, business: MadeUpMarket(symbol, business, options.seed)
        )
        self._rest = RestService(
            self._played if self.recording else self._made_up, refused_keys, self._limits
        )
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
        # no pings of our own: they would cut off a client that reads slowly, and its frames would
        # be lost; the heartbeat decides
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
        self._tasks += [
            asyncio.create_task(self._watch_heartbeats()),
            asyncio.create_task(self._faults.run()),
        ]
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
            for connection in list(self._clients):
                connection.transport.abort()
            await self._server.wait_closed()
        for failure in ended:
            if isinstance(failure, Exception):
                raise failure

    def drop_connections(self) -> None:
        """Cut every connection without a goodbye, as a network does; from any thread."""
        assert self._loop is not None
        for connection in list(self._clients):
            self._loop.call_soon_threadsafe(connection.transport.abort)

    def send_raw(self, text: str) -> None:
        """Send a text to every client, whatever it is; from any thread."""
        assert self._loop is not None

        async def send() -> None:
            for connection in list(self._clients):
                with suppress(ConnectionClosed):
                    await connection.send(text)

        asyncio.run_coroutine_threadsafe(send(), self._loop).result(60)

    async def _converse(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        parameters = _parameters(connection.request.path)
        assert parameters is not None  # _refuse let it through
        business, key = parameters
        account = self._accounts.of(key)
        session = account.session(business, time.monotonic(), self._faults.answer)
        if account.full:
            await _end(connection, session.refuse())
            return
        outbox = Outbox(connection, self._faults)
        self._clients[connection] = Client(session, account, outbox)
        account.sessions.append(session)
        try:
            async with asyncio.TaskGroup() as tasks:
                sending = tasks.create_task(outbox.run())
                with suppress(ConnectionClosed):
                    await self._listen(connection, session, account)
                sending.cancel()
        finally:
            del self._clients[connection]
            account.sessions.remove(session)

    async def _listen(
        self, connection: ServerConnection, session: ClientSession, account: Account
    ) -> None:
        for text in session.greeting():
            await connection.send(text)
        async for message in connection:
            for reply in session.receive(message, time.monotonic()):
                await connection.send(reply)
            if session.flooded:
                await self._flooded(connection, account)
                return
            self._subscribed(session)

    async def _flooded(self, connection: ServerConnection, account: Account) -> None:
        account.closures += 1
        others = [
            (other, client.session)
            for other, client in self._clients.items()
            if client.account is account and other is not connection
        ]
        banned = [_end(other, session.ban()) for other, session in others if account.banned]
        await asyncio.gather(_end(connection, ()), *banned)

    def _subscribed(self, session: ClientSession) -> None:
        self._changed.set()
        if self.recording is None:
            for symbol in session.symbols():
                key = (session.business, symbol)
                if key not in self._markets and trades_on(*key):
                    self._markets[key] = asyncio.create_task(
                        self._make_up(self._made_up.market(*key))
                    )

    async def _play(self) -> None:
        if self._wait_for_subscribers:
            await self._subscribers(self._frames)
        async for frame in paced(self._frames, self._speed):
            self._played.played += 1
            for client in list(self._clients.values()):
                # a frame that names no channel or symbol goes to all: clients must cope
                if frame.channel is None or client.session.wants(frame.channel, frame.symbol):
                    await client.outbox.fewer_than(AHEAD)
                    client.outbox.put(frame.frame)
        await asyncio.gather(*(client.outbox.fewer_than(1) for client in self._clients.values()))
        self.finished.set()

    async def _subscribers(self, frames: Sequence[AddressedFrame]) -> None:
        wanted = {(frame.channel, frame.symbol) for frame in frames if frame.channel is not None}
        while not all(
            any(client.session.wants(channel, symbol) for client in self._clients.values())
            for channel, symbol in wanted
        ):
            self._changed.clear()
            await self._changed.wait()

    async def _make_up(self, market: MadeUpMarket) -> None:
        pause = 1 / self._rate
        sent: dict[int, dict[str, Any]] = {}
        while True:
            await asyncio.sleep(pause)
            now = time.time_ns() // 1_000_000
            trade, book = market.trade(now), market.book(now)
            self._push(market, "trade", trade)
            self._push(market, "depth", book)
            klines = {pair for client in self._clients.values() for pair in client.session.klines}
            for number in {number for symbol, number in klines if symbol == market.symbol}:
                kline = market.kline(number)
                if kline is not None and kline != sent.get(number):
                    sent[number] = kline
                    self._push(market, "kline", kline, number)

    def _push(
        self,
        market: MadeUpMarket,
        channel: Channel,
        data: dict[str, Any],
        number: int | None = None,
    ) -> None:
        plain = orjson.dumps({"code": CODES[channel], "data": data})
        for client in self._clients.values():
            session = client.session
            if session.business == market.business and session.wants(
                channel, market.symbol, number
            ):
                typed = channel == "trade" and market.symbol in session.with_type
                client.outbox.put(
                    orjson.dumps({"code": CODES[channel], "data": {**data, "ty": ""}})
                    if typed
                    else plain
                )

    async def _watch_heartbeats(self) -> None:
        async with asyncio.TaskGroup() as ends:
            while True:
                await asyncio.sleep(min(1.0, self._limits.heartbeat / 4))
                for connection, client in self._clients.items():
                    if texts := client.session.overdue(time.monotonic()):
                        ends.create_task(_end(connection, texts))

    def _answer(self, request: PlainRequest) -> tuple[int, bytes]:
        return self._faults.rest(*self._rest.answer(request, time.time_ns() // 1_000_000))

    def _refuse(self, connection: ServerConnection, request: Request) -> Response | None:
        if fault := self._faults.active("refuse"):
            return connection.respond(HTTPStatus(fault.status), "by script\n")
        parameters = _parameters(request.path)
        if parameters is None:
            return connection.respond(HTTPStatus.BAD_REQUEST, "no address\n")
        business, key = parameters
        if self._accounts.refuses(key):
            return connection.respond(HTTPStatus.UNAUTHORIZED, "api key refused\n")
        if business not in BUSINESSES:
            return connection.respond(HTTPStatus.BAD_REQUEST, "no such business\n")
        return None


async def _end(connection: ServerConnection, last_words: Sequence[str]) -> None:
    try:
        async with asyncio.timeout(GOODBYE):
            for text in last_words:
                await connection.send(text)
            await connection.close()
    except (TimeoutError, ConnectionClosed):
        # a client that does not read takes no goodbye either, and close() would wait for it without
        # end
        connection.transport.abort()


def _parameters(path: str) -> tuple[str, str] | None:
    """Return a handshake's business and key, each empty where it is missing; None for a path that
    is none."""
    try:
        query = parse_qs(urlsplit(path).query)
    except ValueError:
        return None
    return query.get("business", [""])[0], query.get("apikey", [""])[0]
