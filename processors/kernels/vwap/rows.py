"""The rows of VWAP, as bytes of Avro."""

from typing import Any

import numpy as np

from processors.kernels.avro.write import put_bytes, put_decimal, put_long, put_signed
from processors.kernels.columns import HEADER, Array
from processors.kernels.compiled import part
from processors.kernels.numbers.limbs import ZERO, negate, scaled, stdev, vwap
from processors.kernels.vwap.arrays import COMPLETE, FIRST_WINDOW, SOURCE, Record


@part
def emit(
    trade: Record, own: Record, now: int, shown: int, session_end: int, complete_from: int,
    plan: Array, spans: Array, windows: Array, sessions: Array, covers: Array, names: Array,
    texts: Array, text_ends: Array, values: Array, ends: Array, topics: Array, keys: Array,
    written: Array, scratch: Array,
) -> None:  # fmt: skip
    """Write the rows of one trade: each window's, then the session's."""
    count = len(spans)
    for window in range(count):
        start = now - spans[window]
        known = np.int64(COMPLETE) if start + 1 >= complete_from else covers[window]["known"]
        at = begin_row(own, window, now, start, values, written, names, texts, text_ends)
        values[at] = np.uint8(0)
        at = put_figures(values, at + 1, windows[window], own, scratch)
        end_row(
            trade, own, window, known, at, plan, texts, text_ends, values, ends, topics, keys,
            written,
        )  # fmt: skip
    if shown >= 0:
        session = sessions[shown]
        start = session["start"]
        known = np.int64(COMPLETE) if start >= complete_from else covers[count]["known"]
        at = begin_row(
            own, count, session_end - 1, start - 1, values, written, names, texts, text_ends
        )
        values[at] = np.uint8(2)
        at = put_long(values, at + 1, session["trade_date"])
        at = put_figures(values, at, session, own, scratch)
        end_row(
            trade, own, count, known, at, plan, texts, text_ends, values, ends, topics, keys,
            written,
        )  # fmt: skip


@part
def put_text(values: Array, at: int, index: Any, texts: Array, text_ends: Any) -> int:
    """Write one of the texts."""
    first: Any = text_ends[index - 1] if index > 0 else np.int64(0)
    return put_bytes(values, at, texts, first, text_ends[index])


@part
def begin_row(
    own: Record, window: int, ts_event: int, ts_start: int, values: Array, written: Array,
    names: Array, texts: Array, text_ends: Array,
) -> int:  # fmt: skip
    """Write a row up to its trade date."""
    at = put_bytes(values, written[0]["bytes"] + HEADER, names, own["name"], own["name_end"])
    at = put_text(values, at, FIRST_WINDOW + window, texts, text_ends)
    at = put_long(values, at, ts_event)
    return put_long(values, at, ts_start)


@part
def put_figures(values: Array, at: int, sums: Record, own: Record, scratch: Array) -> int:
    """Write vwap, volume, turnover, trade count and deviation."""
    v0, v1 = sums["v0"], sums["v1"]
    if v0 == ZERO and v1 == ZERO:
        values[at] = np.uint8(0)
        at = put_decimal(values, at + 1, ZERO, ZERO, False)
        at = put_decimal(values, at, ZERO, ZERO, False)
        at = put_long(values, at, sums["count"])
        values[at] = np.uint8(0)
        return at + 1
    t0, t1, t2 = sums["t0"], sums["t1"], sums["t2"]
    is_negative = (t2 >> np.uint64(63)) != ZERO
    if is_negative:
        t0, t1, t2 = negate(t0, t1, t2)
    price_digits = np.int64(18) - own["price_scale"]
    volume_digits = np.int64(18) - own["volume_scale"]
    low, high = vwap(v0, v1, t0, t1, t2, price_digits, scratch)
    values[at] = np.uint8(2)
    at = put_signed(values, at + 1, high, low, is_negative)
    low, high = scaled(v0, v1, ZERO, volume_digits)
    at = put_decimal(values, at, high, low, False)
    low, high = scaled(t0, t1, t2, price_digits - own["volume_scale"])
    at = put_signed(values, at, high, low, is_negative)
    at = put_long(values, at, sums["count"])
    low, high = stdev(
        v0, v1, t0, t1, t2, sums["q0"], sums["q1"], sums["q2"], sums["q3"], price_digits, scratch
    )
    values[at] = np.uint8(2)
    return put_decimal(values, at + 1, high, low, False)


@part
def end_row(
    trade: Record, own: Record, window: int, known: Any, at: int, plan: Array, texts: Array,
    text_ends: Array, values: Array, ends: Array, topics: Array, keys: Array, written: Array,
) -> None:  # fmt: skip
    """Write the rest of a row, and count it."""
    at = put_text(values, at, known, texts, text_ends)
    at = put_text(values, at, SOURCE, texts, text_ends)
    at = put_long(values, at, own["ts_recv"])
    at = put_long(values, at, plan[0]["partition"])
    at = put_long(values, at, trade["offset"])
    row = written[0]["rows"]
    ends[row] = at
    topics[row] = np.int8(window)
    keys[row] = trade["symbol"]
    written[0]["rows"] = row + 1
    written[0]["bytes"] = at
