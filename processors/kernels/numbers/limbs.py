"""VWAP and standard deviation from exact sums, each rounded half even once; no windows, no rows.

Sums are wider than a machine's word, so they are held in *limbs* of 64 bits, the least first:
`v0` is the sum's low word, `v1` the next. The prices' mantissas have at most 18 digits, and the
bounds that `processors.kernels.vwap.rolling` keeps give

    volume    V = sum v        below 2^127   2 limbs
    turnover  T = sum p x v    below 2^187   3 limbs, two's complement: prices may be negative
    square    Q = sum p^2 x v  below 2^246   4 limbs
    Q x V - T^2                below 2^373, times 10^36 below 2^493

in units of 10^-volume_scale, 10^-(price_scale + volume_scale) and 10^-(2 price_scale +
volume_scale). The results are units of 10^-18 below 2^128.

Each figure has two ways. The short one is for sums as nearly every symbol has them, and divides by
multiplying with a reciprocal; the long one takes any sums in limbs of
32 bits: `processors.kernels.numbers.long_numbers`. Both are exact.

All words are np.uint64, literals too: uint64 with a Python integer would become int64 or float64.
"""

from math import isqrt
from typing import Any

import numpy as np

from processors.kernels.compiled import part, wrapping
from processors.kernels.numbers.long_numbers import long_stdev, long_vwap
from processors.kernels.numbers.powers import MOST_POWER, POWERS

Word = Any
"""np.uint64; numba infers types, and numpy's own would make each literal a cast."""
Words = Any
"""np.ndarray of np.uint64."""

ZERO = np.uint64(0)
ONE = np.uint64(1)
TWO = np.uint64(2)
_TOP = np.uint64(1 << 63)
_ALL = np.uint64((1 << 64) - 1)
_LOW = np.uint64((1 << 32) - 1)
_EVEN = np.uint64((1 << 64) - 2)
_HALF = np.uint64(32)
_WORD = np.uint64(64)

_SURE_STEPS = np.uint64(32)
"""Bits by which a rest may exceed its divisor if a quotient of leading words is off by few."""
_MOST_TRIES = 64
"""Corrections of a deviation by one; the short way needs a handful, and must end in any case."""

_BITS_OF_POWERS = np.array([(10**k).bit_length() for k in range(MOST_POWER + 1)], np.uint64)


def _root_of_byte(top: int) -> int:
    """Return 16 x sqrt(top + 1/2), rounded: within 1 for all numbers that begin with this byte."""
    return (isqrt(1024 * top + 512) + 1) // 2


_ROOTS = np.array([_root_of_byte(top) for top in range(256)], np.uint64)


# Words: what a processor does in one or two instructions. These wrap around on purpose.


@part
@wrapping
def multiply(x: Word, y: Word) -> tuple[Word, Word]:
    """Return x * y as (high word, low word)."""
    x0, x1, y0, y1 = x & _LOW, x >> _HALF, y & _LOW, y >> _HALF
    low = x0 * y0
    middle = x1 * y0 + (low >> _HALF)
    other = x0 * y1 + (middle & _LOW)
    return x1 * y1 + (middle >> _HALF) + (other >> _HALF), x * y


@part
@wrapping
def add(x: Word, y: Word, carry: Word) -> tuple[Word, Word]:
    """Return (x + y + carry, the new carry)."""
    partial = x + y
    total = partial + carry
    return total, (ONE if partial < x else ZERO) | (ONE if total < partial else ZERO)


@part
@wrapping
def subtract(x: Word, y: Word, borrow: Word) -> tuple[Word, Word]:
    """Return (x - y - borrow, the new borrow)."""
    partial = x - y
    return partial - borrow, (ONE if x < y else ZERO) | (ONE if partial < borrow else ZERO)


@part
@wrapping
def negate(t0: Word, t1: Word, t2: Word) -> tuple[Word, Word, Word]:
    """Return the three limbs of -t in two's complement."""
    low = ~t0 + ONE
    middle = ~t1 + (ONE if low == ZERO else ZERO)
    high = ~t2 + (ONE if low == ZERO and middle == ZERO else ZERO)
    return low, middle, high


@part
def bit_length(x: Word) -> Word:
    """Return how many bits x has, 0 for 0."""
    bits = ZERO
    while x != ZERO:
        x >>= ONE
        bits += ONE
    return bits


@part
def shifted_left(high: Word, low: Word, bits: Word) -> Word:
    """Return the high word of (high, low) << bits, for bits below 64."""
    # a shift by 64 would be one by 0
    return high if bits == ZERO else (high << bits) | (low >> (_WORD - bits))


@part
def shifted_right(high: Word, low: Word, bits: Word) -> Word:
    """Return the low word of (high, low) >> bits, for bits below 64."""
    return low if bits == ZERO else (low >> bits) | (high << (_WORD - bits))


@part
def divide_by_half(high: Word, low: Word, divisor: Word) -> tuple[Word, Word]:
    """Return quotient and rest of (high, low) by a divisor of at most 32 bits; high < divisor."""
    upper = (high << _HALF) | (low >> _HALF)
    quotient = upper // divisor
    upper = ((upper - quotient * divisor) << _HALF) | (low & _LOW)
    last = upper // divisor
    return (quotient << _HALF) | last, upper - last * divisor


@part
@wrapping
def divide(high: Word, low: Word, divisor: Word) -> tuple[Word, Word]:
    """Return quotient and rest of (high, low) by a divisor whose first bit is 1; high < divisor.

    Knuth's algorithm D with two digits of 32 bits.
    """
    first, second = divisor >> _HALF, divisor & _LOW
    quotient = high // first
    rest = high - quotient * first
    next_digit = low >> _HALF
    while quotient > _LOW or quotient * second > ((rest << _HALF) | next_digit):
        quotient -= ONE
        rest += first
        if rest > _LOW:
            break
    middle = (high << _HALF) + next_digit - quotient * divisor
    last = middle // first
    rest = middle - last * first
    next_digit = low & _LOW
    while last > _LOW or last * second > ((rest << _HALF) | next_digit):
        last -= ONE
        rest += first
        if rest > _LOW:
            break
    return (quotient << _HALF) + last, (middle << _HALF) + next_digit - last * divisor


@part
def reciprocal(divisor: Word) -> Word:
    """Return floor((2^128 - 1) / divisor) - 2^64 of a divisor whose first bit is 1."""
    return divide(~divisor, _ALL, divisor)[0]


@part
@wrapping
def divide_by(high: Word, low: Word, divisor: Word, inverse: Word) -> tuple[Word, Word]:
    """Return what `divide` does, by the divisor's reciprocal.

    Moeller and Granlund, "Improved division by invariant integers", algorithm 4.
    """
    upper, lower = multiply(inverse, high)
    lower, carry = add(lower, low, ZERO)
    upper += high + carry + ONE
    rest = low - upper * divisor
    if rest > lower:
        upper -= ONE
        rest += divisor
    if rest >= divisor:
        upper += ONE
        rest -= divisor
    return upper, rest


@part
@wrapping
def root_below(high: Word, low: Word) -> Word:
    """Return the square root of (high, low), or up to 3 less; the first two bits are not both 0.

    As Python's math.isqrt: Newton's steps to 16, 32 and 64 bits, each from within 1 to within 1.
    """
    root = _ROOTS[high >> np.uint64(56)]
    root = (root << np.uint64(7)) + (high >> np.uint64(41)) // root
    root = (root << np.uint64(15)) + (high >> np.uint64(17)) // root
    bits = np.uint64(33)
    quotient = divide_by_half(high >> bits, shifted_right(high, low, bits), root)[0]
    return (root << np.uint64(31)) + quotient - ONE


@part
def plus_rounding(low: Word, high: Word, rest: Word, divisor: Word) -> tuple[Word, Word]:
    """Return a quotient's words (low, high), one more where the rest says so: half to even."""
    left = divisor - rest
    if rest > left or (rest == left and (low & ONE) != ZERO):
        low, carry = add(low, ONE, ZERO)
        high += carry
    return low, high


# The figures, from the sums of a window.


@part
def scaled(x0: Word, x1: Word, x2: Word, power: int) -> tuple[Word, Word]:
    """Return x * 10^power as (low, high), for power from -18 to 18, rounded half even; the result
    has at most 128 bits."""
    if power >= 0:
        factor = POWERS[power, 0]
        carry, low = multiply(x0, factor)
        # what lies above is 0, by the bounds of the sums
        high = multiply(x1, factor)[1] + carry
        return low, high
    divisor = POWERS[-power, 0]
    shift = _WORD - bit_length(divisor)
    divisor <<= shift
    # the quotient has two words, so what is left above them is below the divisor
    rest = shifted_left(x2, x1, shift)
    high, rest = divide(rest, shifted_left(x1, x0, shift), divisor)
    low, rest = divide(rest, x0 << shift, divisor)
    return plus_rounding(low, high, rest, divisor)


@part
def vwap(
    v0: Word, v1: Word, t0: Word, t1: Word, t2: Word, digits: int, scratch: Words
) -> tuple[Word, Word]:
    """Return t * 10^digits / v as (low, high), rounded half even; v is above 0, t not negative."""
    if v1 != ZERO or t2 != ZERO:
        return long_vwap(v0, v1, t0, t1, t2, digits, scratch)
    factor = POWERS[digits, 0]
    carry, n0 = multiply(t0, factor)
    n2, n1 = multiply(t1, factor)
    n1, carry = add(n1, carry, ZERO)
    n2 += carry
    shift = _WORD - bit_length(v0)
    divisor = v0 << shift
    inverse = reciprocal(divisor)
    # a mean of prices is below 2^120, so what is left above two words is below the divisor
    rest = shifted_left(n2, n1, shift)
    high, rest = divide_by(rest, shifted_left(n1, n0, shift), divisor, inverse)
    low, rest = divide_by(rest, n0 << shift, divisor, inverse)
    return plus_rounding(low, high, rest, divisor)


@part
def times_word(x0: Word, x1: Word, x2: Word, x3: Word, y: Word) -> tuple[Word, Word, Word, Word]:
    """Return the four low words of x * y."""
    h0, r0 = multiply(x0, y)
    h1, r1 = multiply(x1, y)
    h2, r2 = multiply(x2, y)
    r1, carry = add(r1, h0, ZERO)
    r2, carry = add(r2, h1, carry)
    r3, carry = add(multiply(x3, y)[1], h2, carry)
    return r0, r1, r2, r3


@part
def times_two_words(x0: Word, x1: Word, y0: Word, y1: Word) -> tuple[Word, Word, Word, Word]:
    """Return the four words of (x1, x0) * (y1, y0)."""
    r1, r0 = multiply(x0, y0)
    r3, r2 = multiply(x1, y1)
    high, low = multiply(x0, y1)
    r1, carry = add(r1, low, ZERO)
    r2, carry = add(r2, high, carry)
    r3, carry = add(r3, ZERO, carry)
    high, low = multiply(x1, y0)
    r1, carry = add(r1, low, ZERO)
    r2, carry = add(r2, high, carry)
    r3, carry = add(r3, ZERO, carry)
    return r0, r1, r2, r3


@part
def minus(
    x0: Word, x1: Word, x2: Word, x3: Word, y0: Word, y1: Word, y2: Word, y3: Word
) -> tuple[Word, Word, Word, Word, Word]:
    """Return the four words of x - y, and what had to be borrowed."""
    r0, borrow = subtract(x0, y0, ZERO)
    r1, borrow = subtract(x1, y1, borrow)
    r2, borrow = subtract(x2, y2, borrow)
    r3, borrow = subtract(x3, y3, borrow)
    return r0, r1, r2, r3, borrow


@part
def plus(
    x0: Word, x1: Word, x2: Word, x3: Word, y0: Word, y1: Word, y2: Word, y3: Word
) -> tuple[Word, Word, Word, Word]:
    """Return the four low words of x + y."""
    r0, carry = add(x0, y0, ZERO)
    r1, carry = add(x1, y1, carry)
    r2, carry = add(x2, y2, carry)
    r3, carry = add(x3, y3, carry)
    return r0, r1, r2, r3


@part
def bit_length_of(x0: Word, x1: Word, x2: Word, x3: Word) -> Word:
    """Return how many bits the number of four words has."""
    if x3 != ZERO:
        return bit_length(x3) + np.uint64(192)
    if x2 != ZERO:
        return bit_length(x2) + np.uint64(128)
    if x1 != ZERO:
        return bit_length(x1) + _WORD
    return bit_length(x0)


@part
def high_word(x0: Word, x1: Word, x2: Word, x3: Word, bits: Word) -> Word:
    """Return the low word of x >> bits, for bits below 256."""
    while bits >= _WORD:
        x0, x1, x2, x3 = x1, x2, x3, ZERO
        bits -= _WORD
    return shifted_right(x1, x0, bits)


@part
def stdev(
    v0: Word,
    v1: Word,
    t0: Word,
    t1: Word,
    t2: Word,
    q0: Word,
    q1: Word,
    q2: Word,
    q3: Word,
    digits: int,
    scratch: Words,
) -> tuple[Word, Word]:
    """Return sqrt((q * v - t^2) / v^2) * 10^digits as (low, high), rounded half even; v is above 0,
    t not negative."""
    if v1 != ZERO or t2 != ZERO or q3 != ZERO:
        return long_stdev(v0, v1, t0, t1, t2, q0, q1, q2, q3, digits, scratch)
    a0, a1, a2, a3 = times_word(q0, q1, q2, ZERO, v0)
    b0, b1, b2, b3 = times_two_words(t0, t1, t0, t1)
    n0, n1, n2, n3, _ = minus(a0, a1, a2, a3, b0, b1, b2, b3)
    bits = bit_length_of(n0, n1, n2, n3)
    if bits == ZERO:
        return ZERO, ZERO
    if bits + _BITS_OF_POWERS[2 * digits] > np.uint64(255):
        return long_stdev(v0, v1, t0, t1, t2, q0, q1, q2, q3, digits, scratch)
    # x = n * 10^(2 digits), of four words: wanted is sqrt(x) / v
    x0, x1, x2, x3 = times_word(n0, n1, n2, n3, POWERS[2 * digits, 0])
    if POWERS[2 * digits, 1] != ZERO:
        c0, c1, c2, c3 = times_word(n0, n1, n2, n3, POWERS[2 * digits, 1])
        x0, x1, x2, x3 = plus(x0, x1, x2, x3, ZERO, c0, c1, c2)
    s0, s1 = quotient_of_root(n0, n1, n2, n3, bits, v0, digits)
    # what is left of x, x - s^2 v^2: s is too small by few
    m0, m1, _, _ = times_word(s0, s1, ZERO, ZERO, v0)
    b0, b1, b2, b3 = times_two_words(m0, m1, m0, m1)
    e0, e1, e2, e3, _ = minus(x0, x1, x2, x3, b0, b1, b2, b3)
    w1, w0 = multiply(v0, v0)
    r0, r1, r2, r3 = times_two_words(s0, s1, w0, w1)
    # by how few: by 2 if s is below 2^60, else e / (2 s v^2) by the leading words; less than the
    # truth, so that e stays above 0
    length = bit_length_of(e0, e1, e2, e3)
    steps = ZERO
    is_long = s1 != ZERO or (s0 >> np.uint64(60)) != ZERO
    known = bit_length_of(r0, r1, r2, r3)
    if is_long and length > known + _SURE_STEPS:
        # of r's leading word too few bits are left to say by how few
        return long_stdev(v0, v1, t0, t1, t2, q0, q1, q2, q3, digits, scratch)
    if is_long and length > known + ONE:
        cut = length - _WORD if length > _WORD else ZERO
        steps = high_word(e0, e1, e2, e3, cut) // (
            TWO * high_word(r0, r1, r2, r3, cut) + np.uint64(3)
        )
    if steps > ONE:
        steps -= ONE
        # e -= (2 s + steps) * steps * v^2
        d0, d1, d2, d3 = plus(r0, r1, r2, r3, r0, r1, r2, r3)
        c0, c1, c2, c3 = times_word(w0, w1, ZERO, ZERO, steps)
        d0, d1, d2, d3 = plus(d0, d1, d2, d3, c0, c1, c2, c3)
        d0, d1, d2, d3 = times_word(d0, d1, d2, d3, steps)
        e0, e1, e2, e3, _ = minus(e0, e1, e2, e3, d0, d1, d2, d3)
        r0, r1, r2, r3 = plus(r0, r1, r2, r3, c0, c1, c2, c3)
        s0, carry = add(s0, steps, ZERO)
        s1 += carry
    tries = 0
    while True:
        if tries == _MOST_TRIES:
            return long_stdev(v0, v1, t0, t1, t2, q0, q1, q2, q3, digits, scratch)
        tries += 1
        # one more costs (2 s + 1) * v^2 = 2 r + w
        d0, d1, d2, d3 = plus(r0, r1, r2, r3, r0, r1, r2, r3)
        d0, d1, d2, d3 = plus(d0, d1, d2, d3, w0, w1, ZERO, ZERO)
        c0, c1, c2, c3, borrow = minus(e0, e1, e2, e3, d0, d1, d2, d3)
        if borrow != ZERO:
            break
        e0, e1, e2, e3 = c0, c1, c2, c3
        r0, r1, r2, r3 = plus(r0, r1, r2, r3, w0, w1, ZERO, ZERO)
        s0, carry = add(s0, ONE, ZERO)
        s1 += carry
    # up where x > (s + 1/2)^2 v^2: where e - s v^2 > v^2 / 4
    c0, c1, c2, c3, borrow = minus(e0, e1, e2, e3, r0, r1, r2, r3)
    if borrow == ZERO and c3 == ZERO and c2 == ZERO:
        quarter1, quarter0 = w1 >> TWO, (w0 >> TWO) | (w1 << np.uint64(62))
        is_half = c1 == quarter1 and c0 == quarter0 and (w0 & np.uint64(3)) == ZERO
        if c1 > quarter1 or (c1 == quarter1 and c0 > quarter0) or (is_half and (s0 & ONE) != ZERO):
            s0, carry = add(s0, ONE, ZERO)
            s1 += carry
    elif borrow == ZERO:
        s0, carry = add(s0, ONE, ZERO)
        s1 += carry
    return s0, s1


@part
def quotient_of_root(
    n0: Word, n1: Word, n2: Word, n3: Word, bits: Word, v: Word, digits: int
) -> tuple[Word, Word]:
    """Return sqrt(n) * 10^digits / v as (low, high), or less: by a part of 2^-61, and by 2."""
    # n's first 127 or 128 bits: n >> 2 (64 - twice), twice whole places to the left of four words
    places = (np.uint64(256) - bits) & _EVEN
    left = places
    while left >= _WORD:
        n3, n2, n1, n0 = n2, n1, n0, ZERO
        left -= _WORD
    n3, n2 = shifted_left(n3, n2, left), shifted_left(n2, n1, left)
    root = root_below(n3, n2)
    p1, p0 = multiply(root, POWERS[digits, 0])
    # (p1, p0) is to be shifted by 64 - places / 2, and with the divisor to its left end
    shift = _WORD - bit_length(v)
    divisor = v << shift
    inverse = reciprocal(divisor)
    forth, back = _WORD + shift, places >> ONE
    rest = ZERO
    if forth < back:
        back -= forth
        p0, p1 = shifted_right(p1, p0, back), p1 >> back
    else:
        forth -= back
        p2 = ZERO
        if forth >= _WORD:
            p2, p1, p0 = p1, p0, ZERO
            forth -= _WORD
        # the quotient has two words, so what is left above them is below the divisor
        rest = shifted_left(p2, p1, forth)
        p1, p0 = shifted_left(p1, p0, forth), p0 << forth
    high, rest = divide_by(rest, p1, divisor, inverse)
    low, rest = divide_by(rest, p0, divisor, inverse)
    return low, high
