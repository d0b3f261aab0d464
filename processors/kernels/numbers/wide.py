"""Sums and quotients wider than 64 bits, within kernels: limbs of uint64, the lowest first.

A number with a sign is a two's complement of all its limbs. No operation wraps around, so that the
same code runs as plain Python under `NUMBA_DISABLE_JIT=1` with warnings as errors.
"""

import numpy as np

from processors.kernels.compiled import part
from processors.kernels.numbers.words import multiplied

ZERO, ONE = np.uint64(0), np.uint64(1)
_ALL = np.uint64((1 << 64) - 1)
_HALF = np.uint64(32)
_LOW = np.uint64((1 << 32) - 1)
_TOP = np.uint64(63)

Limbs2 = tuple[np.uint64, np.uint64]
Limbs3 = tuple[np.uint64, np.uint64, np.uint64]


@part
def add(left: np.uint64, right: np.uint64) -> Limbs2:
    """Return the sum and the carry."""
    room = _ALL - left
    if right <= room:
        return left + right, ZERO
    return right - room - ONE, ONE


@part
def subtract(left: np.uint64, right: np.uint64) -> np.uint64:
    """Return left - right, around the end where that is negative."""
    if left >= right:
        return left - right
    return _ALL - (right - left) + ONE


@part
def multiply(left: np.uint64, right: np.uint64) -> Limbs2:
    """Return the product."""
    high, low = multiplied(left, right)
    return low, high


@part
def add2(a0: np.uint64, a1: np.uint64, b0: np.uint64, b1: np.uint64) -> Limbs2:
    """Return a + b of two limbs; what goes beyond is dropped."""
    low, carry = add(a0, b0)
    high, _ = add(a1, b1)
    high, _ = add(high, carry)
    return low, high


@part
def add3(
    a0: np.uint64, a1: np.uint64, a2: np.uint64, b0: np.uint64, b1: np.uint64, b2: np.uint64
) -> Limbs3:
    """Return a + b of three limbs; what goes beyond is dropped."""
    low, carry = add(a0, b0)
    middle, over = add(a1, b1)
    middle, more = add(middle, carry)
    high, _ = add(a2, b2)
    high, _ = add(high, over + more)
    return low, middle, high


@part
def negate3(a0: np.uint64, a1: np.uint64, a2: np.uint64) -> Limbs3:
    """Return -a in two's complement."""
    return add3(a0 ^ _ALL, a1 ^ _ALL, a2 ^ _ALL, ONE, ZERO, ZERO)


@part
def is_negative(top: np.uint64) -> bool:
    """Return whether a number with this highest limb is below zero."""
    return bool(top >> _TOP != ZERO)


@part
def times2(a0: np.uint64, a1: np.uint64, factor: np.uint64) -> Limbs3:
    """Return a number of two limbs, without a sign, times a limb."""
    low, carry = multiply(a0, factor)
    middle, high = multiply(a1, factor)
    middle, more = add(middle, carry)
    return low, middle, high + more


@part
def times3(
    a0: np.uint64, a1: np.uint64, a2: np.uint64, factor: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    """Return a number of three limbs, without a sign, times a limb."""
    r0, r1, carry = times2(a0, a1, factor)
    r2, r3 = multiply(a2, factor)
    r2, more = add(r2, carry)
    return r0, r1, r2, r3 + more


@part
def less3(
    a0: np.uint64, a1: np.uint64, a2: np.uint64, b0: np.uint64, b1: np.uint64, b2: np.uint64
) -> bool:
    """Return whether a < b, both without a sign."""
    if a2 != b2:
        return bool(a2 < b2)
    if a1 != b1:
        return bool(a1 < b1)
    return bool(a0 < b0)


@part
def _short_division(
    a0: np.uint64, a1: np.uint64, a2: np.uint64, divisor: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    """Return quotient and remainder by a divisor below 2^32."""
    rest = ZERO
    part5 = (rest << _HALF) | (a2 >> _HALF)
    q5 = part5 // divisor
    rest = part5 - q5 * divisor
    part4 = (rest << _HALF) | (a2 & _LOW)
    q4 = part4 // divisor
    rest = part4 - q4 * divisor
    part3 = (rest << _HALF) | (a1 >> _HALF)
    q3 = part3 // divisor
    rest = part3 - q3 * divisor
    part2 = (rest << _HALF) | (a1 & _LOW)
    q2 = part2 // divisor
    rest = part2 - q2 * divisor
    part1 = (rest << _HALF) | (a0 >> _HALF)
    q1 = part1 // divisor
    rest = part1 - q1 * divisor
    part0 = (rest << _HALF) | (a0 & _LOW)
    q0 = part0 // divisor
    rest = part0 - q0 * divisor
    return (q1 << _HALF) | q0, (q3 << _HALF) | q2, (q5 << _HALF) | q4, rest


@part
def round_off(
    a0: np.uint64, a1: np.uint64, a2: np.uint64, first: np.uint64, second: np.uint64
) -> Limbs2:
    """Return a / (first x second), rounded half to even, of a number without a sign; both divisors
    are powers of ten up to 10^9, the quotient is below 2^128."""
    q0, q1, q2, rest = _short_division(a0, a1, a2, first)
    q0, q1, q2, over = _short_division(q0, q1, q2, second)
    rest = over * first + rest
    whole = first * second
    twice = rest + rest
    if twice > whole or (twice == whole and q0 & ONE != ZERO):
        return add2(q0, q1, ONE, ZERO)
    return q0, q1


@part
def divide(
    a0: np.uint64, a1: np.uint64, a2: np.uint64, a3: np.uint64, d0: np.uint64, d1: np.uint64
) -> Limbs2:
    """Return a / d, rounded half to even, both without a sign; d is from 1 to 2^126, the quotient
    below 2^128.

    Bit by bit: it serves once a row of a bar.
    """
    q0 = q1 = r0 = r1 = ZERO
    bits = 256
    while a3 == ZERO and bits > 64:
        a3, a2, a1, a0 = a2, a1, a0, ZERO
        bits -= 64
    for _ in range(bits):
        r1 = (r1 << ONE) | (r0 >> _TOP)
        r0 = (r0 << ONE) | (a3 >> _TOP)
        a3 = (a3 << ONE) | (a2 >> _TOP)
        a2 = (a2 << ONE) | (a1 >> _TOP)
        a1 = (a1 << ONE) | (a0 >> _TOP)
        a0 = a0 << ONE
        q1 = (q1 << ONE) | (q0 >> _TOP)
        q0 = q0 << ONE
        if r1 > d1 or (r1 == d1 and r0 >= d0):
            r1 = r1 - d1 if r0 >= d0 else r1 - d1 - ONE
            r0 = subtract(r0, d0)
            q0 |= ONE
    r1 = (r1 << ONE) | (r0 >> _TOP)
    r0 = r0 << ONE
    above = r1 > d1 or (r1 == d1 and r0 > d0)
    if above or (r1 == d1 and r0 == d0 and q0 & ONE != ZERO):
        return add2(q0, q1, ONE, ZERO)
    return q0, q1
