"""Bars in bulk: into the arrays and out of them, and their compact form in the state topic.

A stored bar is: version, interval, flags, the two scales, then numbers of variable length.
"""

import numpy as np

from processors.kernels.avro.stored import get_long, get_unsigned
from processors.kernels.avro.write import put_big, put_long, put_unsigned
from processors.kernels.bars.arrays import BAR, FIXED, NONE, TAKES, BarArrays
from processors.kernels.bars.chains import EXTREME, drop, make, wait
from processors.kernels.bars.closing import settle
from processors.kernels.bars.figures import rescale_bar
from processors.kernels.columns import Array, Record
from processors.kernels.compiled import INT, array, kernel, part, reads
from processors.kernels.numbered_pairs import PAIR_BYTES, REMOVED
from processors.kernels.numbers.wide import is_negative, negate3

VERSION = 1
STORED_BYTES = 220
"""A stored bar takes no more than this."""
NAME_BYTES = 3
"""Before a stored bar the length of its symbol, and that."""
BAR_KEY = 1
"""Begins the keys of bars in the state topic; four bytes of the record's number follow, which is
used again for another bar."""
KEY_BYTES = 5
REMOVED_BYTES = PAIR_BYTES + KEY_BYTES
"""Of the pair of a bar that is removed."""


@kernel(array(BAR), array(np.int8, 2), TAKES)
def place(rows: Array, scales: Array, arrays: BarArrays) -> None:
    """Put bars (BAR, whose slot and level are set) into the arrays and let them wait for their
    feeds; `scales` has each one's price and volume scale, none greater than its slot's.

    There must be room for all of them.
    """
    for at in range(len(rows)):
        row = rows[at]
        index = make(
            arrays, int(row["slot"]), int(row["level"]), row["start"], row["end"],
            int(row["trade_date"]), row["closed"] != 0,
        )  # fmt: skip
        bar = arrays.bars[index]
        newer, older = bar["newer"], bar["older"]
        dirty, stored = bar["dirty"], bar["stored"]
        arrays.bars[index] = row
        bar["newer"], bar["older"] = newer, older
        bar["dirty"], bar["stored"] = dirty, stored
        slot = arrays.slots[row["slot"]]
        rescale_bar(
            arrays,
            index,
            slot["price_scale"] - scales[at, 0],
            slot["volume_scale"] - scales[at, 1],
        )
        wait(arrays, index, 0)


@kernel(INT, array(BAR), TAKES)
def lift(slot: int, found: Array, arrays: BarArrays) -> int:
    """Take the bars of a slot out of the arrays into `found` (BAR); return how many. Nothing is
    taken out if they are more than fit."""
    count = 0
    for level in range(arrays.settings[0]["levels"]):
        index = arrays.links[slot, level]["oldest"]
        while index != NONE:
            if count < len(found):
                found[count] = arrays.bars[index]
            count += 1
            index = arrays.bars[index]["newer"]
    if count > len(found):
        return count
    for level in range(arrays.settings[0]["levels"]):
        arrays.links[slot, level]["current"] = NONE
        while arrays.links[slot, level]["oldest"] != NONE:
            drop(arrays, arrays.links[slot, level]["oldest"])
    return count


@kernel(INT, TAKES)
def settle_feed(feed: int, arrays: BarArrays) -> None:
    """Set when anything is to be done next for a feed."""
    settle(arrays, feed)


@kernel(INT, array(np.uint8), array(np.int64), TAKES)
def dump(first: int, out: Array, ends: Array, arrays: BarArrays) -> int:
    """Write the bars of `dirty` from `first` on as pairs of the state topic, as far as there is
    room, and end each in `ends`; one that the state topic never had, and is not to have, is empty.
    Return after which one it stopped.

    All of them count as stored then.
    """
    run = arrays.run[0]
    at, number = 0, first
    while number < run["dirty"] and number - first < len(ends):
        index = arrays.dirty[number]
        bar = arrays.bars[index]
        if bar["level"] == NONE:
            if at + REMOVED_BYTES > len(out):
                break
            if bar["stored"] != 0:
                at = _put_key(out, at, index, REMOVED)
            bar["stored"] = np.int8(0)
        else:
            text = arrays.texts[
                len(FIXED) + arrays.settings[0]["levels"] + arrays.slots[bar["slot"]]["key"]
            ]
            name = text["first"]
            while arrays.bytes[name] >= 128:  # its length comes first
                name += 1
            name += 1
            size = text["after"] - name
            if at + REMOVED_BYTES + NAME_BYTES + size + STORED_BYTES > len(out):
                break
            begin = at
            at += REMOVED_BYTES
            put_big(out, at, size, NAME_BYTES)
            at += NAME_BYTES
            for place in range(size):
                out[at + place] = arrays.bytes[name + place]
            at = _put_bar(arrays, index, out, at + size)
            _put_key(out, begin, index, at - begin - REMOVED_BYTES)
            bar["stored"] = np.int8(1)
        ends[number - first] = at
        bar["dirty"] = np.int8(0)
        number += 1
    return number


@part
def _put_key(out: Array, at: int, index: int, length: int) -> int:
    """Write what a pair begins with: the length of its key, that of its value, and the key."""
    put_big(out, at, KEY_BYTES, 4)
    put_big(out, at + 4, length, 4)
    out[at + 8] = np.uint8(BAR_KEY)
    put_big(out, at + 9, index, 4)
    return at + REMOVED_BYTES


@kernel(reads(np.uint8), reads(np.int64), array(BAR), array(np.int8, 2))
def restore(stored: Array, starts: Array, rows: Array, scales: Array) -> None:
    """Read the bars that `dump` wrote, which begin at `starts`, into `rows` (BAR) and `scales`."""
    for number in range(len(starts)):
        _get_bar(stored, starts[number], rows[number], scales, number)


@part
def _put_bar(arrays: BarArrays, index: int, out: Array, at: int) -> int:
    bar = arrays.bars[index]
    slot = arrays.slots[bar["slot"]]
    t0, t1, t2 = bar["turnover_0"], bar["turnover_1"], bar["turnover_2"]
    negative = is_negative(t2)
    if negative:
        t0, t1, t2 = negate3(t0, t1, t2)
    has_prices = bar["high"] >= bar["low"]
    out[at] = np.uint8(VERSION)
    out[at + 1] = np.uint8(bar["level"])
    flags = (
        int(bar["closed"])
        | int(bar["folded"]) << 1
        | int(bar["completeness"]) << 2
        | int(bar["provenance"]) << 4
    )
    out[at + 2] = np.uint8(flags | (64 if has_prices else 0) | (128 if negative else 0))
    out[at + 3], out[at + 4] = np.uint8(slot["price_scale"]), np.uint8(slot["volume_scale"])
    at += 5
    start = bar["start"]
    at = put_long(out, at, start)
    at = put_long(out, at, bar["end"] - start)
    at = put_long(out, at, int(bar["trade_date"]))
    at = put_long(out, at, int(bar["revision"]))
    at = put_long(out, at, bar["count"])
    at = put_long(out, at, bar["published"])
    at = put_long(out, at, bar["ts_recv"])
    if has_prices:
        at = put_long(out, at, bar["ts_first"] - start)
        at = put_long(out, at, bar["ts_last"] - start)
        at = put_long(out, at, bar["open"])
        at = put_long(out, at, bar["high"] - bar["open"])
        at = put_long(out, at, bar["open"] - bar["low"])
        at = put_long(out, at, bar["close"] - bar["open"])
    at = put_unsigned(out, put_unsigned(out, at, bar["volume_0"]), bar["volume_1"])
    at = put_unsigned(out, put_unsigned(out, at, bar["buy_0"]), bar["buy_1"])
    at = put_unsigned(out, put_unsigned(out, at, bar["sell_0"]), bar["sell_1"])
    return put_unsigned(out, put_unsigned(out, put_unsigned(out, at, t0), t1), t2)


@part
def _get_bar(stored: Array, at: int, bar: Record, scales: Array, number: int) -> None:
    bar["level"] = np.int8(stored[at + 1])
    flags = np.int64(stored[at + 2])
    bar["closed"], bar["folded"] = np.int8(flags & 1), np.int8(flags >> 1 & 1)
    bar["completeness"], bar["provenance"] = np.int8(flags >> 2 & 3), np.int8(flags >> 4 & 3)
    scales[number, 0], scales[number, 1] = stored[at + 3], stored[at + 4]
    start, at = get_long(stored, at + 5)
    length, at = get_long(stored, at)
    bar["start"], bar["end"] = start, start + length
    bar["trade_date"], at = get_long(stored, at)
    bar["revision"], at = get_long(stored, at)
    bar["count"], at = get_long(stored, at)
    bar["published"], at = get_long(stored, at)
    bar["ts_recv"], at = get_long(stored, at)
    if flags & 64 != 0:
        first, at = get_long(stored, at)
        last, at = get_long(stored, at)
        bar["ts_first"], bar["ts_last"] = start + first, start + last
        opened, at = get_long(stored, at)
        above, at = get_long(stored, at)
        below, at = get_long(stored, at)
        later, at = get_long(stored, at)
        bar["open"], bar["close"] = opened, opened + later
        bar["high"], bar["low"] = opened + above, opened - below
    else:
        bar["ts_first"], bar["ts_last"] = EXTREME, -EXTREME
        bar["open"], bar["high"], bar["low"], bar["close"] = 0, -EXTREME, EXTREME, 0
    bar["volume_0"], at = get_unsigned(stored, at)
    bar["volume_1"], at = get_unsigned(stored, at)
    bar["buy_0"], at = get_unsigned(stored, at)
    bar["buy_1"], at = get_unsigned(stored, at)
    bar["sell_0"], at = get_unsigned(stored, at)
    bar["sell_1"], at = get_unsigned(stored, at)
    t0, at = get_unsigned(stored, at)
    t1, at = get_unsigned(stored, at)
    t2, at = get_unsigned(stored, at)
    if flags & 128 != 0:
        t0, t1, t2 = negate3(t0, t1, t2)
    bar["turnover_0"], bar["turnover_1"], bar["turnover_2"] = t0, t1, t2
