"""Finds the fewest faults of a schedule that still fail."""

from collections.abc import Callable

from schedule import Schedule


def shrink(schedule: Schedule, fails: Callable[[Schedule], bool], tries: int = 60) -> Schedule:
    """Return the smallest schedule found that still fails: delta debugging over its faults (Zeller
    and Hildebrandt 2002, ddmin), then a shorter drill. `fails` is called `tries` times at most."""
    left = [tries]

    def still_fails(candidate: Schedule) -> bool:
        left[0] -= 1
        return left[0] >= 0 and fails(candidate)

    faults, parts = list(schedule.faults), 2
    while len(faults) > 1 and left[0] > 0:
        size = -(-len(faults) // parts)
        chunks = [faults[start : start + size] for start in range(0, len(faults), size)]
        rests = [[f for f in faults if f not in chunk] for chunk in chunks]
        smaller = next(
            (each for each in (*chunks, *rests)
             if 0 < len(each) < len(faults) and still_fails(schedule.with_faults(each))),
            None,
        )  # fmt: skip
        if smaller is not None:
            faults, parts = smaller, max(2, min(len(smaller), parts - 1))
        elif parts >= len(faults):
            break
        else:
            parts = min(len(faults), 2 * parts)
    found = schedule.with_faults(faults)
    ends = max((fault.at + fault.seconds for fault in faults), default=0.0) + 10
    shorter = Schedule(found.seed, min(found.seconds, ends), found.faults)
    return shorter if shorter == found or still_fails(shorter) else found
