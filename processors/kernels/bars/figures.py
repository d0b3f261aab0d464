"""Folds trades into bars and bars into coarser ones; changes the scale of a symbol's numbers."""

import numpy as np

from processors.kernels.bars.arrays import MIXED, TRADES, BarArrays
from processors.kernels.bars.chains import touch
from processors.kernels.bars.rows import TENS, max_of
from processors.kernels.columns import MOST_MANTISSA, Record
from processors.kernels.compiled import part
from processors.kernels.numbers.wide import (
    Limbs3,
    add2,
    add3,
    is_negative,
    multiply,
    negate3,
    times2,
    times3,
)

_ZERO, _TOP = np.uint64(0), np.uint64(1 << 63)


@part
def turnover_of(price: int, volume: int) -> Limbs3:
    """Return price x volume, with its sign; the volume is not negative."""
    low, high = multiply(np.uint64(-price if price < 0 else price), np.uint64(volume))
    if price < 0:
        return negate3(low, high, _ZERO)
    return low, high, _ZERO


@part
def add_trade(arrays: BarArrays, index: int, trade: Record, price: int, volume: int) -> None:
    """Fold a trade that follows in the log whatever the bar has; its numbers are of the slot's
    scales."""
    bar = arrays.bars[index]
    event = trade["ts_event"]
    if event >= bar["ts_last"]:
        bar["ts_last"], bar["close"] = event, price
    if event < bar["ts_first"]:
        bar["ts_first"], bar["open"] = event, price
    if price > bar["high"]:
        bar["high"] = price
    if price < bar["low"]:
        bar["low"] = price
    amount = np.uint64(volume)
    bar["volume_0"], bar["volume_1"] = add2(bar["volume_0"], bar["volume_1"], amount, _ZERO)
    if trade["direction"] == 1:
        bar["buy_0"], bar["buy_1"] = add2(bar["buy_0"], bar["buy_1"], amount, _ZERO)
    elif trade["direction"] == 2:
        bar["sell_0"], bar["sell_1"] = add2(bar["sell_0"], bar["sell_1"], amount, _ZERO)
    t0, t1, t2 = turnover_of(price, volume)
    bar["turnover_0"], bar["turnover_1"], bar["turnover_2"] = add3(
        bar["turnover_0"], bar["turnover_1"], bar["turnover_2"], t0, t1, t2
    )
    bar["count"] += 1
    bar["ts_recv"] = max_of(bar["ts_recv"], trade["ts_recv"])
    touch(arrays, index)


@part
def fold_bar(arrays: BarArrays, index: int, piece: int) -> None:
    """Fold a bar of a finer interval that follows in the log whatever this bar has of the same
    millisecond."""
    bar, other = arrays.bars[index], arrays.bars[piece]
    if other["ts_last"] >= bar["ts_last"]:
        bar["ts_last"], bar["close"] = other["ts_last"], other["close"]
    if other["ts_first"] < bar["ts_first"]:
        bar["ts_first"], bar["open"] = other["ts_first"], other["open"]
    if other["high"] > bar["high"]:
        bar["high"] = other["high"]
    if other["low"] < bar["low"]:
        bar["low"] = other["low"]
    bar["volume_0"], bar["volume_1"] = add2(
        bar["volume_0"], bar["volume_1"], other["volume_0"], other["volume_1"]
    )
    bar["buy_0"], bar["buy_1"] = add2(bar["buy_0"], bar["buy_1"], other["buy_0"], other["buy_1"])
    bar["sell_0"], bar["sell_1"] = add2(
        bar["sell_0"], bar["sell_1"], other["sell_0"], other["sell_1"]
    )
    bar["turnover_0"], bar["turnover_1"], bar["turnover_2"] = add3(
        bar["turnover_0"], bar["turnover_1"], bar["turnover_2"],
        other["turnover_0"], other["turnover_1"], other["turnover_2"],
    )  # fmt: skip
    bar["count"] += other["count"]
    bar["ts_recv"] = max_of(bar["ts_recv"], other["ts_recv"])
    if other["provenance"] != TRADES:
        bar["provenance"] = MIXED
    touch(arrays, index)


@part
def scaled(number: int, places: int) -> int:
    """Return number x 10^places; more than MOST_MANTISSA where that is too great."""
    if number == 0 or places == 0:
        return number
    factor = int(np.int64(TENS[places]))
    most = MOST_MANTISSA // factor
    if number > most or number < -most:
        return MOST_MANTISSA + 1
    return number * factor


@part
def rescale(arrays: BarArrays, slot: int, price_scale: int, volume_scale: int) -> bool:
    """Write all bars of a slot with greater scales; return False, without touching one, where their
    numbers do not fit then."""
    known = arrays.slots[slot]
    more_price = price_scale - known["price_scale"]
    more_volume = volume_scale - known["volume_scale"]
    for writes in (False, True):
        for level in range(arrays.settings[0]["levels"]):
            index = arrays.links[slot, level]["newest"]
            while index >= 0:
                if writes:
                    rescale_bar(arrays, index, more_price, more_volume)
                elif not _is_rescalable(arrays.bars[index], more_price, more_volume):
                    return False
                index = arrays.bars[index]["older"]
    known["price_scale"], known["volume_scale"] = price_scale, volume_scale
    return True


@part
def _is_rescalable(bar: Record, more_price: int, more_volume: int) -> bool:
    # a bar without trades has extremes in place of prices
    if bar["high"] >= bar["low"]:
        if (
            scaled(bar["high"], more_price) > MOST_MANTISSA
            or scaled(bar["low"], more_price) > MOST_MANTISSA
        ):
            return False
        if (
            scaled(bar["open"], more_price) > MOST_MANTISSA
            or scaled(bar["close"], more_price) > MOST_MANTISSA
        ):
            return False
    _, v1, v2 = times2(bar["volume_0"], bar["volume_1"], TENS[more_volume])
    if v2 != _ZERO or v1 >= _TOP:
        return False
    t0, t1, t2 = bar["turnover_0"], bar["turnover_1"], bar["turnover_2"]
    if is_negative(t2):
        t0, t1, t2 = negate3(t0, t1, t2)
    t0, t1, t2, t3 = times3(t0, t1, t2, TENS[more_volume])
    if t3 != _ZERO:
        return False
    t0, t1, t2, t3 = times3(t0, t1, t2, TENS[more_price])
    return bool(t3 == _ZERO and t2 < _TOP)


@part
def rescale_bar(arrays: BarArrays, index: int, more_price: int, more_volume: int) -> None:
    """Write a bar with so many more places of prices and of volumes; its numbers must fit then."""
    if more_price == 0 and more_volume == 0:
        return
    bar = arrays.bars[index]
    if bar["high"] >= bar["low"]:
        bar["high"] = scaled(bar["high"], more_price)
        bar["low"] = scaled(bar["low"], more_price)
    bar["open"] = scaled(bar["open"], more_price)
    bar["close"] = scaled(bar["close"], more_price)
    factor = TENS[more_volume]
    bar["volume_0"], bar["volume_1"], _ = times2(bar["volume_0"], bar["volume_1"], factor)
    bar["buy_0"], bar["buy_1"], _ = times2(bar["buy_0"], bar["buy_1"], factor)
    bar["sell_0"], bar["sell_1"], _ = times2(bar["sell_0"], bar["sell_1"], factor)
    t0, t1, t2 = bar["turnover_0"], bar["turnover_1"], bar["turnover_2"]
    negative = is_negative(t2)
    if negative:
        t0, t1, t2 = negate3(t0, t1, t2)
    t0, t1, t2, _ = times3(t0, t1, t2, factor)
    t0, t1, t2, _ = times3(t0, t1, t2, TENS[more_price])
    if negative:
        t0, t1, t2 = negate3(t0, t1, t2)
    bar["turnover_0"], bar["turnover_1"], bar["turnover_2"] = t0, t1, t2
