"""Rolling windows in an arena: a ring of trades for each symbol, sorted by event time, and the sums
of each window; no rows and no lateness.

A ring is a part of one array `arena` whose length is a power of two, so that a position wraps
around by a mask. It begins with the first trade of the longest window. Trades of one millisecond
are entries of their own. A trade out of order is inserted in its place: what is newer moves by one.
"""

from typing import Any

import numpy as np

from processors.kernels.columns import Array
from processors.kernels.compiled import part
from processors.kernels.numbers.limbs import ZERO, Word, add, multiply, subtract

ENTRY = np.dtype([("ts", np.int64), ("price", np.int64), ("volume", np.int64)])
"""A trade: event time in ms, mantissas in the scales of its symbol."""

SUMS = [(name, np.uint64) for name in ("v0", "v1", "t0", "t1", "t2", "q0", "q1", "q2", "q3")]
"""Sums in limbs as `processors.kernels.numbers.limbs` takes them; t in two's complement."""

WINDOW = np.dtype([("left", np.int64), ("count", np.int64), *SUMS])
"""One window of one symbol: where in the ring its first trade is, and how many it has."""

RING = [(name, np.int64) for name in ("now", "base", "capacity", "head", "count")]
"""Fields of a symbol: its greatest event time, where its ring lies, and how much of it is used."""


@part
def products(price: int, volume: int) -> tuple[Word, Word, Word, Word, Word]:
    """Return the words of |p| x v and of p^2 x v: two and three."""
    size = np.uint64(price if price >= 0 else -price)
    high, low = multiply(size, np.uint64(volume))
    q1, q0 = multiply(low, size)
    q2, middle = multiply(high, size)
    q1, carry = add(q1, middle, ZERO)
    return low, high, q0, q1, q2 + carry


@part
def add_to(sums: Any, price: int, volume: int) -> None:
    """Add a trade to sums."""
    t0, t1, q0, q1, q2 = products(price, volume)
    sums["v0"], carry = add(sums["v0"], np.uint64(volume), ZERO)
    sums["v1"], carry = add(sums["v1"], ZERO, carry)
    if price >= 0:
        sums["t0"], carry = add(sums["t0"], t0, ZERO)
        sums["t1"], carry = add(sums["t1"], t1, carry)
        sums["t2"], carry = add(sums["t2"], ZERO, carry)
    else:
        sums["t0"], carry = subtract(sums["t0"], t0, ZERO)
        sums["t1"], carry = subtract(sums["t1"], t1, carry)
        sums["t2"], carry = subtract(sums["t2"], ZERO, carry)
    sums["q0"], carry = add(sums["q0"], q0, ZERO)
    sums["q1"], carry = add(sums["q1"], q1, carry)
    sums["q2"], carry = add(sums["q2"], q2, carry)
    sums["q3"], carry = add(sums["q3"], ZERO, carry)
    sums["count"] += 1


@part
def take_from(sums: Any, price: int, volume: int) -> None:
    """Subtract a trade from sums that have it."""
    t0, t1, q0, q1, q2 = products(price, volume)
    sums["v0"], carry = subtract(sums["v0"], np.uint64(volume), ZERO)
    sums["v1"], carry = subtract(sums["v1"], ZERO, carry)
    if price >= 0:
        sums["t0"], carry = subtract(sums["t0"], t0, ZERO)
        sums["t1"], carry = subtract(sums["t1"], t1, carry)
        sums["t2"], carry = subtract(sums["t2"], ZERO, carry)
    else:
        sums["t0"], carry = add(sums["t0"], t0, ZERO)
        sums["t1"], carry = add(sums["t1"], t1, carry)
        sums["t2"], carry = add(sums["t2"], ZERO, carry)
    sums["q0"], carry = subtract(sums["q0"], q0, ZERO)
    sums["q1"], carry = subtract(sums["q1"], q1, carry)
    sums["q2"], carry = subtract(sums["q2"], q2, carry)
    sums["q3"], carry = subtract(sums["q3"], ZERO, carry)
    sums["count"] -= 1


@part
def append(
    ring: Any, windows: Array, spans: Array, longest: int, arena: Array, ts: int, price: int,
    volume: int,
) -> None:  # fmt: skip
    """Take a trade later than all before; `ring` and `windows` are those of its symbol, `longest`
    is the index of the longest window. The ring has room."""
    base, mask = ring["base"], ring["capacity"] - 1
    head, count = ring["head"], ring["count"]
    ring["now"] = ts
    for index in range(len(spans)):
        window = windows[index]
        left, outside = window["left"], ts - spans[index]
        while left < count:
            entry = arena[base + ((head + left) & mask)]
            if entry["ts"] > outside:
                break
            take_from(window, entry["price"], entry["volume"])
            left += 1
        window["left"] = left
    expired = windows[longest]["left"]
    if expired > 0:
        head = (head + expired) & mask
        count -= expired
        ring["head"] = head
        for index in range(len(spans)):
            windows[index]["left"] -= expired
    entry = arena[base + ((head + count) & mask)]
    entry["ts"], entry["price"], entry["volume"] = ts, price, volume
    ring["count"] = count + 1
    for index in range(len(spans)):
        add_to(windows[index], price, volume)


@part
def insert(
    ring: Any, windows: Array, spans: Array, arena: Array, ts: int, price: int, volume: int
) -> None:
    """Take a trade that is not later than all before, and within the longest window. The ring has
    room."""
    base, mask = ring["base"], ring["capacity"] - 1
    head, at = ring["head"], ring["count"]
    ring["count"] = at + 1
    while at > 0:
        newer = arena[base + ((head + at - 1) & mask)]
        if newer["ts"] <= ts:
            break
        entry = arena[base + ((head + at) & mask)]
        entry["ts"], entry["price"], entry["volume"] = newer["ts"], newer["price"], newer["volume"]
        at -= 1
    entry = arena[base + ((head + at) & mask)]
    entry["ts"], entry["price"], entry["volume"] = ts, price, volume
    for index in range(len(spans)):
        if ts > ring["now"] - spans[index]:
            add_to(windows[index], price, volume)
        else:
            windows[index]["left"] += 1
