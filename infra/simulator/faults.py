"""Carries out a script of faults on the simulator's connections; what there is stands in `script.py`."""

import asyncio
import socket
import struct
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress

import orjson
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from infra.simulator.script import Fault

_HALF_FRAME = bytes((0x81, 100)) + b'{"code":10002,"data":{"s":"'
"""The head of a text frame of 100 bytes, and the first of them."""


class Faults:
    """What is wrong just now. `connections` are those that there are."""

    def __init__(self, script: Sequence[Fault], connections: Callable[[], Collection[ServerConnection]]) -> None:
        self._script = script
        self._connections = connections
        self._until: dict[str, tuple[float, Fault]] = {}
        self._held: list[tuple[ServerConnection, bytes | str]] = []

    async def run(self) -> None:
        """Follow the script from now on to its end."""
        started = time.monotonic()
        for fault in self._script:
            await asyncio.sleep(max(started + fault.at - time.monotonic(), 0))
            await self._carry_out(fault)

    def active(self, kind: str) -> Fault | None:
        """Return the fault of a kind that lasts now."""
        until, fault = self._until.get(kind, (0.0, None))
        return fault if time.monotonic() < until else None

    async def deliver(self, connection: ServerConnection, frame: bytes | str) -> None:
        """Send a push, unless a fault has it otherwise."""
        if self.active("stall"):
            return
        if self.active("burst"):
            self._held.append((connection, frame))
            return
        if slow := self.active("slow"):
            await asyncio.sleep(slow.delay)
        with suppress(ConnectionClosed):
            await connection.send(frame, text=True)

    def rest(self, status: int, body: bytes) -> tuple[int, bytes]:
        """Return REST's answer as the faults leave it."""
        if fault := self.active("rest_status"):
            return fault.status, b""
        if fault := self.active("rest_error"):
            return 200, orjson.dumps({"ret": fault.ret, "msg": "by script", "traceId": "script", "data": None})
        return status, body[: len(body) // 2] if self.active("rest_truncated") else body

    async def _carry_out(self, fault: Fault) -> None:
        if fault.seconds:
            self._until[fault.do] = (time.monotonic() + fault.seconds, fault)
        connections = list(self._connections())
        match fault.do:
            case "error":
                frame = orjson.dumps({"code": fault.code, "msg": "by script"})
                for connection in connections:
                    with suppress(ConnectionClosed):
                        await connection.send(frame, text=True)
            case "disconnect":
                await asyncio.gather(*(connection.close() for connection in connections))
            case "reset":
                for connection in connections:
                    _reset(connection)
            case "half_frame":
                for connection in connections:
                    connection.transport.write(_HALF_FRAME)
                    connection.transport.close()
            case "stall":
                for connection in connections:
                    connection.transport.pause_reading()
                await asyncio.sleep(fault.seconds)
                for connection in connections:
                    if not connection.transport.is_closing():
                        connection.transport.resume_reading()
            case "burst":
                await asyncio.sleep(fault.seconds)
                del self._until["burst"]
                held, self._held = self._held, []
                for connection, push in held:
                    await self.deliver(connection, push)


def _reset(connection: ServerConnection) -> None:
    # with nothing to linger for, closing sends RST in place of FIN
    plain = connection.transport.get_extra_info("socket")
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.transport.abort()
