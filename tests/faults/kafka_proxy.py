"""A TCP proxy that knows Kafka's frames: faults of the network, placed at a chosen request.

Every client under test has a listener of the broker of its own (`Listeners`), which the broker
advertises at the proxy's address: whatever the client asks goes through the proxy.

    held = proxy.hold(Api.END_TXN)      # the next commit does not arrive, and the client is cut off
    ...                                 # the client connects again and repeats its request
    held.deliver()                      # now the first one arrives
"""

import asyncio
import struct
import threading
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, TypeVar

from infra.embedded.ports import LOOPBACK, free_ports

TIMEOUT_S = 20.0
F = TypeVar("F", bound="Fault")


class Api(IntEnum):
    """Kafka's requests, by the key in their header."""

    PRODUCE = 0
    FETCH = 1
    METADATA = 3
    FIND_COORDINATOR = 10
    JOIN_GROUP = 11
    HEARTBEAT = 12
    API_VERSIONS = 18
    INIT_PRODUCER_ID = 22
    ADD_PARTITIONS_TO_TXN = 24
    ADD_OFFSETS_TO_TXN = 25
    END_TXN = 26
    TXN_OFFSET_COMMIT = 28


@dataclass(frozen=True)
class Request:
    """The header of a request, and its bytes with the length before them."""

    api: int
    version: int
    correlation: int
    client: str
    frame: bytes

    @classmethod
    def of(cls, frame: bytes) -> "Request":
        """Read the header of a whole frame."""
        api, version, correlation, length = struct.unpack(">hhih", frame[4:14])
        return cls(api, version, correlation, frame[14 : 14 + max(length, 0)].decode(), frame)


class Fault:
    """What happens to one request: the `nth` of its kind from now on, of the client if one is
    named."""

    def __init__(self, proxy: "KafkaProxy", api: Api, nth: int, client: str | None) -> None:
        self.api, self.client = api, client
        self.request: Request | None = None
        """The request that it struck."""
        self.answer: bytes | None = None
        """The broker's answer to it, from the correlation id on, once there is one."""
        self._proxy, self._left = proxy, nth
        self._struck, self._answered = threading.Event(), threading.Event()

    def wait_struck(self) -> None:
        """Wait until the request has come."""
        assert self._struck.wait(TIMEOUT_S), (
            f"no {self.api.name} in {TIMEOUT_S:.0f} s: {self._proxy.seen}"
        )

    def wait_answered(self) -> bytes:
        """Wait for the broker's answer, which the client may never get, and return it."""
        assert self._answered.wait(TIMEOUT_S), f"no answer to {self.api.name} in {TIMEOUT_S:.0f} s"
        assert self.answer is not None
        return self.answer

    @property
    def struck(self) -> bool:
        """Whether the request has come."""
        return self._struck.is_set()

    def takes(self, request: Request) -> bool:
        """Count the request; True for the one that the fault is for."""
        if self.struck or request.api != self.api or self.client not in (None, request.client):
            return False
        self._left -= 1
        if self._left == 0:
            self.request = request
            self._struck.set()
        return self._left == 0

    def answered(self, answer: bytes) -> None:
        """Note the broker's answer."""
        self.answer = answer
        self._answered.set()

    async def on_request(self, connection: "Connection", request: Request) -> None:
        """Do with the request what the fault does; passes it on by default."""
        await connection.send_up(request)

    async def on_answer(self, connection: "Connection", frame: bytes) -> None:
        """Do with the broker's answer what the fault does; passes it on by default."""
        await connection.send_down(frame)


class Held(Fault):
    """A request that is kept back until `deliver()`."""

    def __init__(
        self, proxy: "KafkaProxy", api: Api, nth: int, client: str | None, cut: bool
    ) -> None:
        super().__init__(proxy, api, nth, client)
        self._cut = cut
        self._delivered = asyncio.Event()

    def deliver(self, wait: bool = True) -> None:
        """Let the broker have the request now, and wait until it has answered it."""
        self.wait_struck()
        self._proxy.in_loop(self._deliver())
        if wait:
            self.wait_answered()

    async def _deliver(self) -> None:
        self._delivered.set()

    async def on_request(self, connection: "Connection", request: Request) -> None:
        """Keep the request; what the same connection brings after it waits too, as on a real
        one."""
        if self._cut:
            connection.cut_client()
        await self._delivered.wait()
        await connection.send_up(request)


class AnswerCut(Fault):
    """A request that the broker gets while the client is cut off without the answer; `before` the
    broker has it, or after."""

    def __init__(
        self, proxy: "KafkaProxy", api: Api, nth: int, client: str | None, before: bool
    ) -> None:
        super().__init__(proxy, api, nth, client)
        self._before = before

    async def on_request(self, connection: "Connection", request: Request) -> None:
        """Pass the request on, the client gone already or not yet."""
        if self._before:
            connection.cut_client()
        await connection.send_up(request)

    async def on_answer(self, connection: "Connection", frame: bytes) -> None:
        """Cut the client off instead of answering."""
        connection.cut_client()


class AnswerDropped(Fault):
    """A request whose answer never comes, on a connection that goes on."""

    async def on_answer(self, connection: "Connection", frame: bytes) -> None:
        """Pass nothing on."""


@dataclass(eq=False)
class Connection:
    """One client's connection and the broker's side of it."""

    proxy: "KafkaProxy"
    client: asyncio.StreamWriter
    broker: asyncio.StreamWriter
    faults: dict[int, Fault] = field(default_factory=dict)
    """By the correlation id of the request that each struck."""

    async def send_up(self, request: Request) -> None:
        """Give the broker a request."""
        self.broker.write(request.frame)
        await self.broker.drain()

    async def send_down(self, frame: bytes) -> None:
        """Give the client an answer, if it is still there."""
        if not self.client.is_closing():
            self.client.write(frame)
            await self.client.drain()

    def cut_client(self) -> None:
        """Break the client's side; the broker's stays."""
        self.client.transport.abort()


class KafkaProxy:
    """Stands before one listener of a broker, in a thread of its own."""

    def __init__(self, port: int, broker_port: int) -> None:
        self.address = f"{LOOPBACK}:{port}"
        self.delay_s = 0.0
        """How long each request and each answer is under way."""
        self.seen: Counter[str] = Counter()
        """How many requests of each kind have come."""
        self._port, self._broker_port = port, broker_port
        self._faults: list[Fault] = []
        self._connections: set[Connection] = set()
        self._clients: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._refusing = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name=f"kafka-proxy-{port}", daemon=True
        )

    def __enter__(self) -> "KafkaProxy":
        self._thread.start()
        self.in_loop(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self.in_loop(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def hold(self, api: Api, nth: int = 1, client: str | None = None, cut: bool = True) -> Held:
        """Keep the request back, its client cut off or (cut=False) left waiting; other connections
        overtake it."""
        return self._add(Held(self, api, nth, client, cut))

    def cut_answer(
        self, api: Api, nth: int = 1, client: str | None = None, before: bool = False
    ) -> AnswerCut:
        """Cut the client off after the broker has done what it asked, or while the request is on
        its way."""
        return self._add(AnswerCut(self, api, nth, client, before))

    def drop_answer(self, api: Api, nth: int = 1, client: str | None = None) -> AnswerDropped:
        """Lose the answer alone: the client waits for it until its own timeout."""
        return self._add(AnswerDropped(self, api, nth, client))

    def lift(self, fault: Fault) -> None:
        """Place a fault no more; what it struck already stays struck."""

        async def remove() -> None:
            if fault in self._faults:
                self._faults.remove(fault)

        self.in_loop(remove())

    def cut(self) -> None:
        """Break every connection; the client may connect again at once."""
        self.in_loop(self._cut())

    def refuse(self) -> None:
        """Break every connection and every new one, until `restore()`."""
        self._refusing = True
        self.cut()

    def freeze(self) -> None:
        """Pass nothing on, in either direction, with every connection left open (half-open), until
        `restore()`."""
        self.in_loop(self._freeze(True))

    def restore(self) -> None:
        """End `refuse()` and `freeze()`; what was held up by the latter is passed on."""
        self._refusing = False
        self.in_loop(self._freeze(False))

    def in_loop(self, call: Coroutine[Any, Any, None]) -> None:
        """Run something in the proxy's thread and wait for its end."""
        asyncio.run_coroutine_threadsafe(call, self._loop).result(TIMEOUT_S)

    def _add(self, fault: F) -> F:
        async def add() -> None:
            self._faults.append(fault)

        self.in_loop(add())
        return fault

    async def _listen(self) -> None:
        self._passing = asyncio.Event()
        self._passing.set()
        self._server = await asyncio.start_server(self._accept, LOOPBACK, self._port)

    async def _close(self) -> None:
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        for writer in self._clients:  # of one that was not served yet
            writer.transport.abort()

    async def _cut(self) -> None:
        for connection in self._connections:
            connection.cut_client()

    async def _freeze(self, frozen: bool) -> None:
        if frozen:
            self._passing.clear()
        else:
            self._passing.set()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.add(writer)
        serving = self._loop.create_task(self._serve(reader, writer))
        self._serving.add(serving)
        serving.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._refusing:
                return
            broker_reader, broker_writer = await asyncio.open_connection(
                LOOPBACK, self._broker_port
            )
            connection = Connection(self, writer, broker_writer)
            self._connections.add(connection)
            await asyncio.gather(
                self._requests(connection, reader), self._answers(connection, broker_reader)
            )
        except OSError:
            pass  # the broker is away: its client is cut off
        finally:
            writer.transport.abort()
            self._clients.discard(writer)

    async def _requests(self, connection: Connection, reader: asyncio.StreamReader) -> None:
        try:
            while frame := await _frame(reader):
                await self._under_way()
                request = Request.of(frame)
                self.seen[_name(request.api)] += 1
                fault = next((fault for fault in self._faults if fault.takes(request)), None)
                if fault is None:
                    await connection.send_up(request)
                else:
                    connection.faults[request.correlation] = fault
                    await fault.on_request(connection, request)
        except OSError:
            pass  # either side is gone: so is the connection
        finally:
            # the broker's side outlives a client that was cut off: the answer to what it sent is
            # still of interest
            if not connection.faults:
                connection.broker.close()

    async def _answers(self, connection: Connection, reader: asyncio.StreamReader) -> None:
        try:
            while frame := await _frame(reader):
                await self._under_way()
                fault = connection.faults.pop(struct.unpack(">i", frame[4:8])[0], None)
                if fault is None:
                    await connection.send_down(frame)
                else:
                    fault.answered(frame[4:])
                    await fault.on_answer(connection, frame)
        except OSError:
            pass
        finally:
            connection.client.close()
            connection.broker.close()
            self._connections.discard(connection)

    async def _under_way(self) -> None:
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        await self._passing.wait()


class Listeners:
    """Further listeners of an embedded broker, each advertised at the address of a proxy."""

    def __init__(self, count: int) -> None:
        ports = free_ports(*[0] * (2 * count))
        self._ports = list(zip(ports[::2], ports[1::2], strict=True))

    def properties(self, properties: dict[str, object]) -> dict[str, object]:
        """Return the broker's configuration with the listeners: what `Stack` takes."""
        changed = dict(properties)
        for number, (port, broker_port) in enumerate(self._ports):
            for name, value in (("listeners", broker_port), ("advertised.listeners", port)):
                changed[name] = f"{changed[name]},PROXIED{number}://{LOOPBACK}:{value}"
            name = "listener.security.protocol.map"
            changed[name] = f"{changed[name]},PROXIED{number}:PLAINTEXT"
        return changed

    def proxy(self, number: int = 0) -> KafkaProxy:
        """Return the proxy before one of them; it runs while it is used as a context."""
        return KafkaProxy(*self._ports[number])


async def _frame(reader: asyncio.StreamReader) -> bytes | None:
    """Return the next frame with its length, None at the end of the connection."""
    try:
        length = await reader.readexactly(4)
        return length + await reader.readexactly(struct.unpack(">i", length)[0])
    except asyncio.IncompleteReadError:
        return None


def _name(api: int) -> str:
    return Api(api).name if api in Api._value2member_map_ else str(api)
