"""The project's own workers in a benchmark: records of theirs alone, and what they take for
them."""

import io
import time
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType

import fastavro
import psutil
from load import PARTITIONS, Load, check, send
from others import Result

from infra import topology
from infra.kafka.lag import Lag
from infra.runtime.deployment import Deployment
from infra.runtime.supervisor import Supervisor
from schemas.clients.registry import Registry
from schemas.topics import RAW_TRADE, Topology, load_schema

DEFAULT = Topology()
NO_SETTINGS: Mapping[str, str] = MappingProxyType({})
_BAR = fastavro.parse_schema(load_schema("bar"))


def trades(
    folder: Path,
    deployment: Deployment,
    load: Load,
    intervals: str = "1m,5m,15m,1h,1d",
    windows: str = "1m,5m,session",
    emit_ms: int | None = None,
    workers: int = 1,
) -> Result:
    """Return what our workers take for trades, and hold the bars of a minute against them."""
    names = replace(
        DEFAULT, intervals=tuple(intervals.split(",")), windows=tuple(windows.split(","))
    )
    emit = {} if emit_ms is None else {"INFOWAY_EMIT_MS": str(emit_ms)}
    result, mine = measured(folder, deployment, RAW_TRADE, load.values, names, emit, workers)
    check(deployment, mine.name("infoway.bars.1m"), load.volumes, our_bar)
    return result


def measured(
    folder: Path,
    deployment: Deployment,
    topic: str,
    values: list[tuple[str, bytes]],
    names: Topology = DEFAULT,
    settings: Mapping[str, str] = NO_SETTINGS,
    workers: int = 1,
) -> tuple[Result, Topology]:
    """Put records into a raw topic under a prefix of their own; return what our workers take for
    them, and the topology."""
    prefix = f"{folder.name}."
    names = replace(names, prefix=prefix, partitions=PARTITIONS)
    registry = Registry(deployment.registry_url)
    mine = replace(
        deployment,
        topology=names,
        schema_ids=topology.apply(deployment.bootstrap, registry, names),
    )
    send(mine, values, topic)
    count = len(values)
    lag = Lag(mine.bootstrap, f"{prefix}infoway-processors", [names.name(topic)])
    with Supervisor({**mine.environment, **settings}, workers, folder / "logs") as supervisor:
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
    (half_wall, half_cpu), left = half if half is not None and half[0] else (began, count)
    share = count / 2 / left
    result = Result(
        count,
        end[0] - began[0],
        end[1] - began[1],
        (end[0] - half_wall) * share,
        (end[1] - half_cpu) * share,
        mib,
    )
    return result, names


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
