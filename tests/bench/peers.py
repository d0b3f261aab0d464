"""The pipeline beside Kafka Streams, quixstreams and stock Faust, on the same raw topic in one run;
`make bench-peers`.

Every figure is of this machine and this run: compare ratios. Each result is checked for the sum of
its bars' volumes before its time counts. A peer that cannot be had is left out by name.
"""

import argparse
import io
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import fastavro
import psutil
from load import PARTITIONS, Load, check, made, make_topics, send
from others import Missing, Result, python_peer, streams

from infra import topology
from infra.kafka.reader import Lag
from infra.runtime.deployment import Deployment, deployed
from infra.runtime.supervisor import Supervisor
from schemas.clients.registry import Registry
from schemas.topics import RAW_TRADE, Topology, load_schema

_BAR = fastavro.parse_schema(load_schema("bar"))


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--trades", type=int, default=1_000_000)
    options.add_argument("--slow", type=int, default=100_000, help="trades for the slow peers")
    options.add_argument("--symbols", type=int, default=50)
    options.add_argument("--only", default="", help="jobs whose name has this text")
    options.add_argument("--without", default="", help="jobs to leave out, separated by commas")
    chosen = options.parse_args()
    load = made(chosen.trades, chosen.symbols)
    names = Topology("peers.", partitions=PARTITIONS)
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        deployed(names, Path(folder) / "stack") as deployment,
    ):
        send(deployment, load.values)
        raw = names.name(RAW_TRADE)
        slow_raw = slow_topic(deployment, load.values[: chosen.slow])
        jobs: dict[str, Callable[[Path], Result]] = {
            "ours: bars": lambda path: ours(path, deployment, load, "1m", "1m", 60_000),
            "ours: bars and a VWAP row": lambda path: ours(path, deployment, load, "1m", "1m"),
            "ours: default outputs": lambda path: ours(path, deployment, load),
            "Kafka Streams, Processor API: bars": lambda path: streams(
                path, deployment, load, raw, "processor", rows=False
            ),
            "Kafka Streams, Processor API: bars and a VWAP row": lambda path: streams(
                path, deployment, load, raw, "processor", rows=True
            ),
            "Kafka Streams, DSL: bars": lambda path: streams(
                path, deployment, load, raw, "dsl", rows=False
            ),
            "quixstreams: bars": lambda path: python_peer(
                path, deployment, chosen.slow, load, slow_raw, "quix.py", "quixstreams"
            ),
            "stock Faust, at least once: bars": lambda path: python_peer(
                path, deployment, chosen.slow, load, slow_raw, "stock_faust.py", "faust"
            ),
        }
        print(f"{chosen.trades:,} trades of {chosen.symbols:,} symbols, {PARTITIONS} partitions")
        for number, (name, job) in enumerate(jobs.items()):
            if chosen.only not in name or any(
                each and each in name for each in chosen.without.split(",")
            ):
                continue
            path = Path(folder) / f"job-{number}"
            path.mkdir()
            try:
                print(f"{name:52} {job(path).shown()}", flush=True)
            except Missing as missing:
                print(f"{name:52} left out: {missing}", flush=True)


def slow_topic(deployment: Deployment, values: list[tuple[str, bytes]]) -> str:
    """Return a raw topic with fewer trades, for peers that would take minutes."""
    name = "peers.slow.raw"
    make_topics(deployment, name)
    send(deployment, values, name)
    return name


def ours(
    folder: Path,
    deployment: Deployment,
    load: Load,
    intervals: str = "1m,5m,15m,1h,1d",
    windows: str = "1m,5m,session",
    emit_ms: int | None = None,
    workers: int = 1,
) -> Result:
    """Return what our workers take, from a topic of their own with the same records."""
    prefix = f"{folder.name}."
    names = Topology(
        prefix, tuple(intervals.split(",")), tuple(windows.split(",")), partitions=PARTITIONS
    )
    registry = Registry(deployment.registry_url)
    mine = replace(
        deployment,
        topology=names,
        schema_ids=topology.apply(deployment.bootstrap, registry, names),
    )
    send(mine, load.values)
    count = len(load.values)
    emit = {} if emit_ms is None else {"INFOWAY_EMIT_MS": str(emit_ms)}
    lag = Lag(mine.bootstrap, f"{prefix}infoway-processors", [names.name(RAW_TRADE)])
    with Supervisor({**mine.environment, **emit}, workers, folder / "logs") as supervisor:
        while lag() == count:
            supervisor.check()
            time.sleep(0.01)
        running = processes_of(supervisor)
        began, half = times_of(running), None
        while (left := lag()) > 0:
            supervisor.check()
            if half is None and left <= count / 2:
                half = times_of(running), left
            time.sleep(0.01)
        end = times_of(running)
        mib = max(process.memory_info().rss for process in running) / 2**20
    check(deployment, names.name("infoway.bars.1m"), load.volumes, our_bar)
    (half_wall, half_cpu), left = half if half is not None and half[0] else (began, count)
    share = count / 2 / left
    return Result(
        count,
        end[0] - began[0],
        end[1] - began[1],
        (end[0] - half_wall) * share,
        (end[1] - half_cpu) * share,
        mib,
    )


def processes_of(supervisor: Supervisor) -> list[psutil.Process]:
    """Return the workers' processes."""
    slots = [slot.process for slot in supervisor._slots]
    return [psutil.Process(process.pid) for process in slots if process is not None]


def times_of(processes: list[psutil.Process]) -> tuple[float, float]:
    """Return the present time and the CPU time of all of them."""
    return time.monotonic(), sum(sum(process.cpu_times()[:2]) for process in processes)


def our_bar(key: bytes, value: bytes) -> tuple[tuple[str, int], Fraction] | None:
    """Return symbol, start and volume of a bar of ours that is closed."""
    found = fastavro.schemaless_reader(io.BytesIO(value[5:]), _BAR)
    start = int(found["ts_start"].timestamp() * 1000)
    return ((found["symbol"], start), Fraction(found["volume"])) if found["is_closed"] else None


if __name__ == "__main__":
    # an end from outside is to end what was started, too
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    main()
