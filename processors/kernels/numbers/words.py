"""Numbers of 128 bits as two of 64, `high` x 2^64 + `low`, within kernels.

All are magnitudes: a sign stands beside them. No operation wraps around, so that a run without
compilation can treat numpy's warnings as errors.
"""

from typing import Any

import numpy as np

from processors.kernels.compiled import part

Word = np.uint64
Int: Any = np.int64
"""Makes a signed number of 64 bits of any other; to the type checker what comes out is an int."""
Record = Any
"""A record of a structured array."""

ZERO, ONE, TWO = Word(0), Word(1), Word(2)
MOST = Word((1 << 64) - 1)

_HALF = Word(32)
_LOW_HALF = Word((1 << 32) - 1)
_LIMB = Word(1 << 32)
_63, _64 = Word(63), Word(64)
_STEPS = np.array([32, 16, 8, 4, 2, 1], np.uint64)


@part
def bits(number: Word) -> Word:
    """Return the number of bits without leading zeros; 0 for 0."""
    found = ZERO
    for step in _STEPS:
        if number >> step != ZERO:
            number >>= step
            found += step
    return found + number


@part
def multiplied(a: Word, b: Word) -> tuple[Word, Word]:
    """Return a x b."""
    a_low, a_high = a & _LOW_HALF, a >> _HALF
    b_low, b_high = b & _LOW_HALF, b >> _HALF
    lowest = a_low * b_low
    middle = a_high * b_low + (lowest >> _HALF)
    other = a_low * b_high + (middle & _LOW_HALF)
    high = a_high * b_high + (middle >> _HALF) + (other >> _HALF)
    return high, ((other & _LOW_HALF) << _HALF) | (lowest & _LOW_HALF)


@part
def added(a_high: Word, a_low: Word, b_high: Word, b_low: Word) -> tuple[Word, Word]:
    """Return a + b, which must be less than 2^128."""
    if a_low > MOST - b_low:
        return a_high + b_high + ONE, a_low - (MOST - b_low) - ONE
    return a_high + b_high, a_low + b_low


@part
def subtracted(a_high: Word, a_low: Word, b_high: Word, b_low: Word) -> tuple[Word, Word]:
    """Return a - b, which must not be negative."""
    if a_low < b_low:
        return a_high - b_high - ONE, MOST - (b_low - a_low) + ONE
    return a_high - b_high, a_low - b_low


@part
def less(a_high: Word, a_low: Word, b_high: Word, b_low: Word) -> bool:
    """Return whether a < b."""
    return bool(a_high < b_high or (a_high == b_high and a_low < b_low))


@part
def shifted(number: Word, places: Word) -> tuple[Word, Word]:
    """Return number x 2^places, which must be less than 2^128."""
    if places >= _64:
        return number << (places - _64), ZERO
    if places == ZERO:  # a shift by 64 is none
        return ZERO, number
    return number >> (_64 - places), number << places


@part
def divided(high: Word, low: Word, divisor: Word) -> tuple[Word, Word]:
    """Return quotient and remainder; `high` must be less than the divisor.

    Knuth's algorithm D with limbs of 32 bits: two of the dividend's at a time.
    """
    if high == ZERO:
        quotient = low // divisor
        return quotient, low - quotient * divisor
    places = _64 - bits(divisor)
    if places != ZERO:
        divisor <<= places
        high = (high << places) | (low >> (_64 - places))
        low <<= places
    first, high = _limb(high, low >> _HALF, divisor)
    second, high = _limb(high, low & _LOW_HALF, divisor)
    return (first << _HALF) | second, high >> places


@part
def _limb(high: Word, limb: Word, divisor: Word) -> tuple[Word, Word]:
    """Divide high x 2^32 + limb, where high < divisor and the divisor's first bit is set."""
    top, bottom = divisor >> _HALF, divisor & _LOW_HALF
    quotient = high // top
    left = high - quotient * top
    while quotient >= _LIMB or quotient * bottom > ((left << _HALF) | limb):
        quotient -= ONE
        left += top
        if left >= _LIMB:
            break
    # high x 2^32 + limb - quotient x divisor, less than the divisor: taken apart so that nothing
    # wraps around
    product_high, product_low = multiplied(quotient, divisor)
    _, rest = subtracted(high >> _HALF, (high << _HALF) | limb, product_high, product_low)
    return quotient, rest
