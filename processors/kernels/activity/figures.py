"""A trade in the units of activity bars, what a bar becomes by it, and when it is full.

Between two trades the volume of a bar is below 2^125 and its turnover within 2^185, and a trade
adds less than 2^120 and 2^184. So each row fits decimal(38,18), and nothing wraps around.
"""

import numpy as np

from processors.kernels.activity.arrays import TICK, VOLUME
from processors.kernels.columns import Record
from processors.kernels.compiled import part
from processors.kernels.numbers.powers import POWERS
from processors.kernels.numbers.wide import (
    Limbs2,
    Limbs3,
    add2,
    add3,
    is_negative,
    less3,
    multiply,
    negate3,
    times2,
    times3,
)
from schemas.decimals import SCALE

ZERO = np.uint64(0)
MOST_VOLUME, MOST_TURNOVER = 1 << 125, 1 << 185
"""A bar that reaches one of these is the general path's."""
_MOST_VOLUME_1, _MOST_TURNOVER_2 = np.uint64(MOST_VOLUME >> 64), np.uint64(MOST_TURNOVER >> 128)
_MOST_TRADE_2 = np.uint64(1 << 56)
_ALL = np.uint64((1 << 64) - 1)


@part
def price_of(trade: Record) -> Limbs2:
    """Return the price, as a two's complement."""
    price = trade["price"]
    size = np.uint64(-price if price < 0 else price)
    low, high = multiply(size, POWERS[SCALE - trade["price_scale"], 0])
    if price < 0:
        low, high, _ = negate3(low, high, ZERO)
    return low, high


@part
def volume_of(trade: Record) -> Limbs2:
    """Return the volume."""
    return multiply(np.uint64(trade["volume"]), POWERS[SCALE - trade["volume_scale"], 0])


@part
def turnover_of(trade: Record) -> tuple[np.uint64, np.uint64, np.uint64, bool]:
    """Return price x volume as a two's complement, and whether it is small enough for a bar."""
    price = trade["price"]
    size = np.uint64(-price if price < 0 else price)
    low, high = multiply(size, np.uint64(trade["volume"]))
    t0, t1, t2 = times2(low, high, POWERS[SCALE - trade["price_scale"], 0])
    t0, t1, t2, over = times3(t0, t1, t2, POWERS[SCALE - trade["volume_scale"], 0])
    is_small = bool(over == ZERO and t2 < _MOST_TRADE_2)
    if price < 0:
        t0, t1, t2 = negate3(t0, t1, t2)
    return t0, t1, t2, is_small


@part
def has_room(bar: Record) -> bool:
    """Return whether a bar can take one more trade."""
    top = bar["turnover_2"]
    if is_negative(top):
        top = top ^ _ALL
    return bool(bar["volume_1"] < _MOST_VOLUME_1 and top < _MOST_TURNOVER_2)


@part
def is_full(threshold: Record, count: int, volume: Limbs2, turnover: Limbs3) -> bool:
    """Return whether a bar with these totals is complete."""
    if threshold["kind"] == TICK:
        total = (np.uint64(count), ZERO, ZERO)
    elif threshold["kind"] == VOLUME:
        total = (volume[0], volume[1], ZERO)
    else:
        total = turnover
    return not is_negative(total[2]) and not less3(
        total[0],
        total[1],
        total[2],
        threshold["limit_0"],
        threshold["limit_1"],
        threshold["limit_2"],
    )


@part
def volume_with(bar: Record, volume: Limbs2) -> Limbs2:
    """Return the volume of a bar and a trade."""
    return add2(bar["volume_0"], bar["volume_1"], volume[0], volume[1])


@part
def turnover_with(bar: Record, turnover: Limbs3) -> Limbs3:
    """Return the turnover of a bar and a trade."""
    return add3(
        bar["turnover_0"],
        bar["turnover_1"],
        bar["turnover_2"],
        turnover[0],
        turnover[1],
        turnover[2],
    )


@part
def add(bar: Record, trade: Record, price: Limbs2, volume: Limbs2, turnover: Limbs3) -> None:
    """Take the next trade of the log into a bar."""
    event = trade["ts_event"]
    p0, p1 = price
    if bar["count"] == 0:
        bar["ts_first"] = bar["ts_last"] = event
        bar["open_0"], bar["open_1"] = p0, p1
        bar["high_0"], bar["high_1"] = p0, p1
        bar["low_0"], bar["low_1"] = p0, p1
    elif event > bar["ts_last"]:
        bar["ts_last"] = event
    elif event < bar["ts_first"]:
        bar["ts_first"] = event
    if _is_below(bar["high_0"], bar["high_1"], p0, p1):
        bar["high_0"], bar["high_1"] = p0, p1
    elif _is_below(p0, p1, bar["low_0"], bar["low_1"]):
        bar["low_0"], bar["low_1"] = p0, p1
    bar["close_0"], bar["close_1"] = p0, p1
    bar["volume_0"], bar["volume_1"] = volume_with(bar, volume)
    bar["turnover_0"], bar["turnover_1"], bar["turnover_2"] = turnover_with(bar, turnover)
    if trade["direction"] == 1:
        bar["buy_0"], bar["buy_1"] = add2(bar["buy_0"], bar["buy_1"], volume[0], volume[1])
    elif trade["direction"] == 2:
        bar["sell_0"], bar["sell_1"] = add2(bar["sell_0"], bar["sell_1"], volume[0], volume[1])
    bar["count"] += 1
    if trade["ts_recv"] > bar["ts_recv"]:
        bar["ts_recv"] = trade["ts_recv"]


@part
def begin_next(bar: Record) -> None:
    """Make a bar the next one of its trade date, without trades."""
    bar["index"] += 1
    bar["revision"] = bar["published"] = bar["count"] = 0
    bar["ts_recv"] = bar["ts_first"] = bar["ts_last"] = 0
    bar["volume_0"] = bar["volume_1"] = ZERO
    bar["turnover_0"] = bar["turnover_1"] = bar["turnover_2"] = ZERO
    bar["buy_0"] = bar["buy_1"] = bar["sell_0"] = bar["sell_1"] = ZERO


@part
def _is_below(a0: np.uint64, a1: np.uint64, b0: np.uint64, b1: np.uint64) -> bool:
    """Return whether a < b, both two's complements."""
    if is_negative(a1) != is_negative(b1):
        return is_negative(a1)
    return less3(a0, a1, ZERO, b0, b1, ZERO)
