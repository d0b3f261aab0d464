"""Finds, makes and drops bars in their arrays, and lets them wait in the heaps of their feed."""

import numpy as np

from processors.kernels.bars.arrays import NONE, BarArrays
from processors.kernels.compiled import part

EXTREME = np.int64(1 << 62)
"""Beyond every price and every time."""
_ZERO = np.uint64(0)


@part
def find(arrays: BarArrays, slot: int, level: int, start: int) -> int:
    """Return the bar of a slot and level with this start, NONE if there is none."""
    bars = arrays.bars
    index = arrays.links[slot, level]["newest"]
    while index >= 0 and bars[index]["start"] > start:
        index = bars[index]["older"]
    if index >= 0 and bars[index]["start"] == start:
        return int(index)
    return NONE


@part
def make(
    arrays: BarArrays, slot: int, level: int, start: int, end: int, trade_date: int, closed: bool
) -> int:
    """Make a bar without trades, closed (and folded) or open; there must be room."""
    bars, run, link = arrays.bars, arrays.run[0], arrays.links[slot, level]
    index = run["free"]
    bar = bars[index]
    run["free"] = bar["older"]
    run["free_count"] -= 1
    newer, older = NONE, link["newest"]
    while older >= 0 and bars[older]["start"] > start:
        newer, older = older, bars[older]["older"]
    bar["newer"], bar["older"] = newer, older
    if newer >= 0:
        bars[newer]["older"] = index
    else:
        link["newest"] = index
    if older >= 0:
        bars[older]["newer"] = index
    else:
        link["oldest"] = index
    bar["slot"], bar["level"], bar["start"], bar["end"] = slot, level, start, end
    bar["trade_date"] = trade_date
    bar["closed"] = bar["folded"] = np.int8(1) if closed else np.int8(0)
    bar["ts_first"], bar["ts_last"], bar["ts_recv"] = EXTREME, -EXTREME, 0
    bar["open"], bar["high"], bar["low"], bar["close"] = 0, -EXTREME, EXTREME, 0
    bar["volume_0"] = bar["volume_1"] = _ZERO
    bar["buy_0"] = bar["buy_1"] = bar["sell_0"] = bar["sell_1"] = _ZERO
    bar["turnover_0"] = bar["turnover_1"] = bar["turnover_2"] = _ZERO
    bar["count"] = bar["published"] = 0
    bar["revision"] = 0
    bar["completeness"] = bar["known"] = bar["provenance"] = 0
    touch(arrays, index)
    return int(index)


@part
def drop(arrays: BarArrays, index: int) -> None:
    """Make a bar a free record."""
    bars, run = arrays.bars, arrays.run[0]
    bar = bars[index]
    link = arrays.links[bar["slot"], bar["level"]]
    newer, older = bar["newer"], bar["older"]
    if newer >= 0:
        bars[newer]["older"] = older
    else:
        link["newest"] = older
    if older >= 0:
        bars[older]["newer"] = newer
    else:
        link["oldest"] = newer
    if link["current"] == index:
        link["current"] = NONE
    touch(arrays, index)
    bar["level"] = NONE
    bar["older"] = run["free"]
    run["free"] = index
    run["free_count"] += 1


@part
def touch(arrays: BarArrays, index: int) -> None:
    """Have a bar written to the state topic, or removed there if it is free by then."""
    if arrays.bars[index]["dirty"] == 0:
        run = arrays.run[0]
        arrays.bars[index]["dirty"] = 1
        arrays.dirty[run["dirty"]] = index
        run["dirty"] += 1


@part
def wait(arrays: BarArrays, index: int, longer: int) -> None:
    """Let a bar wait for the event time of its symbol's feed: to close, or to be dropped, `longer`
    milliseconds after its end. There must be room."""
    bar = arrays.bars[index]
    feed = arrays.symbols[bar["slot"]]["feed"]
    end = bar["end"] + longer
    heap = arrays.heaps[2 * feed + (1 if bar["closed"] != 0 else 0)]
    at = heap["size"]
    heap["size"] += 1
    entry = arrays.entries[heap["base"] + at]
    entry["end"], entry["start"], entry["level"] = end, bar["start"], bar["level"]
    entry["slot"], entry["bar"] = bar["slot"], index
    _rise(arrays, heap["base"], at)
    if bar["closed"] == 0:
        due = end + arrays.settings[0]["delay"]
        if due < arrays.feeds[feed]["due"]:
            arrays.feeds[feed]["due"] = due


@part
def pop(arrays: BarArrays, number: int) -> None:
    """Remove the first entry of a heap."""
    heap = arrays.heaps[number]
    heap["size"] -= 1
    last = heap["size"]
    if last > 0:
        base = heap["base"]
        _swap(arrays, base, base + last)
        _sink(arrays, base, 0, last)


@part
def sort(arrays: BarArrays, number: int) -> None:
    """Sort the entries of a heap, which stays one."""
    heap = arrays.heaps[number]
    base, size = heap["base"], heap["size"]
    # the first one goes to the end, again and again: the greatest comes first then
    while size > 1:
        size -= 1
        _swap(arrays, base, base + size)
        _sink(arrays, base, 0, size)
    first, last = base, base + heap["size"] - 1
    while first < last:
        _swap(arrays, first, last)
        first += 1
        last -= 1


@part
def precedes(arrays: BarArrays, left: int, right: int) -> bool:
    """Return whether an entry closes before another: by end, level, symbol and start."""
    one, other = arrays.entries[left], arrays.entries[right]
    if one["end"] != other["end"]:
        return bool(one["end"] < other["end"])
    if one["level"] != other["level"]:
        return bool(one["level"] < other["level"])
    if one["slot"] != other["slot"]:
        slots = arrays.slots
        return bool(slots[one["slot"]]["order"] < slots[other["slot"]]["order"])
    return bool(one["start"] < other["start"])


@part
def _swap(arrays: BarArrays, left: int, right: int) -> None:
    one, other = arrays.entries[left], arrays.entries[right]
    end, start, slot = one["end"], one["start"], one["slot"]
    bar, level = one["bar"], one["level"]
    one["end"], one["start"], one["slot"] = other["end"], other["start"], other["slot"]
    one["bar"], one["level"] = other["bar"], other["level"]
    other["end"], other["start"], other["slot"] = end, start, slot
    other["bar"], other["level"] = bar, level


@part
def _rise(arrays: BarArrays, base: int, at: int) -> None:
    while at > 0:
        parent = (at - 1) // 2
        if not precedes(arrays, base + at, base + parent):
            return
        _swap(arrays, base + at, base + parent)
        at = parent


@part
def _sink(arrays: BarArrays, base: int, at: int, size: int) -> None:
    while True:
        child = 2 * at + 1
        if child >= size:
            return
        if child + 1 < size and precedes(arrays, base + child + 1, base + child):
            child += 1
        if not precedes(arrays, base + child, base + at):
            return
        _swap(arrays, base + child, base + at)
        at = child
