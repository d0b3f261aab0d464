"""Records of the bar topics, from Avro to columns; those that are closed and made of trades alone
in the short form in which the reconciliation agent keeps them.

What is not plain is marked, and Python reads that record. So the kernel refuses nothing itself.
"""

import numpy as np

from processors.kernels.avro.read import NOTHING, is_ascii, read_long, read_size
from processors.kernels.columns import Array
from processors.kernels.compiled import array, kernel, part, reads
from processors.kernels.name_table import NAME, UNKNOWN, look_up, same
from schemas.control import LATEST_MS

PLAIN, NEW, ODD = 0, 1, 2
"""As in `avro.trades`: a plain record, one of a symbol that Python must add, one for Python."""

CLOSED_BAR = np.dtype(
    [
        ("offset", np.int64),
        ("ts_start", np.int64),
        ("ts_end", np.int64),
        ("first", np.int64),
        ("after", np.int64),
        ("symbol", np.int32),
        ("counts", np.int8),
    ],
    align=True,
)
"""One record: times in ms, the index of its symbol in the partition's Tables, where its short form
lies. `counts`: it is closed and made of trades alone; the others have no short form."""

_HEADER = 5
_MOST_DECIMAL = 15
"""Bytes of a decimal: then it has 38 digits at most."""
_LEAST_INT, _MOST_INT = -(1 << 31), (1 << 31) - 1


@kernel(
    reads(np.uint8),
    reads(np.int64),
    reads(np.int64),
    reads(np.uint8),
    reads(np.uint8),
    reads(np.uint8),
    reads(np.uint8),
    reads(NAME),
    reads(np.uint8),
    array(CLOSED_BAR),
    array(np.uint8),
    array(np.uint8),
)
def decode_closed_bars(
    values: Array,
    ends: Array,
    offsets: Array,
    head: Array,
    interval: Array,
    source: Array,
    trades: Array,
    symbols: Array,
    symbol_bytes: Array,
    bars: Array,
    short: Array,
    marks: Array,
) -> int:
    """Read one record from each value into `bars`, and its short form into `short`; say in `marks`
    which are plain. Return how much of `short` is used.

    `interval`, `source` and `trades`, the provenance that counts, are as Avro has them. `short` has
    as much room as `values`.
    """
    start, used = 0, 0
    for row in range(len(ends)):
        end = ends[row]
        marks[row] = ODD
        at, start = start, end
        if end - at < _HEADER or not same(head, 0, values, at, at + _HEADER):
            continue
        symbol_at = at + _HEADER
        symbol_first, symbol_after = read_size(values, symbol_at, end)
        if symbol_first == NOTHING:
            continue
        at = symbol_after
        if end - at < len(interval) or not same(interval, 0, values, at, at + len(interval)):
            continue
        times_at = at + len(interval)
        ts_start, at = read_long(values, times_at, end)
        if at == NOTHING:
            continue
        ts_end, times_after = read_long(values, at, end)
        if times_after == NOTHING or ts_start < 0 or ts_start >= ts_end or ts_end >= LATEST_MS:
            continue
        figures_at = _after_int(values, times_after, end)  # the trade date
        at = figures_at
        for _ in range(6):  # open, high, low, close, volume, turnover
            at = _after_decimal(values, at, end)
        figures_after = at
        for _ in range(3):  # vwap, the volumes bought and sold
            at = _after_optional_decimal(values, at, end)
        for _ in range(3):  # trade count, first and last time
            at = _after_optional_long(values, at, end)
        if at == NOTHING:
            continue
        revision_at = at
        revision, at = read_long(values, at, end)
        if at == NOTHING or revision < _LEAST_INT or revision > _MOST_INT or at >= end:
            continue
        revision_after = at
        closed = values[at]
        if closed > 1:
            continue
        completeness_at = _after_text(values, at + 1, end)  # behind the cause
        provenance_at = _after_text(values, completeness_at, end)
        source_at = _after_text(values, provenance_at, end)
        if source_at == NOTHING:
            continue
        at = source_at
        if end - at < len(source) or not same(source, 0, values, at, at + len(source)):
            continue
        received_at = at + len(source)
        _, received_after = read_long(values, received_at, end)
        if received_after == NOTHING:
            continue
        partition, at = read_long(values, received_after, end)
        if at == NOTHING or partition < _LEAST_INT or partition > _MOST_INT:
            continue
        _, at = read_long(values, at, end)
        if at != end:
            continue
        slot = look_up(symbols, symbol_bytes, values, symbol_first, symbol_after)
        if slot == UNKNOWN:
            marks[row] = NEW
            continue
        marks[row] = PLAIN
        bar = bars[row]
        bar["offset"] = offsets[row]
        bar["ts_start"], bar["ts_end"] = ts_start, ts_end
        bar["symbol"] = symbols[slot]["index"]
        counts = (
            closed == 1
            and source_at - provenance_at == len(trades)
            and same(trades, 0, values, provenance_at, source_at)
        )
        bar["counts"] = 1 if counts else 0
        bar["first"] = used
        if counts:
            used = _put(short, used, values, symbol_at, symbol_after)
            used = _put(short, used, values, times_at, times_after)
            used = _put(short, used, values, figures_at, figures_after)
            used = _put(short, used, values, revision_at, revision_after)
            used = _put(short, used, values, completeness_at, provenance_at)
            used = _put(short, used, values, received_at, received_after)
        bar["after"] = used
    return used


@part
def _put(short: Array, used: int, values: Array, first: int, after: int) -> int:
    for at in range(first, after):
        short[used + at - first] = values[at]
    return used + after - first


@part
def _after_int(values: Array, at: int, end: int) -> int:
    """Return where a nullable int ends, NOTHING if it is not plain."""
    if at == NOTHING or at >= end:
        return NOTHING
    if values[at] == 0:
        return at + 1
    if values[at] != 2:
        return NOTHING
    number, at = read_long(values, at + 1, end)
    return NOTHING if number < _LEAST_INT or number > _MOST_INT else at


@part
def _after_optional_long(values: Array, at: int, end: int) -> int:
    if at == NOTHING or at >= end:
        return NOTHING
    if values[at] == 0:
        return at + 1
    if values[at] != 2:
        return NOTHING
    _, at = read_long(values, at + 1, end)
    return at


@part
def _after_optional_decimal(values: Array, at: int, end: int) -> int:
    if at == NOTHING or at >= end:
        return NOTHING
    if values[at] == 0:
        return at + 1
    if values[at] != 2:
        return NOTHING
    return _after_decimal(values, at + 1, end)


@part
def _after_decimal(values: Array, at: int, end: int) -> int:
    if at == NOTHING:
        return NOTHING
    first, after = read_size(values, at, end)
    if first == NOTHING or after - first > _MOST_DECIMAL or after == first:
        return NOTHING
    return after


@part
def _after_text(values: Array, at: int, end: int) -> int:
    if at == NOTHING:
        return NOTHING
    first, after = read_size(values, at, end)
    if first == NOTHING or not is_ascii(values, first, after):
        return NOTHING
    return after
