"""Turns activity bars and thresholds into records of the kernel's arrays, and bars back."""

from collections.abc import Sequence

import numpy as np

from processors.agents.activity.state import ActivityBar
from processors.agents.activity.thresholds import Threshold
from processors.kernels.activity.arrays import FIXED, THRESHOLD
from processors.kernels.activity.figures import MOST_TURNOVER, MOST_VOLUME
from processors.kernels.columns import Array

_LIMB = (1 << 64) - 1


def fits(bar: ActivityBar) -> bool:
    """Return whether the kernel can take a trade into the bar."""
    return bar.volume < MOST_VOLUME and abs(bar.turnover) < MOST_TURNOVER


def record_of(bar: ActivityBar) -> tuple[int, ...]:
    """Return a bar that fits as BAR has it: limbs of two's complements."""
    return (
        bar.index, bar.revision, bar.published, bar.count, bar.ts_recv, bar.ts_first, bar.ts_last,
        bar.open & _LIMB, bar.open >> 64 & _LIMB,
        bar.high & _LIMB, bar.high >> 64 & _LIMB,
        bar.low & _LIMB, bar.low >> 64 & _LIMB,
        bar.close & _LIMB, bar.close >> 64 & _LIMB,
        bar.volume & _LIMB, bar.volume >> 64,
        bar.turnover & _LIMB, bar.turnover >> 64 & _LIMB, bar.turnover >> 128 & _LIMB,
        bar.buy & _LIMB, bar.buy >> 64, bar.sell & _LIMB, bar.sell >> 64,
    )  # fmt: skip


def bar_of(record: Sequence[int]) -> ActivityBar:
    """Return the bar of a record of BAR."""
    (
        index, revision, published, count, ts_recv, ts_first, ts_last,
        open_0, open_1, high_0, high_1, low_0, low_1, close_0, close_1,
        volume_0, volume_1, turnover_0, turnover_1, turnover_2, buy_0, buy_1, sell_0, sell_1,
    ) = record  # fmt: skip
    return ActivityBar(
        index,
        revision,
        published,
        count,
        ts_recv,
        ts_first,
        ts_last,
        _signed(open_0, open_1),
        _signed(high_0, high_1),
        _signed(low_0, low_1),
        _signed(close_0, close_1),
        volume_0 | volume_1 << 64,
        turnover_0 | _signed(turnover_1, turnover_2) << 64,
        buy_0 | buy_1 << 64,
        sell_0 | sell_1 << 64,
    )


def records_of(thresholds: Sequence[Threshold]) -> Array:
    """Return thresholds as THRESHOLD."""
    found: Array = np.zeros(len(thresholds), THRESHOLD)
    for record, threshold in zip(found, thresholds, strict=True):
        record["kind"] = FIXED.index(threshold.kind)
        for limb in range(3):
            record[f"limit_{limb}"] = threshold.limit >> 64 * limb & _LIMB
        record["value_0"], record["value_1"] = threshold.value & _LIMB, threshold.value >> 64
    return found


def _signed(low: int, high: int) -> int:
    """Return a two's complement of two limbs."""
    return low | (high - (1 << 64) if high >> 63 else high) << 64
