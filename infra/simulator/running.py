"""A simulator in a thread of its own, for tests and commands."""

import asyncio
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from infra.simulator.protocol import Limits
from infra.simulator.script import Fault
from infra.simulator.server import BAD_KEYS, Simulator


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
        simulator = Simulator(
            files, host, port, speed, rate, seed, limits, refused_keys, wait_for_subscribers, script
        )
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
