"""Runs a drill of random faults and judges it: `make drill-random ARGS="--seed 7"`.

The schedule is written before it is carried out; `--schedule FILE` replays one, `--shrink` looks
for the smallest that still fails, `--mutation NAME` plants a mistake that the oracle is to find,
`--table` plants each of them, and `--recovery N` measures how long partitions stand still.
"""

import argparse
import json
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import drill
import oracle
import recovery
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource
from evidence import DEAD_LETTER, RAW, Evidence, Log
from fleet import HORIZON_MS, RATE, Fleet, wait_for
from kafka_proxy import Listeners
from mutations import table
from recompute import Recomputation
from schedule import CLIENTS, CLOCK_MS, PRODUCER, Clock, Schedule, draw
from shrink import shrink

from infra.embedded.stack import Stack
from infra.kafka.lag import Lag
from infra.kafka.reader import ValueReader
from schemas.clients.registry import Registry

STARTED_WITHIN_S = SETTLED_WITHIN_S = 240.0
"""A busy machine takes its time: here a broker that was killed was back after 73 s."""


@dataclass(frozen=True)
class Result:
    """What a drill found, and what it did."""

    violations: dict[str, list[str]]
    figures: dict[str, object]
    evidence: Evidence
    recomputed: Recomputation


@contextmanager
def stack_for_drills(folder: Path) -> Iterator[tuple[Stack, Listeners]]:
    """Run a broker with a listener for each client, and a registry."""
    listeners = Listeners(len(CLIENTS))
    with Stack(folder, properties=listeners.properties) as stack:
        yield stack, listeners


def run(
    stack: Stack, listeners: Listeners, folder: Path, schedule: Schedule, mutation: str = "",
    rate: float = RATE,
) -> Result:  # fmt: skip
    """Carry out a schedule in a namespace of its own, and judge what it left."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "schedule.json").write_text(schedule.dump())
    fleet = Fleet(stack, listeners, folder, f"d{uuid.uuid4().hex[:8]}.")
    fleet.mutation = mutation
    _keep_all_of_the_state(fleet)
    with fleet.running(schedule.seed, rate):
        lag = Lag(stack.bootstrap, fleet.group, [fleet.names.name(topic) for topic in RAW])
        if (
            wait_for(lambda: not fleet.unready() and lag() < 200, STARTED_WITHIN_S, fleet.tend)
            is None
        ):
            raise TimeoutError(f"the fleet does not start: {fleet.unready()}: see {folder}")
        fleet.run(schedule)
        healed = time.monotonic()
        fleet.vendor.paused = True
        drained = wait_for(
            lambda: fleet.nothing_in_flight() and not fleet.unready(), SETTLED_WITHIN_S, fleet.tend
        )
        # the last counters are held against the topics: without them those of before would be
        wait_for(fleet.sample, 60, fleet.tend)
        unready = [] if drained is not None else fleet.unready() or ["producer: records in flight"]
        fleet.wanted.discard(PRODUCER)
        if (producer := fleet.processes.get(PRODUCER)) is not None:
            producer.send_signal(signal.SIGTERM)
            wait_for(lambda: producer.poll() is not None, 60, fleet.tend)
        lag_after = wait_for(lambda: lag() == 0, 60, fleet.tend)
        ended_at = time.monotonic()
        topics = [topic.name for topic in fleet.names.topics() if "processors" in topic.owner]
        wait_for(lambda: _offsets_of_bars_read(fleet), 60, fleet.tend)
        # for longer than the check allows: it says after how long
        stable_after = wait_for(lambda: _all_stable(stack, topics), 60, fleet.tend)
        settle_s = ended_at - healed
        # a broker that has much to do keeps a worker waiting, but not for so long
        if drained is not None and wait_for(lambda: not fleet.unready(), 120, fleet.tend) is None:
            unready += fleet.unready()
        evidence = _collect(fleet, topics)
        evidence.unready += unready
        if any(isinstance(fault, Clock) for fault in schedule.faults):
            evidence.clock_ms = CLOCK_MS
        evidence.lag_after_s, evidence.stable_after_s = lag_after, stable_after
    (folder / "ledger.json").write_text(json.dumps(evidence.ledger))
    recomputed = Recomputation(evidence, Registry(stack.registry_url), fleet.ids)
    violations = oracle.judge(evidence, recomputed)
    figures: dict[str, object] = {
        "faults": sum(fleet.struck.values()),
        "by kind": dict(fleet.struck),
        "not placed": fleet.failed_faults,
        "raw records": sum(len(log) for logs in evidence.raw.values() for log in logs.values()),
        "derived records": sum(len(log) for t in evidence.committed.values() for log in t.values()),
        "symbols in kernels": recomputed.in_kernels(),
        "vendor's trades": len(evidence.ledger),
        "of these delivered": sum(not row["repeat"] for _, row in evidence.raw_rows[RAW[0]]),
        "repeats marked": sum(row["repeat"] for _, row in evidence.raw_rows[RAW[0]]),
        "too late": len(evidence.rows["infoway.late"]),
        "dead letters": len(evidence.rows[DEAD_LETTER]),
        "healed bars": sum(row["cause"] == "healed" for _, row in evidence.rows["infoway.bars.1m"]),
        "ends": {
            code: sum(e.code == code for e in fleet.ended) for code in {e.code for e in fleet.ended}
        },
        "settled after s": round(settle_s, 1),
    }
    return Result(violations, figures, evidence, recomputed)


def _collect(fleet: Fleet, topics: list[str]) -> Evidence:
    names, bootstrap = fleet.names, fleet.stack.bootstrap
    derived = [topic.name for topic in names.derived()]

    def logs(full: list[str], isolation: str) -> dict[str, Log]:
        return {names.contract_name(t): drill.read(bootstrap, t, isolation) for t in full}

    raw = [names.name(topic) for topic in RAW]
    lag = Lag(bootstrap, fleet.group, raw)
    states = logs(
        [names.name(f"infoway.state.{agent}") for agent in names.agents], "read_committed"
    )
    return Evidence(
        names,
        ValueReader(Registry(fleet.stack.registry_url)),
        logs(raw, "read_uncommitted"),
        logs(derived, "read_committed"),
        logs(derived, "read_uncommitted"),
        {topic.removeprefix("infoway.state."): log for topic, log in states.items()},
        lag._committed(),
        _stable(fleet.stack, topics),
        list(fleet.vendor.ledger),
        list(fleet.samples),
        list(fleet.ended),
        revision_horizon_ms=HORIZON_MS,
    )


def _stable(stack: Stack, topics: list[str]) -> dict[tuple[str, int], tuple[int, int]]:
    found: dict[tuple[str, int], tuple[int, int]] = {}
    for topic in topics:
        stable = drill.ends(stack.bootstrap, topic, "read_committed")
        high = drill.ends(stack.bootstrap, topic, "read_uncommitted")
        found |= {(topic, at): (stable[at], high[at]) for at in stable}
    return found


def _all_stable(stack: Stack, topics: list[str]) -> bool:
    return all(stable >= high for stable, high in _stable(stack, topics).values())


def _offsets_of_bars_read(fleet: Fleet) -> bool:
    bars = [fleet.names.name(f"infoway.bars.{interval}") for interval in fleet.names.intervals]
    return Lag(fleet.stack.bootstrap, fleet.group, bars).records_left() == 0


def _keep_all_of_the_state(fleet: Fleet) -> None:
    """Keep compaction from the state topics, so that the state at any offset can be read later."""
    admin = AdminClient({"bootstrap.servers": fleet.stack.bootstrap})
    changes = [
        ConfigResource(
            ConfigResource.Type.TOPIC,
            fleet.names.name(f"infoway.state.{agent}"),
            incremental_configs=[
                ConfigEntry("cleanup.policy", "delete", incremental_operation=AlterConfigOpType.SET)
            ],
        )
        for agent in fleet.names.agents
    ]
    for future in admin.incremental_alter_configs(changes).values():
        future.result(30)


def main() -> int:
    """Run a drill; 0 where nothing was found."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--minutes", type=float, default=5.0)
    options.add_argument("--every", type=float, default=4.0, help="seconds between faults")
    options.add_argument("--kinds", default="", help="comma-separated kinds of faults")
    options.add_argument("--schedule", type=Path)
    options.add_argument("--mutation", default="", help="one of process.py, or several with commas")
    options.add_argument("--shrink", action="store_true")
    options.add_argument("--recovery", type=int, default=0)
    options.add_argument("--table", type=int, default=0, help="seeds a mutation at most")
    options.add_argument("--folder", type=Path, help="default: a temporary one, kept on a finding")
    given = options.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="drill-"))
    kinds = tuple(filter(None, given.kinds.split(",")))
    schedule = (
        Schedule.read(given.schedule)
        if given.schedule
        else draw(given.seed, given.minutes * 60, given.every, kinds)
    )
    with stack_for_drills(folder / "stack") as (stack, listeners):
        if given.recovery:
            return 0 if recovery.measure(stack, listeners, folder, given.recovery) else 1
        if given.table:
            only = tuple(filter(None, given.mutation.split(",")))
            table(partial(run, stack, listeners), folder, given.table, given.minutes, only)
            return 0
        print(schedule.dump(), flush=True)
        number = 0

        def attempt(tried: Schedule) -> Result:
            nonlocal number
            number += 1
            began = time.monotonic()
            result = run(stack, listeners, folder / f"run-{number}", tried, given.mutation)
            print(f"run {number}: {len(tried.faults)} faults, {time.monotonic() - began:.0f} s")
            for name, value in result.figures.items():
                print(f"  {name}: {value}")
            for letter, violations in result.violations.items():
                for violation in violations:
                    print(f"  {letter}: {violation}", flush=True)
            return result

        result = attempt(schedule)
        failed = bool(result.violations or result.figures["not placed"])
        print(_verdict(schedule, result))
        if result.violations and given.shrink:
            letters = result.violations.keys()
            small = shrink(schedule, lambda tried: bool(letters & attempt(tried).violations.keys()))
            (folder / "shrunk.json").write_text(small.dump())
            print(f"shrunk to {len(small.faults)} faults:\n{small.dump()}")
        print(f"logs and schedules: {folder}", flush=True)
    return 1 if failed else 0


def _verdict(schedule: Schedule, result: Result) -> str:
    what = f"{result.figures['faults']} faults in {schedule.seconds / 60:.1f} minutes"
    if result.violations:
        return f"verdict: RED: {what}, found by {', '.join(result.violations)}"
    if result.figures["not placed"]:
        return f"verdict: RED: {what}, and some could not be carried out"
    return f"verdict: GREEN: {what}, twelve checks found nothing"


if __name__ == "__main__":
    sys.exit(main())
