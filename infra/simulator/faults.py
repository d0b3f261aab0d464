"""Carries out a script of faults on the simulator's connections; what there is stands in
`script.py`."""

import asyncio
import socket
import struct
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Any

import orjson
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from infra.simulator.protocol import SUBSCRIBE_FAIL, ack_of, error
from infra.simulator.script import Fault

_HALF_FRAME = bytes((0x81, 100)) + b'{"code":10002,"data":{"s":"'
"""The head of a text frame of 100 bytes, and the first of them."""


_ANSWERS: dict[str, Callable[[Fault, int, Any], str]] = {
    "next_error": lambda fault, code, trace: error(fault.code, "by script", trace),
    "next_fail": lambda fault, code, trace: (
        f"{SUBSCRIBE_FAIL} {error(fault.code, 'by script', trace)}"
    ),
    "next_prose": lambda fault, code, trace: f"{SUBSCRIBE_FAIL} by script",
    "next_ack": lambda fault, code, trace: ack_of(code, trace),
}


class Faults:
    """What is wrong just now. `connections` are those that there are."""

    def __init__(
        self, script: Sequence[Fault], connections: Callable[[], Collection[ServerConnection]]
    ) -> None:
        self._script = script
        self._connections = connections
        self._lasting: list[tuple[float, Fault]] = []
        """Faults that last, each with its end, in the order of their begins."""
        self._stalled: dict[ServerConnection, float] = {}
        """Connections on which nothing moves, each with the end of that."""
        self._next: list[Fault] = []
        """Answers for requests to come."""

    async def run(self) -> None:
        """Follow the script from now on to its end; each step is a task of its own, and holds up no
        later one."""
        started = time.monotonic()
        async with asyncio.TaskGroup() as steps:
            for fault in self._script:
                await asyncio.sleep(max(started + fault.at - time.monotonic(), 0))
                if fault.do.startswith("next_"):
                    self._next.append(fault)
                if fault.seconds:
                    self._lasting.append((time.monotonic() + fault.seconds, fault))
                steps.create_task(self._carry_out(fault))

    def active(self, kind: str) -> Fault | None:
        """Return the fault of a kind that lasts now; of several the one that began last."""
        now = time.monotonic()
        return next(
            (fault for until, fault in reversed(self._lasting) if fault.do == kind and now < until),
            None,
        )

    async def lets_through(self, connection: ServerConnection) -> bool:
        """Wait as long as a push to a connection is held up; return whether it is sent at all."""
        while ends := [
            until
            for until, fault in self._lasting
            if fault.do == "burst" and time.monotonic() < until
        ]:
            await asyncio.sleep(max(ends) - time.monotonic())
        if slow := self.active("slow"):
            await asyncio.sleep(slow.delay)
        return connection not in self._stalled

    def answer(self, code: int, trace: Any, symbols: set[str]) -> str | None:
        """Return the scripted answer to a subscription or unsubscription, None where there is none;
        each is given once."""
        for fault in self._next:
            if (
                fault.do in _ANSWERS
                and fault.request in (0, code)
                and (not fault.symbol or fault.symbol in symbols)
            ):
                self._next.remove(fault)
                return _ANSWERS[fault.do](fault, code, trace)
        return None

    def rest(self, status: int, body: bytes) -> tuple[int, bytes]:
        """Return REST's answer as the faults leave it."""
        if fault := self.active("rest_status"):
            return fault.status, b""
        if fault := next((fault for fault in self._next if fault.do == "next_rest"), None):
            self._next.remove(fault)
            return _rest_error(fault)
        if fault := self.active("rest_error"):
            return _rest_error(fault)
        return status, body[: len(body) // 2] if self.active("rest_truncated") else body

    async def _carry_out(self, fault: Fault) -> None:
        connections = list(self._connections())
        match fault.do:
            case "error":
                frame = error(fault.code, "by script", None)
                await asyncio.gather(*(_say(connection, frame) for connection in connections))
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
                await self._stall(connections, time.monotonic() + fault.seconds)

    async def _stall(self, connections: Collection[ServerConnection], until: float) -> None:
        for connection in connections:
            self._stalled[connection] = max(until, self._stalled.get(connection, 0.0))
            connection.transport.pause_reading()
        await asyncio.sleep(until - time.monotonic())
        for connection in connections:
            # another stall may have begun in this one, and last longer
            if self._stalled.get(connection) == until:
                del self._stalled[connection]
                if not connection.transport.is_closing():
                    connection.transport.resume_reading()


def _rest_error(fault: Fault) -> tuple[int, bytes]:
    return 200, orjson.dumps(
        {"ret": fault.ret, "msg": "by script", "traceId": "script", "data": None}
    )


async def _say(connection: ServerConnection, frame: str) -> None:
    with suppress(ConnectionClosed):
        await connection.send(frame)


def _reset(connection: ServerConnection) -> None:
    # with nothing to linger for, closing sends RST in place of FIN
    plain = connection.transport.get_extra_info("socket")
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.transport.abort()
