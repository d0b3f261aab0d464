"""Pushes on their way to one client, sent by a task of their own: a client that reads slowly, or
not at all, holds up no other."""

import asyncio
import logging
from collections import deque

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from infra.simulator.faults import Faults

MOST = 50_000
"""Pushes of made-up markets that wait for a client, those of a burst included; what the vendor does
with more is not known."""

log = logging.getLogger(__name__)


class Outbox:
    """What waits for one client, in order; `run` is the task that sends it."""

    def __init__(self, connection: ServerConnection, faults: Faults) -> None:
        self._connection = connection
        self._faults = faults
        self._pushes: deque[bytes] = deque()
        self._more, self._fewer = asyncio.Event(), asyncio.Event()
        self._ended = False
        self._lost = 0

    def put(self, push: bytes) -> None:
        """Take a push; it is lost where MOST wait already."""
        if len(self._pushes) >= MOST:
            if not self._lost:
                log.warning(
                    "a client reads too slowly: with %d pushes waiting for it, more are lost", MOST
                )
            self._lost += 1
            return
        self._pushes.append(push)
        self._more.set()

    async def fewer_than(self, most: int) -> None:
        """Wait until fewer pushes are on their way, or none of them can arrive any more."""
        while len(self._pushes) >= most and not self._ended:
            self._fewer.clear()
            await self._fewer.wait()

    async def run(self) -> None:
        """Send what is put, as the faults leave it, until the connection ends."""
        try:
            while True:
                while self._pushes:
                    if await self._faults.lets_through(self._connection):
                        await self._connection.send(self._pushes[0], text=True)
                    self._pushes.popleft()
                    self._fewer.set()
                self._more.clear()
                await self._more.wait()
        except ConnectionClosed:
            # what was on its way to it is lost, as on any network
            pass
        finally:
            self._ended = True
            self._fewer.set()
