"""Measures how long partitions stand still: one worker of three killed, the broker restarted, all
workers restarted. Each time counts until the last partition's offset has moved."""

import os
import signal
import statistics
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import outages
from fleet import RATE, Fleet, wait_for
from kafka_proxy import Listeners
from schedule import WORKERS

from infra.embedded.stack import Stack
from infra.kafka.lag import Lag
from schemas.topics import RAW_TRADE

AIM_P50_S, AIM_WORST_S = 8.0, 20.0
"""For one worker of three killed, at default timeouts."""
GIVE_UP_S = 90.0


def measure(stack: Stack, listeners: Listeners, folder: Path, times: int) -> bool:
    """Do each of the three `times` times, and print the figures; return whether a killed worker
    is replaced within the aims."""
    folder.mkdir(parents=True, exist_ok=True)
    fleet = Fleet(stack, listeners, folder, f"d{uuid.uuid4().hex[:8]}.")
    found: dict[str, list[float]] = {}
    with fleet.running(1, RATE):
        lag = Lag(stack.bootstrap, fleet.group, [fleet.names.name(RAW_TRADE)])

        def settle() -> None:
            if wait_for(lambda: not fleet.unready() and lag() < 200, 120, fleet.tend) is None:
                raise TimeoutError(f"the fleet does not settle: {fleet.unready()}: see {folder}")
            wait_for(lambda: False, 5, fleet.tend)

        for number in range(times):
            for what, strike in _strikes(fleet, number).items():
                settle()
                partitions = len(_committed(lag))
                strike()
                found.setdefault(what, []).append(_stands_still(fleet, lag, partitions))
    for what, seconds in found.items():
        p50, worst = statistics.median(seconds), max(seconds)
        each = " ".join(f"{one:.1f}" for one in seconds)
        print(f"{what}, {times} times: {p50:.1f} s (p50), {worst:.1f} s (worst): {each}")
    print(f"load at the end, 1 and 5 minutes: {os.getloadavg()[:2]}, {os.cpu_count()} cores")
    killed = found[KILLED]
    within = statistics.median(killed) <= AIM_P50_S and max(killed) <= AIM_WORST_S
    aims = f"p50 {AIM_P50_S:.0f} s, worst {AIM_WORST_S:.0f} s"
    print(f"verdict: {'within' if within else 'beyond'} the aims of a killed worker ({aims})")
    return within


KILLED = "one worker of three killed"


def _strikes(fleet: Fleet, number: int) -> dict[str, Callable[[], None]]:
    def restart_broker() -> None:
        # the time counts from when the broker answers again
        with fleet.locks["broker"], outages.stopped(fleet.stack, "kafka"):
            pass

    def restart_workers() -> None:
        for slot in WORKERS:
            fleet.signal(slot, signal.SIGTERM)

    return {
        KILLED: lambda: fleet.signal(WORKERS[number % len(WORKERS)], signal.SIGKILL),
        "broker restarted, from its answer on": restart_broker,
        "all workers restarted": restart_workers,
    }


def _committed(lag: Lag) -> dict[tuple[str, int], int]:
    return {at: offset for at, offset in lag._committed().items() if offset}


def _stands_still(fleet: Fleet, lag: Lag, partitions: int) -> float:
    """Return the seconds until the offset of each of the partitions that had one has moved."""
    began = time.monotonic()
    before: dict[tuple[str, int], int] = {}

    def moved() -> bool:
        now = _committed(lag)
        for at, offset in now.items():
            # a coordinator that comes up knows no offsets at first
            before.setdefault(at, offset)
        return len(before) >= partitions and all(
            now.get(at, 0) > offset for at, offset in before.items()
        )

    return GIVE_UP_S if wait_for(moved, GIVE_UP_S, fleet.tend) is None else time.monotonic() - began
