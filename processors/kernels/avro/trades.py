"""Raw trades, as producers of this version write them, from Avro to columns.

What is not plain is marked, and Python reads that record: another schema, numbers that a column
does not hold, texts that are not ASCII, names and origins that the tables do not have, whatever
`decode.raw_records.trade_of` might refuse. So the kernel refuses nothing itself.
"""

import numpy as np

from processors.kernels.avro.read import NOTHING, is_ascii, read_decimal, read_long, read_size
from processors.kernels.columns import TRADE, Array
from processors.kernels.compiled import INT, array, kernel, part, reads
from processors.kernels.name_table import NAME, UNKNOWN, look_up, same
from processors.kernels.numbers.words import multiplied
from schemas.control import LATEST_MS
from schemas.times import EARLIEST_MS

LANE_FACTS = np.dtype([("business", np.int32), ("common", np.int32)], align=True)
"""Of a lane, by its index: its business as a number, and whether that is `common`, whose prices may
be 0 and less."""

SESSION = np.dtype([("begin", np.int64), ("end", np.int64), ("business", np.int64)], align=True)
"""Of a symbol, by its index: event times [begin, end) of a business that need not be counted."""

PLAIN = 0
NEW = 1
"""Python must make the symbol or the lane, if it can be made."""
ODD = 2
"""Python reads the record."""

LOOK_SESSION = 1
"""Python counts the trade by its session."""
TURNOVER_DIFFERS = 2
LOOK_TURNOVER = 4
"""Python compares the vendor's turnover."""

MOST_TRADE_TYPE = 200_000
_MOST_WHOLE_DIGITS = 20
"""Digits before the point of price and volume together: their product is below 10^20 then."""
_HEADER = 5
_POWERS = np.array([10**digits for digits in range(19)], np.uint64)


@kernel(
    reads(np.uint8),
    reads(np.int64),
    reads(np.int64),
    reads(np.uint8),
    reads(np.uint8),
    reads(NAME),
    reads(np.uint8),
    reads(NAME),
    reads(np.uint8),
    reads(LANE_FACTS),
    reads(SESSION),
    INT,
    array(TRADE),
    array(np.uint8),
    array(np.uint8),
)
def decode_trades(
    values: Array,
    ends: Array,
    offsets: Array,
    head: Array,
    source: Array,
    symbols: Array,
    symbol_bytes: Array,
    origins: Array,
    origin_bytes: Array,
    facts: Array,
    sessions: Array,
    max_future_ms: int,
    trades: Array,
    marks: Array,
    looks: Array,
) -> None:
    """Read one trade from each value into `trades`, say in `marks` which are plain, and in `looks`
    what Python has to count of those.

    `values` are the values' bytes one after the other, `ends` where each ends, `head` the header of
    the schema. `source` is what all records come from, as Avro has it. An empty `sessions` counts
    none.
    """
    start = 0
    last_start, last_size, last_lane = 0, -1, 0
    for row in range(len(ends)):
        end = ends[row]
        marks[row] = ODD
        looks[row] = 0
        at, start = start, end
        if end - at < _HEADER or not _begins(values, at, head):
            continue
        at += _HEADER
        symbol_first, symbol_after = read_size(values, at, end)
        if symbol_first == NOTHING:
            continue
        event, at = read_long(values, symbol_after, end)
        if at == NOTHING:
            continue
        first, at = read_size(values, at, end)
        if first == NOTHING:
            continue
        price, price_scale, price_digits = read_decimal(values, first, at)
        if price_scale == NOTHING:
            continue
        first, at = read_size(values, at, end)
        if first == NOTHING:
            continue
        volume, volume_scale, volume_digits = read_decimal(values, first, at)
        if volume_scale == NOTHING or values[first] == 45:
            continue
        turnover_first, turnover_after, at = _optional(values, at, end)
        if at == NOTHING or not is_ascii(values, turnover_first, turnover_after):
            continue
        direction, at = read_long(values, at, end)
        if at == NOTHING or direction < 0 or direction > 2:
            continue
        first, after, at = _optional(values, at, end)
        if at == NOTHING or after - first > MOST_TRADE_TYPE or not is_ascii(values, first, after):
            continue
        if at >= end:
            continue
        repeat = values[at] == 1
        at += 1
        origin_first = at
        for _ in range(3):  # business, feed, connection
            if at != NOTHING:
                first, at = read_size(values, at, end)
        origin_after = at
        if at == NOTHING:
            continue
        _, at = read_long(values, at, end)  # the sequence
        if at == NOTHING:
            continue
        received, at = read_long(values, at, end)
        if at == NOTHING or received < 0:
            continue
        if end - at < len(source) or not same(source, 0, values, at, at + len(source)):
            continue
        first, after, at = _optional(values, at + len(source), end)
        if at != end or not is_ascii(values, first, after):
            continue

        received_ms = received // 1000
        if event < EARLIEST_MS or event > received_ms + max_future_ms:
            continue
        if received_ms + max_future_ms >= LATEST_MS:
            continue
        if price_digits + volume_digits > _MOST_WHOLE_DIGITS:
            continue

        if origin_after - origin_first != last_size or not same(
            origin_bytes, last_start, values, origin_first, origin_after
        ):
            slot = look_up(origins, origin_bytes, values, origin_first, origin_after)
            if slot == UNKNOWN:
                marks[row] = NEW
                continue
            last_start = origins[slot]["start"]
            last_size = origins[slot]["size"]
            last_lane = origins[slot]["index"]
        if price <= 0 and facts[last_lane]["common"] == 0:
            continue
        slot = look_up(symbols, symbol_bytes, values, symbol_first, symbol_after)
        if slot == UNKNOWN:
            marks[row] = NEW
            continue
        symbol = symbols[slot]["index"]

        trade = trades[row]
        trade["offset"] = offsets[row]
        trade["ts_event"] = event
        trade["ts_recv"] = received
        trade["price"] = price
        trade["volume"] = volume
        trade["symbol"] = symbol
        trade["lane"] = last_lane
        trade["price_scale"] = price_scale
        trade["volume_scale"] = volume_scale
        trade["direction"] = direction
        trade["repeat"] = 1 if repeat else 0
        marks[row] = PLAIN
        if repeat:
            continue
        look = 0
        if len(sessions) > 0:
            known = sessions[symbol]
            if (
                event < known["begin"]
                or event >= known["end"]
                or known["business"] != facts[last_lane]["business"]
            ):
                look = LOOK_SESSION
        if turnover_first < turnover_after:
            look += _turnover(
                values, turnover_first, turnover_after, price, volume, price_scale + volume_scale
            )
        elif turnover_first != NOTHING:
            look += TURNOVER_DIFFERS  # an empty text is no number
        looks[row] = look


@part
def _begins(values: Array, at: int, head: Array) -> bool:
    for index in range(_HEADER):
        if values[at + index] != head[index]:
            return False
    return True


@part
def _optional(values: Array, at: int, end: int) -> tuple[int, int, int]:
    """Return where a nullable string begins and ends, both NOTHING if it is null, and where the
    next value begins: NOTHING if it is not plain."""
    if at >= end:
        return NOTHING, NOTHING, NOTHING
    branch = values[at]
    if branch == 0:
        return NOTHING, NOTHING, at + 1
    if branch != 2:
        return NOTHING, NOTHING, NOTHING
    first, after = read_size(values, at + 1, end)
    return first, after, after


@part
def _turnover(values: Array, first: int, after: int, price: int, volume: int, scale: int) -> int:
    """Return whether the vendor's turnover is price x volume exactly: 0, TURNOVER_DIFFERS or
    LOOK_TURNOVER."""
    turnover, turnover_scale, _ = read_decimal(values, first, after)
    if turnover_scale == NOTHING:
        return LOOK_TURNOVER
    if (turnover < 0) != (price < 0) and turnover != 0:
        return TURNOVER_DIFFERS
    high, low = multiplied(np.uint64(abs(price)), np.uint64(volume))
    other_high, other_low = np.uint64(0), np.uint64(abs(turnover))
    more = scale - turnover_scale
    if more > 18 or (more < 0 and high != np.uint64(0)):
        return LOOK_TURNOVER
    if more >= 0:
        other_high, other_low = multiplied(other_low, _POWERS[more])
    else:
        high, low = multiplied(low, _POWERS[-more])
    if high == other_high and low == other_low:
        return 0
    return TURNOVER_DIFFERS
