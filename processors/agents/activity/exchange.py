"""Turns activity bars and thresholds into records of the kernel's arrays, and bars back."""

from collections.abc import Sequence

import numpy as np

from processors.agents.activity.state import ActivityBar
from processors.agents.activity.thresholds import Threshold
from processors.kernels.activity.arrays import FIXED, THRESHOLD
from processors.kernels.activity.figures import MOST_TURNOVER, MOST_VOLUME
from processors.kernels.columns import Array

_PLAIN = 7
"""How many fields of a bar come before those that have limbs."""
_LIMBS = (2, 2, 2, 2, 2, 3, 2, 2)
"""Of open, high, low, close, volume, turnover, buy and sell."""
_LIMB = (1 << 64) - 1


def fits(bar: ActivityBar) -> bool:
    """Return whether the kernel can take a trade into the bar."""
    return bar.volume < MOST_VOLUME and abs(bar.turnover) < MOST_TURNOVER


def record_of(bar: ActivityBar) -> tuple[int, ...]:
    """Return a bar that fits as BAR has it."""
    exact = (bar.open, bar.high, bar.low, bar.close, bar.volume, bar.turnover, bar.buy, bar.sell)
    limbs = (
        limb for number, count in zip(exact, _LIMBS, strict=True) for limb in _limbs(number, count)
    )
    return (
        bar.index, bar.revision, bar.published, bar.count, bar.ts_recv, bar.ts_first, bar.ts_last,
        *limbs,
    )  # fmt: skip


def bar_of(record: Sequence[int]) -> ActivityBar:
    """Return the bar of a record of BAR."""
    at = _PLAIN
    exact = []
    for count in _LIMBS:
        exact.append(_number(record[at : at + count]))
        at += count
    return ActivityBar(*record[:_PLAIN], *exact)


def records_of(thresholds: Sequence[Threshold]) -> Array:
    """Return thresholds as THRESHOLD."""
    found: Array = np.zeros(len(thresholds), THRESHOLD)
    for record, threshold in zip(found, thresholds, strict=True):
        record["kind"] = FIXED.index(threshold.kind)
        record["limit_0"], record["limit_1"], record["limit_2"] = _limbs(threshold.limit, 3)
        record["value_0"], record["value_1"] = _limbs(threshold.value, 2)
    return found


def _limbs(number: int, count: int) -> list[int]:
    """Return the limbs of a two's complement."""
    return [number >> 64 * limb & _LIMB for limb in range(count)]


def _number(limbs: Sequence[int]) -> int:
    number = sum(limb << 64 * place for place, limb in enumerate(limbs))
    return number - (1 << 64 * len(limbs)) if limbs[-1] >> 63 else number
