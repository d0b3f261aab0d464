"""A simulator in a thread of its own, for tests and commands."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infra.simulator.server import Simulator, SimulatorOptions


@contextmanager
def running_simulator(files: Sequence[Path] = (), **options: Any) -> Iterator[Simulator]:
    """Run a simulator in a thread of its own; `options` are those of SimulatorOptions."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="simulator", daemon=True)
    thread.start()

    async def make() -> Simulator:
        simulator = Simulator(SimulatorOptions(files, **options))
        await simulator.start()
        return simulator

    try:
        simulator = asyncio.run_coroutine_threadsafe(make(), loop).result(60)
        try:
            yield simulator
        finally:
            asyncio.run_coroutine_threadsafe(simulator.stop(), loop).result(60)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
