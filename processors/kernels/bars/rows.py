"""Encodes the rows of bars and of progress as `schemas/bar.avsc` and `schemas/progress.avsc` say.

Only bars made of trades alone: those with a kline are published by the general path.
"""

import numpy as np

from processors.kernels.avro.write import put_decimal, put_long, put_signed
from processors.kernels.bars.arrays import (
    COMPLETE,
    FIXED,
    NOT_SAID,
    ROW_BYTES,
    SOURCE,
    TRADES,
    BarArrays,
)
from processors.kernels.bars.chains import touch
from processors.kernels.columns import HEADER, Array
from processors.kernels.compiled import part
from processors.kernels.numbers.wide import (
    divide,
    is_negative,
    less3,
    multiply,
    negate3,
    round_off,
    times2,
    times3,
)

SCALE = 18
TENS: Array = np.array([10**power for power in range(19)], np.uint64)
"""Powers of ten by their exponent."""
_WIDE_TENS: Array = np.array(
    [[10**power >> 64 * limb & (1 << 64) - 1 for limb in range(3)] for power in range(57)],
    np.uint64,
)
_FIXED = len(FIXED)
_COMPLETENESS = 3  # where FIXED has its texts
_SOMETHING = np.uint8(2)  # the second branch of a union
_ZERO = np.uint64(0)


@part
def is_small(
    arrays: BarArrays,
    slot: int,
    v0: np.uint64,
    v1: np.uint64,
    t0: np.uint64,
    t1: np.uint64,
    t2: np.uint64,
) -> bool:
    """Return whether a volume and a turnover of a slot's scales are below 10^19: their rows fit
    decimal(38,18) for sure. The general path has the greater ones."""
    scale = arrays.slots[slot]["volume_scale"]
    most = _WIDE_TENS[19 + scale]
    if not less3(v0, v1, _ZERO, most[0], most[1], most[2]):
        return False
    if is_negative(t2):
        t0, t1, t2 = negate3(t0, t1, t2)
    most = _WIDE_TENS[19 + scale + arrays.slots[slot]["price_scale"]]
    return less3(t0, t1, t2, most[0], most[1], most[2])


@part
def has_room(arrays: BarArrays, rows: int, key: int) -> bool:
    """Return whether so many rows of a key fit into `out` and `rows`."""
    run = arrays.run[0]
    text = arrays.texts[_FIXED + arrays.settings[0]["levels"] + key]
    size = ROW_BYTES + text["after"] - text["first"]
    return bool(
        run["rows"] + rows <= len(arrays.rows) and run["written"] + rows * size <= len(arrays.out)
    )


@part
def publish(arrays: BarArrays, index: int, cause: int) -> None:
    """Write the next revision of a bar; there must be room, and its completeness must be known."""
    run, bar = arrays.run[0], arrays.bars[index]
    bar["revision"] += 1
    bar["published"] = bar["count"]
    if bar["start"] >= arrays.symbols[bar["slot"]]["complete_from"]:
        bar["completeness"] = COMPLETE
    else:
        bar["completeness"] = bar["known"]
    touch(arrays, index)
    slot, level = arrays.slots[bar["slot"]], bar["level"]
    out, at = arrays.out, run["written"] + HEADER
    at = _put_text(arrays, at, _FIXED + arrays.settings[0]["levels"] + slot["key"])
    at = _put_text(arrays, at, _FIXED + level)
    at = put_long(out, at, bar["start"])
    at = put_long(out, at, bar["end"])
    if arrays.levels[level]["is_session"] != 0:
        at = put_long(out, _put_branch(out, at), int(bar["trade_date"]))
    else:
        out[at] = np.uint8(0)
        at += 1
    at = _put_price(out, at, bar["open"], slot["price_scale"])
    at = _put_price(out, at, bar["high"], slot["price_scale"])
    at = _put_price(out, at, bar["low"], slot["price_scale"])
    at = _put_price(out, at, bar["close"], slot["price_scale"])
    at = _put_volume(out, at, bar["volume_0"], bar["volume_1"], slot["volume_scale"])
    at = _put_turnover(arrays, at, index)
    at = _put_volume(out, _put_branch(out, at), bar["buy_0"], bar["buy_1"], slot["volume_scale"])
    at = _put_volume(out, _put_branch(out, at), bar["sell_0"], bar["sell_1"], slot["volume_scale"])
    at = put_long(out, _put_branch(out, at), bar["count"])
    at = put_long(out, _put_branch(out, at), bar["ts_first"])
    at = put_long(out, _put_branch(out, at), bar["ts_last"])
    at = put_long(out, at, int(bar["revision"]))
    out[at] = np.uint8(bar["closed"])
    at = _put_text(arrays, at + 1, cause)
    at = _put_text(arrays, at, _COMPLETENESS + bar["completeness"])
    at = _put_text(arrays, at, TRADES)
    at = _put_text(arrays, at, SOURCE)
    at = put_long(out, at, max_of(bar["ts_recv"], run["ts_recv"]))
    _end_row(arrays, at, slot["key"], level)


@part
def is_known(arrays: BarArrays, index: int) -> bool:
    """Return whether the completeness of a bar is known."""
    bar = arrays.bars[index]
    return bool(
        bar["known"] != NOT_SAID or bar["start"] >= arrays.symbols[bar["slot"]]["complete_from"]
    )


@part
def show_progress(arrays: BarArrays, feed: int) -> None:
    """Write the progress of a feed; there must be room."""
    settings, key = arrays.settings[0], arrays.timers[feed]["key"]
    out, at = arrays.out, arrays.run[0]["written"] + HEADER
    at = put_long(out, at, settings["partition"])
    at = _put_text(arrays, at, _FIXED + settings["levels"] + key)
    at = put_long(out, at, arrays.feeds[feed]["latest_event"] - settings["delay"])
    at = put_long(out, at, arrays.run[0]["offset"])
    run = arrays.run[0]
    _keep_row(arrays, at, key, settings["levels"])
    run["written"] = at


@part
def max_of(left: int, right: int) -> int:
    """Return the greater one; numba's max makes a float of it."""
    return left if left > right else right


@part
def _end_row(arrays: BarArrays, at: int, key: int, topic: int) -> None:
    run = arrays.run[0]
    at = put_long(arrays.out, at, arrays.settings[0]["partition"])
    at = put_long(arrays.out, at, run["offset"])
    _keep_row(arrays, at, key, topic)
    run["written"] = at


@part
def _keep_row(arrays: BarArrays, at: int, key: int, topic: int) -> None:
    run = arrays.run[0]
    row = arrays.rows[run["rows"]]
    row["end"], row["key"], row["topic"] = at, key, topic
    run["rows"] += 1


@part
def _put_text(arrays: BarArrays, at: int, number: int) -> int:
    text = arrays.texts[number]
    for index in range(text["first"], text["after"]):
        arrays.out[at] = arrays.bytes[index]
        at += 1
    return at


@part
def _put_branch(out: Array, at: int) -> int:
    out[at] = _SOMETHING
    return at + 1


@part
def _put_price(out: Array, at: int, price: int, scale: int) -> int:
    negative = price < 0
    amount = np.uint64(-price) if negative else np.uint64(price)
    low, high = multiply(amount, TENS[SCALE - scale])
    return put_decimal(out, at, high, low, negative)


@part
def _put_volume(out: Array, at: int, v0: np.uint64, v1: np.uint64, scale: int) -> int:
    low, high, _ = times2(v0, v1, TENS[SCALE - scale])
    return put_decimal(out, at, high, low, False)


@part
def _put_turnover(arrays: BarArrays, at: int, index: int) -> int:
    """Write the turnover and, where there is a volume, the VWAP."""
    out, bar = arrays.out, arrays.bars[index]
    slot = arrays.slots[bar["slot"]]
    t0, t1, t2 = bar["turnover_0"], bar["turnover_1"], bar["turnover_2"]
    negative = is_negative(t2)
    if negative:
        t0, t1, t2 = negate3(t0, t1, t2)
    places = slot["price_scale"] + slot["volume_scale"]
    if places <= SCALE:
        low, high, _ = times2(t0, t1, TENS[SCALE - places])
    else:
        surplus = places - SCALE
        half = surplus // 2
        low, high = round_off(t0, t1, t2, TENS[half], TENS[surplus - half])
    at = put_signed(out, at, high, low, negative)
    if bar["volume_0"] == _ZERO and bar["volume_1"] == _ZERO:
        out[at] = np.uint8(0)
        return at + 1
    n0, n1, n2, n3 = times3(t0, t1, t2, TENS[SCALE - slot["price_scale"]])
    low, high = divide(n0, n1, n2, n3, bar["volume_0"], bar["volume_1"])
    return put_signed(out, _put_branch(out, at), high, low, negative)
