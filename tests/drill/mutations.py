"""The table of planted mistakes: for each the schedule that shows it, and how long that took."""

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from process import MUTATIONS
from schedule import (
    WORKERS,
    Fault,
    FreezeWorker,
    JoinWorker,
    KillProducer,
    Request,
    Schedule,
    Vendor,
    draw,
    in_order,
)

Run = Callable[[Path, Schedule, str], Any]
"""Runs a schedule with a mutation, and returns what was found."""
KINDS = {
    "state_ahead_of_outputs": ("KillWorker", "FreezeWorker"),
    "forgotten_tombstone": ("KillWorker", "JoinWorker"),
}
"""The kinds of faults among which a mutation is looked for; others need none, or those of
`suited`."""


def suited(name: str, seed: int, seconds: float) -> Schedule:
    """Return a schedule that may show a mutation: faults of the kind that its rule is for."""
    chance = random.Random(seed)
    faults: list[Fault] = []
    match name:
        case "commit_without_fencing" | "stale_member_accepted" | "stale_member_accepted_unfenced":
            # longer than the session of 6 s, shorter than a transaction's 10 s
            for number in range(int(seconds // 14)):
                slot = WORKERS[number % len(WORKERS)]
                frozen_s = round(chance.uniform(6.5, 9.5), 1)
                faults.append(FreezeWorker(at=5.0 + 14 * number, slot=slot, seconds=frozen_s))
        case "state_kept_after_revocation":
            # a share goes to the one that joins, and comes back when it leaves
            faults += [JoinWorker(at=5.0 + 45 * n, seconds=30) for n in range(int(seconds // 45))]
        case "ambiguous_commit_not_renewed":
            for number in range(int(seconds // 2)):
                slot = WORKERS[number % len(WORKERS)]
                held = {"client": slot, "api": "END_TXN", "how": "hold"}
                seconds_held = round(chance.uniform(0.3, 2.0), 2)
                faults.append(Request(at=5.0 + 2 * number, seconds=seconds_held, **held))
        case "gap_too_short_by_a_second":
            # with pushes held back a loss may begin earlier, and a second does not show
            faults += [Vendor(at=5.0 + 4 * n, do="reset") for n in range(int(seconds // 4))]
        case "pong_taken_for_a_push":
            for number in range(int(seconds // 20)):
                at = 5.0 + 20 * number
                faults.append(Vendor(at=at, do="burst", seconds=9.0))
                faults.append(KillProducer(at=at + 7))
        case _:
            return draw(seed, seconds if name in KINDS else 10, 3, KINDS.get(name, ("Odd",)))
    return Schedule(seed, seconds, in_order(faults))


def table(run: Run, folder: Path, seeds: int, minutes: float, names: Sequence[str] = ()) -> None:
    """Plant each mutation, and print the seed that found it and after how long, or that it
    survived so many seeds."""
    for name in names or MUTATIONS:
        spent = time.monotonic()
        for seed in range(1, seeds + 1):
            schedule = suited(name, seed, minutes * 60)
            result = run(folder / f"{name}-{seed}", schedule, name)
            if result.violations:
                break
        took = f"{time.monotonic() - spent:.0f} s"
        if result.violations:
            letters = ", ".join(result.violations)
            kinds = ", ".join(sorted({type(fault).__name__ for fault in schedule.faults}))
            faults = f"{len(schedule.faults)} faults of {kinds}"
            print(f"| {name} | {letters} | seed {seed}: {faults} | {took} |", flush=True)
        else:
            print(f"| {name} | none | {seeds} seeds of {minutes:.1f} min | {took} |", flush=True)
