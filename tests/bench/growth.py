"""What a trade costs by the number of symbols, the span of event time, the windows and the workers,
and how long states are loaded; `make bench-growth`.

Microseconds of CPU a trade of the whole run, with the default outputs but where a row says
otherwise: flat, or to be explained in docs/performance.md. Figures are of this machine and hour.
"""

import argparse
import signal
import tempfile
import time
from functools import partial
from pathlib import Path

from load import PARTITIONS, made
from ours import measured, trades

from infra.runtime.deployment import Deployment, deployed
from processors.agents.bars.agent import Bars
from processors.agents.vwap.agent import Vwap
from processors.engine.assigned import Agent, restored
from processors.engine.state import load_states, topic_ids
from processors.kernels.compiled import AVAILABLE
from processors.model.event_time import EventTime
from processors.model.sessions import Calendars
from schemas.topics import RAW_TRADE, Topology

HOUR_MS = 3_600_000


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--trades", type=int, default=300_000)
    count = options.parse_args().trades
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        deployed(Topology("growth.", partitions=PARTITIONS), Path(folder) / "stack") as deployment,
    ):
        show = partial(row, deployment, Path(folder), count)
        for symbols in (10, 100, 1_000, 10_000):
            show(f"{symbols:,} symbols", symbols=symbols)
        for hours in (1, 6, 24):
            show(f"{hours} h of event time", step_ms=hours * HOUR_MS // count)
        for window in ("1m", "15m", "1h", "4h"):
            show(f"one window, {window}", windows=window)
        for workers in (1, 2):
            show(f"workers: {workers}", workers=workers)
        states(deployment, Path(folder), count)


def row(
    deployment: Deployment,
    folder: Path,
    count: int,
    name: str,
    symbols: int = 50,
    step_ms: int = 5,
    windows: str = "1m,5m,session",
    workers: int = 1,
) -> None:
    """Measure one setting and print its line."""
    path = folder / f"job-{len(list(folder.iterdir()))}"
    path.mkdir()
    load = made(count, symbols, step_ms)
    result = trades(path, deployment, load, windows=windows, workers=workers)
    print(
        f"{name:24} {result.cpu / count * 1e6:6.1f} us of CPU a trade "
        f"{result.wall / count * 1e6:6.1f} us in all {result.mib:6.0f} MiB",
        flush=True,
    )


def states(deployment: Deployment, folder: Path, count: int) -> None:
    """Print how long the states of 5,000 symbols take to be loaded after an hour of event time."""
    path = folder / "job-states"
    path.mkdir()
    load = made(count, 5_000, HOUR_MS // count)
    _, names = measured(path, deployment, RAW_TRADE, load.values)
    calendars, source = Calendars(), names.name(RAW_TRADE)
    agents = [
        Agent(computation, (source,), names.name(f"infoway.state.{computation.name}"), False)
        for computation in (
            Vwap(names.windows, calendars, EventTime()),
            Bars(names.intervals, calendars, EventTime(), native=AVAILABLE),
        )
    ]
    ids = topic_ids(deployment.bootstrap, [source])
    starts = {(source, partition): 0 for partition in range(PARTITIONS)}
    began = time.monotonic()
    wanted = [(agent.state_topic, partition) for agent in agents for partition in range(PARTITIONS)]
    found = load_states(deployment.bootstrap, wanted)
    for agent in agents:
        for partition in range(PARTITIONS):
            restored(agent, partition, found[agent.state_topic, partition], starts, ids)
    seconds = time.monotonic() - began
    size = sum(len(k) + len(v) for entries in found.values() for k, v in entries.items())
    print(f"states of 5,000 symbols: {size / 2**20:.1f} MiB loaded in {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    # an end from outside is to end what was started, too
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    main()
