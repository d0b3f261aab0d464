"""The vendor of a drill: the simulator with a ledger of every trade that it made, late trades, its
last trade and book again at each subscription, and faults at any time."""

import asyncio
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
from evidence import VendorTrade

from infra.simulator import script
from infra.simulator.protocol import Channel, ClientSession
from infra.simulator.server import CODES, Simulator, SimulatorOptions
from infra.simulator.synthetic import MadeUpMarket

LATE_SHARE = 0.03
LATE_MS = (700, 4_000, 9_000, 40_000)
"""How much older a late trade says it is: within the watermark's delay, late, and too late."""


class Vendor(Simulator):
    """A simulator of made-up markets."""

    def __init__(self, seed: int, rate: float) -> None:
        super().__init__(SimulatorOptions(rate=rate, seed=seed))
        self.ledger: list[VendorTrade] = []
        self.paused = False
        """Whether the markets rest: nothing is pushed."""
        self._chance = random.Random(seed)
        self._last: dict[tuple[str, str, Channel], dict[str, Any]] = {}

    def strike(self, fault: script.Fault) -> None:
        """Carry out a line of a script now; from any thread."""
        assert self._loop is not None

        async def carry_out() -> None:
            if fault.do == "stall":
                # TCP loses nothing on a connection that lives: what is pushed waits
                held = script.Fault(fault.at, "burst", fault.seconds)
                self._faults._lasting.append((time.monotonic() + fault.seconds, held))
                stalled = [connection.transport for connection in self._clients]
                for transport in stalled:
                    transport.pause_reading()
                await asyncio.sleep(fault.seconds)
                for transport in stalled:
                    if not transport.is_closing():
                        transport.resume_reading()
                return
            if fault.seconds:
                self._faults._lasting.append((time.monotonic() + fault.seconds, fault))
            await self._faults._carry_out(fault)

        asyncio.run_coroutine_threadsafe(carry_out(), self._loop)

    def _push(
        self,
        market: MadeUpMarket,
        channel: Channel,
        data: dict[str, Any],
        number: int | None = None,
    ) -> None:
        if self.paused:
            return
        if channel == "trade":
            now = time.time_ns() // 1_000_000
            if self._chance.random() < LATE_SHARE:
                data = {**data, "t": data["t"] - self._chance.choice(LATE_MS)}
            self.ledger.append(VendorTrade(now, market.symbol, data["t"], data["p"], data["v"]))
        if number is None:
            self._last[market.business, market.symbol, channel] = data
            for client in self._clients.values():
                # who gets it now needs it no more
                session = client.session
                if session.business == market.business and session.wants(channel, market.symbol):
                    _served(session).add((channel, market.symbol))
        super()._push(market, channel, data, number)

    def _subscribed(self, session: ClientSession) -> None:
        super()._subscribed(session)
        client = next((c for c in self._clients.values() if c.session is session), None)
        if client is None:
            return
        served = _served(session)
        wanted: set[tuple[Channel, str]] = {("trade", symbol) for symbol in session.trades}
        wanted |= {("depth", symbol) for symbol in session.depth}
        for channel, symbol in sorted(wanted - served):
            if (data := self._last.get((session.business, symbol, channel))) is not None:
                client.outbox.put(orjson.dumps({"code": CODES[channel], "data": data}))
        served |= wanted


def _served(session: ClientSession) -> set[tuple[Channel, str]]:
    """Return what the connection got since it subscribed, its last trade or book again included."""
    found: set[tuple[Channel, str]] = session.__dict__.setdefault("served", set())
    found &= {("trade", symbol) for symbol in session.trades} | {
        ("depth", symbol) for symbol in session.depth
    }
    return found


@contextmanager
def running_vendor(seed: int, rate: float) -> Iterator[Vendor]:
    """Run a vendor in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="vendor", daemon=True)
    thread.start()

    async def make() -> Vendor:
        made = Vendor(seed, rate)
        await made.start()
        return made

    vendor = asyncio.run_coroutine_threadsafe(make(), loop).result(60)
    try:
        yield vendor
    finally:
        asyncio.run_coroutine_threadsafe(vendor.stop(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
