"""Trades and records a second through the agents from a preloaded raw topic, on one worker with the
default outputs; `make bench`.

Figures are of this machine and this run; to compare, compare ratios of one run. The worker's CPU
time includes librdkafka's threads; `computation` alone is the pure functions without Kafka.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from load import made, send

from infra.kafka.lag import Lag
from infra.kafka.reader import read_to_end
from infra.runtime.deployment import deployed
from infra.runtime.supervisor import Supervisor
from processors.agents.bars.agent import Bars
from processors.agents.vwap.agent import Vwap
from processors.decode.raw_records import trade_of
from processors.engine.outputs import Outputs
from processors.model.event_time import EventTime
from processors.model.records import Trade
from processors.model.sessions import Calendars
from schemas.records import RawTradeRecord
from schemas.topics import Topology, load_schema
from schemas.wire import compile_decoder

SYMBOLS = 50
BATCH = 2000


def main() -> None:
    """Print the figures."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--trades", type=int, default=300_000)
    count = options.parse_args().trades
    values = made(count, SYMBOLS).values
    stages(values[:40_000])
    through_kafka(values)


def stages(values: list[tuple[str, bytes]]) -> None:
    """Print microseconds a trade of each stage, alone in this process."""
    decode, names = compile_decoder(load_schema("raw_trade"), RawTradeRecord), Topology()
    outputs = Outputs.of(names, dict.fromkeys((topic.name for topic in names.derived()), 1))
    raw: list[RawTradeRecord] = []
    trades: list[Trade] = []
    rows: list[tuple[str, str, tuple[object, ...]]] = []
    timed("decode Avro", len(values), lambda: raw.extend(decode(value) for _, value in values))
    timed(
        "read numbers",
        len(values),
        lambda: trades.extend(trade_of(offset, record) for offset, record in enumerate(raw)),
    )
    calendars = Calendars()
    core = 0.0
    for computation in (
        Vwap(names.windows, calendars, EventTime()),
        Bars(names.intervals, calendars, EventTime()),
    ):
        state = computation.load(0, {})

        def run(computation: object = computation, state: object = state) -> None:
            for start in range(0, len(trades), BATCH):
                rows.extend(computation.apply(state, trades[start : start + BATCH]))  # type: ignore[attr-defined]
                list(computation.dirty(state))  # type: ignore[attr-defined]

        core += timed(f"compute {computation.name}", len(values), run)
    print(
        f"the pure core alone, default outputs: {1e6 / core:,.0f} trades a CPU-second", flush=True
    )
    per_trade = f"{len(rows) / len(values):.2f}"
    timed(
        f"encode {per_trade} records",
        len(values),
        lambda: [outputs.encode(name, 0, key, row, "") for name, key, row in rows],
    )


def timed(stage: str, count: int, work: Callable[[], object]) -> float:
    """Run the work once; print and return CPU microseconds a trade."""
    before = time.process_time()
    work()
    taken = (time.process_time() - before) / count * 1e6
    print(f"{stage:28} {taken:7.2f} us a trade", flush=True)
    return taken


def through_kafka(values: list[tuple[str, bytes]]) -> None:
    """Print the rate of one worker from a preloaded topic."""
    names = Topology("bench.")
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        deployed(names, Path(folder)) as deployment,
    ):
        send(deployment, values)
        source = names.name("infoway.raw.trade")
        lag = Lag(deployment.bootstrap, "bench.infoway-processors", [source])
        with Supervisor(deployment.environment, 1, Path(folder) / "logs") as supervisor:
            while (left := lag()) > len(values) * 0.95:
                supervisor.check()
                time.sleep(0.02)
            worker = psutil.Process(
                next(slot.process.pid for slot in supervisor._slots if slot.process is not None)
            )
            began, cpu, first = time.monotonic(), sum(worker.cpu_times()[:2]), left
            while (left := lag()) > 0:
                supervisor.check()
                time.sleep(0.02)
            seconds, cpu_seconds = time.monotonic() - began, sum(worker.cpu_times()[:2]) - cpu
            memory = worker.memory_info().rss / 2**20
        written = sum(
            1 for topic in names.derived() for _ in read_to_end(deployment.bootstrap, topic.name)
        )
    share = first / len(values)  # of the work that fell into the measured time
    print(
        f"one worker: {first / seconds:,.0f} trades/s, {first / cpu_seconds:,.0f} trades a "
        f"CPU-second; {memory:.0f} MiB resident"
    )
    print(
        f"            {written * share / seconds:,.0f} records/s out, "
        f"{written * share / cpu_seconds:,.0f} records a CPU-second"
    )


if __name__ == "__main__":
    main()
