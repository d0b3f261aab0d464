"""What one order book says, in exact integers, within kernels: its sides, mids and imbalances.

A side is rows of an array of levels: price and size as mantissas of the book's scales, best first.
The rules are those of `agents.depth.figures` and `schemas.sides`.
"""

import numpy as np

from processors.kernels.books.run import PRICE, SIZE
from processors.kernels.columns import Array
from processors.kernels.compiled import part
from processors.kernels.numbers.words import (
    ONE,
    TWO,
    ZERO,
    Int,
    Word,
    added,
    bits,
    divided,
    less,
    multiplied,
    shifted,
    subtracted,
)
from schemas.decimals import SCALE

POWERS = np.array([10**exponent for exponent in range(SCALE + 1)], np.uint64)
"""10^0 to 10^18."""

_WEIGHTS = np.array([2520 // level for level in range(1, 11)], np.uint64)
"""1/i for the i-th of ten levels, in units of 1/2520."""

# of a double: bits of the fraction, and what its exponent counts from
_FRACTION = Word(52)
_BIAS = Word(1023)
_GUARDED = Word(54)
"""Bits of a quotient that decide how it is rounded to 53, beside whether anything follows."""
_MOST_SHORT = Word(1 << 62)
"""What is less is divided as 64 bits."""


@part
def clean(levels: Array, first: int, count: int, below_zero: bool, side: Array, base: int) -> int:
    """Copy the levels that are there to side[base:]; return how many they are."""
    kept = base
    for index in range(first, first + count):
        if levels[index, SIZE] > 0 and (below_zero or levels[index, PRICE] > 0):
            side[kept, PRICE] = levels[index, PRICE]
            side[kept, SIZE] = levels[index, SIZE]
            kept += 1
    return kept - base


@part
def order_speaks(side: Array, a: int, a_count: int, b: int, b_count: int) -> int:
    """Return 1 if the order of the prices shows list a as the asks, -1 if as the bids, 0 if
    neither; as `schemas.sides`."""
    way_a, way_b = _way(side, a, a_count), -_way(side, b, b_count)
    way = way_a if way_a != 0 else way_b
    if way == 0 or way_a * way_b < 0:
        return 0
    if (a_count > 1 and way_a == 0) or (b_count > 1 and way_b == 0):
        return 0
    if way < 0 and a_count > 0 and b_count > 0:
        least, greatest = side[a, PRICE], side[b, PRICE]
        for index in range(a, a + a_count):
            least = min(least, side[index, PRICE])
        for index in range(b, b + b_count):
            greatest = max(greatest, side[index, PRICE])
        if least > greatest:
            return 0
    return way


@part
def _way(side: Array, base: int, count: int) -> int:
    """Return 1 for prices that run up, -1 for prices that run down, 0 for anything else."""
    if count < 2 or side[base, PRICE] == side[base + count - 1, PRICE]:
        return 0
    way = 1 if side[base, PRICE] < side[base + count - 1, PRICE] else -1
    for index in range(base + 1, base + count):
        if (side[index, PRICE] - side[index - 1, PRICE]) * way < 0:
            return 0
    return way


@part
def sort(side: Array, base: int, count: int, descending: bool) -> int:
    """Sort a side, best first, and sum the sizes of equal prices; return how many levels are left.

    Sides come sorted as a rule: levels are inserted one after the other.
    """
    kept = base
    for index in range(base, base + count):
        price, size = side[index, PRICE], side[index, SIZE]
        at = kept
        while at > base and (
            side[at - 1, PRICE] < price if descending else side[at - 1, PRICE] > price
        ):
            at -= 1
        if at > base and side[at - 1, PRICE] == price:
            side[at - 1, SIZE] += size
            continue
        for later in range(kept, at, -1):
            side[later, PRICE], side[later, SIZE] = side[later - 1, PRICE], side[later - 1, SIZE]
        side[at, PRICE], side[at, SIZE] = price, size
        kept += 1
    return kept - base


@part
def volume(side: Array, base: int, count: int, depth: int) -> Word:
    """Return the size of the first levels of a side."""
    total = Int(0)
    for index in range(base, base + min(count, depth)):
        total += side[index, SIZE]
    return Word(total)


@part
def weighted(side: Array, base: int, count: int) -> tuple[Word, Word]:
    """Return the size of the first ten levels in units of 1/2520, the i-th divided by i."""
    high, low = ZERO, ZERO
    for level in range(min(count, len(_WEIGHTS))):
        size_high, size_low = multiplied(Word(side[base + level, SIZE]), _WEIGHTS[level])
        high, low = added(high, low, size_high, size_low)
    return high, low


@part
def imbalance(bid: Word, ask: Word) -> Word:
    """Return the bits of the double nearest to (bid - ask) / (bid + ask); both are above 0."""
    if bid + ask < _MOST_SHORT:
        return _short_imbalance(bid, ask)
    return _long_imbalance(ZERO, bid, ZERO, ask)


@part
def wide_imbalance(bid_high: Word, bid_low: Word, ask_high: Word, ask_low: Word) -> Word:
    """Return the bits of the double nearest to (bid - ask) / (bid + ask), both above 0 and of at
    most 100 bits."""
    if bid_high == ZERO and ask_high == ZERO and bid_low < _MOST_SHORT // TWO > ask_low:
        return _short_imbalance(bid_low, ask_low)
    return _long_imbalance(bid_high, bid_low, ask_high, ask_low)


@part
def _short_imbalance(bid: Word, ask: Word) -> Word:
    if bid < ask:
        return _short_ratio(ask - bid, bid + ask, True)
    return _short_ratio(bid - ask, bid + ask, False)


@part
def _long_imbalance(bid_high: Word, bid_low: Word, ask_high: Word, ask_low: Word) -> Word:
    sum_high, sum_low = added(bid_high, bid_low, ask_high, ask_low)
    if less(bid_high, bid_low, ask_high, ask_low):
        high, low = subtracted(ask_high, ask_low, bid_high, bid_low)
        return _long_ratio(high, low, sum_high, sum_low, True)
    high, low = subtracted(bid_high, bid_low, ask_high, ask_low)
    return _long_ratio(high, low, sum_high, sum_low, False)


@part
def _short_ratio(numerator: Word, denominator: Word, negative: bool) -> Word:
    """Return the bits of a ratio below 1 of numbers below 2^62."""
    if numerator == ZERO:
        return ZERO
    # a quotient of 54 or 55 bits
    places = _GUARDED + bits(denominator) - bits(numerator)
    high, low = shifted(numerator, places)
    quotient, rest = divided(high, low, denominator)
    spare = bits(quotient) - _FRACTION - ONE
    return _rounded(quotient, spare, rest != ZERO, places, negative)


@part
def _long_ratio(
    high: Word, low: Word, divisor_high: Word, divisor_low: Word, negative: bool
) -> Word:
    """Return the bits of a ratio below 1 of numbers of at most 101 bits: long division, a bit at a
    time."""
    if high == ZERO and low == ZERO:
        return ZERO
    places = _GUARDED - ONE
    while less(high, low, divisor_high, divisor_low):
        high, low = added(high, low, high, low)
        places += ONE
    quotient = ZERO
    for _ in range(Int(_GUARDED)):
        quotient <<= ONE
        if not less(high, low, divisor_high, divisor_low):
            high, low = subtracted(high, low, divisor_high, divisor_low)
            quotient |= ONE
        high, low = added(high, low, high, low)
    return _rounded(quotient, ONE, high != ZERO or low != ZERO, places, negative)


@part
def _rounded(quotient: Word, spare: Word, more: bool, places: Word, negative: bool) -> Word:
    """Return the bits of quotient / 2^places, rounded half to even; the quotient has 53 bits and
    the spare ones, 1 or 2; `more`: something follows them."""
    half = ONE << (spare - ONE)
    rest = quotient & ((half << ONE) - ONE)
    fraction = quotient >> spare
    if rest > half or (rest == half and (more or fraction & ONE == ONE)):
        fraction += ONE  # if it becomes 2^53, the exponent takes the carry
    # the fraction's first bit is implied in a double: added to the exponent, it makes up for one
    exponent = _BIAS + _FRACTION + spare - places - ONE
    found = (exponent << _FRACTION) + fraction
    return found | (ONE << Word(63)) if negative else found


@part
def units(mantissa: int, power: Word) -> tuple[Word, Word, bool]:
    """Return mantissa x power as a magnitude, and whether it is negative."""
    high, low = multiplied(Word(abs(mantissa)), power)
    return high, low, mantissa < 0


@part
def middle(bid: int, ask: int, places: int) -> tuple[Word, Word, bool]:
    """Return (bid + ask) / 2 in units of 10^-`places` of theirs, rounded half to even."""
    total = bid + ask
    if places > 0:
        # 10^places / 2 is whole
        return units(total, POWERS[places] >> ONE)
    size = Word(abs(total))
    half = size >> ONE
    return ZERO, half + (size & half & ONE), total < 0 and half + (size & half & ONE) != ZERO


@part
def weighted_middle(
    bid: int, bid_size: int, ask: int, ask_size: int, places: int
) -> tuple[Word, Word, bool]:
    """Return (bid x ask_size + ask x bid_size) / (bid_size + ask_size) in units of 10^-`places` of
    the prices', rounded half to even."""
    high, low, negative = units(bid, Word(ask_size))
    other_high, other_low, other_negative = units(ask, Word(bid_size))
    if negative == other_negative:
        high, low = added(high, low, other_high, other_low)
    elif less(high, low, other_high, other_low):
        high, low = subtracted(other_high, other_low, high, low)
        negative = other_negative
    else:
        high, low = subtracted(high, low, other_high, other_low)
    divisor = Word(bid_size) + Word(ask_size)
    # the whole part is at most the greater price, and what is left less than the divisor
    whole, rest = divided(high, low, divisor)
    rest_high, rest_low = multiplied(rest, POWERS[places])
    behind, rest = divided(rest_high, rest_low, divisor)
    high, low = multiplied(whole, POWERS[places])
    high, low = added(high, low, ZERO, behind)
    if rest > divisor - rest or (rest == divisor - rest and low & ONE == ONE):
        high, low = added(high, low, ZERO, ONE)
    return high, low, negative and (high != ZERO or low != ZERO)
