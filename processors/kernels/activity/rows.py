"""Encodes the rows of bars that are full as `schemas/activity_bar.avsc` says: closed, and complete.

The general path publishes all others.
"""

import numpy as np

from processors.kernels.activity.arrays import CLOSE, COMPLETE, ActivityArrays
from processors.kernels.activity.figures import ZERO
from processors.kernels.avro.write import put_bytes, put_decimal, put_long, put_signed
from processors.kernels.columns import HEADER, Array, Record
from processors.kernels.compiled import part
from processors.kernels.numbers.powers import POWERS
from processors.kernels.numbers.wide import divide, is_negative, negate3, round_off

ROW_BYTES = 512
"""A row takes no more than this beside its symbol and its source."""
_HALF_UNIT = POWERS[9, 0]  # the unit of 10^-18 is the product of two


@part
def have_room(arrays: ActivityArrays, rows: int, trade: Record) -> bool:
    """Return whether so many rows that a trade causes fit into the outputs."""
    run, source = arrays.run[0], arrays.lanes[trade["lane"]]["source"]
    size = (
        ROW_BYTES
        + (arrays.key_ends[trade["symbol"] + 1] - arrays.key_ends[trade["symbol"]])
        + (arrays.text_ends[source + 1] - arrays.text_ends[source])
    )
    return bool(
        run["rows"] + rows <= len(arrays.ends) and run["written"] + rows * size <= len(arrays.out)
    )


@part
def put_row(
    arrays: ActivityArrays, bar: Record, level: int, trade_date: int, trade: Record, partition: int
) -> None:
    """Write the last record of a bar, which a trade has completed; there must be room."""
    run, out, threshold = arrays.run[0], arrays.out, arrays.thresholds[level]
    symbol = trade["symbol"]
    at = run["written"] + HEADER
    at = put_bytes(out, at, arrays.keys, arrays.key_ends[symbol], arrays.key_ends[symbol + 1])
    at = _put_text(arrays, at, threshold["kind"])
    at = put_decimal(out, at, threshold["value_1"], threshold["value_0"], False)
    at = put_long(out, at, trade_date)
    at = put_long(out, at, bar["index"])
    at = _put_price(out, at, bar["open_0"], bar["open_1"])
    at = _put_price(out, at, bar["high_0"], bar["high_1"])
    at = _put_price(out, at, bar["low_0"], bar["low_1"])
    at = _put_price(out, at, bar["close_0"], bar["close_1"])
    at = put_decimal(out, at, bar["volume_1"], bar["volume_0"], False)
    at = _put_turnover(out, at, bar)
    at = put_decimal(out, at, bar["buy_1"], bar["buy_0"], False)
    at = put_decimal(out, at, bar["sell_1"], bar["sell_0"], False)
    at = put_long(out, at, bar["count"])
    at = put_long(out, at, bar["ts_first"])
    at = put_long(out, at, bar["ts_last"])
    at = put_long(out, at, bar["revision"] + 1)
    out[at] = np.uint8(1)  # it is closed
    at = _put_text(arrays, at + 1, CLOSE)
    at = _put_text(arrays, at, COMPLETE)
    at = _put_text(arrays, at, arrays.lanes[trade["lane"]]["source"])
    at = put_long(out, at, bar["ts_recv"])
    at = put_long(out, at, partition)
    at = put_long(out, at, trade["offset"])
    row = run["rows"]
    arrays.ends[row] = at
    arrays.topics[row] = np.int8(level)
    arrays.row_keys[row] = symbol
    run["rows"] = row + 1
    run["written"] = at


@part
def _put_text(arrays: ActivityArrays, at: int, number: int) -> int:
    ends = arrays.text_ends
    return put_bytes(arrays.out, at, arrays.texts, ends[number], ends[number + 1])


@part
def _put_price(out: Array, at: int, low: np.uint64, high: np.uint64) -> int:
    negative = is_negative(high)
    if negative:
        low, high, _ = negate3(low, high, ZERO)
    return put_decimal(out, at, high, low, negative)


@part
def _put_turnover(out: Array, at: int, bar: Record) -> int:
    """Write the turnover and, if there is a volume, the VWAP."""
    t0, t1, t2 = bar["turnover_0"], bar["turnover_1"], bar["turnover_2"]
    negative = is_negative(t2)
    if negative:
        t0, t1, t2 = negate3(t0, t1, t2)
    low, high = round_off(t0, t1, t2, _HALF_UNIT, _HALF_UNIT)
    at = put_signed(out, at, high, low, negative)
    if bar["volume_0"] == ZERO and bar["volume_1"] == ZERO:
        out[at] = np.uint8(0)
        return at + 1
    out[at] = np.uint8(2)
    low, high = divide(t0, t1, t2, ZERO, bar["volume_0"], bar["volume_1"])
    return put_signed(out, at + 1, high, low, negative)
