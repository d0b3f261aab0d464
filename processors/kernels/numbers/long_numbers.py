"""VWAP and standard deviation of sums of any width, in limbs of 32 bits: the long way of
`processors.kernels.numbers.limbs`, for the few symbols whose numbers need it.

A number is a row of limbs, the least first, each in a word of 64 bits, and how many of them it has:
its last is not 0, and 0 has none. Products and carries of 32 bits fit a word, so nothing here ever
wraps around.
"""

from typing import Any

import numpy as np

from processors.kernels.compiled import part
from processors.kernels.numbers.powers import POWERS

Word = Any
Words = Any

_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_LIMB = np.uint64((1 << 32) - 1)
_BASE = np.uint64(1 << 32)
_BITS = np.uint64(32)
_TOP = np.uint64(1 << 31)

SCRATCH = (14, 40)
"""Shape of the scratch, of np.uint64: rows of limbs. The widest number, a numerator of 493 bits,
has 16 limbs, and a quotient or a shift needs a few more."""


@part
def size_of(number: Words, most: int) -> int:
    """Return the size of a number that has at most so many limbs."""
    while most > 0 and number[most - 1] == _ZERO:
        most -= 1
    return most


@part
def put(low: Word, high: Word, into: Words, at: int) -> None:
    """Write two words as four limbs."""
    into[at] = low & _LIMB
    into[at + 1] = low >> _BITS
    into[at + 2] = high & _LIMB
    into[at + 3] = high >> _BITS


@part
def two_words(number: Words, size: int) -> tuple[Word, Word]:
    """Return a number of at most four limbs as (low, high)."""
    for at in range(size, 4):
        number[at] = _ZERO
    return number[0] | (number[1] << _BITS), number[2] | (number[3] << _BITS)


@part
def compare(a: Words, size_a: int, b: Words, size_b: int) -> int:
    """Return -1, 0 or 1: a below, equal to or above b."""
    if size_a != size_b:
        return 1 if size_a > size_b else -1
    for at in range(size_a - 1, -1, -1):
        if a[at] != b[at]:
            return 1 if a[at] > b[at] else -1
    return 0


@part
def multiplied(a: Words, size_a: int, b: Words, size_b: int, into: Words) -> int:
    """Write a * b, return its size."""
    for at in range(size_a + size_b):
        into[at] = _ZERO
    for i in range(size_a):
        carry = _ZERO
        for j in range(size_b):
            total = a[i] * b[j] + into[i + j] + carry
            into[i + j] = total & _LIMB
            carry = total >> _BITS
        into[i + size_b] = carry
    return size_of(into, size_a + size_b)


@part
def difference(a: Words, size_a: int, b: Words, size_b: int, into: Words) -> int:
    """Write a - b for a that is not below b, return its size."""
    borrow = _ZERO
    for at in range(size_a):
        taken = borrow
        if at < size_b:
            taken += b[at]
        if a[at] >= taken:
            into[at] = a[at] - taken
            borrow = _ZERO
        else:
            into[at] = a[at] + _BASE - taken
            borrow = _ONE
    return size_of(into, size_a)


@part
def sum_of(a: Words, size_a: int, b: Words, size_b: int, into: Words) -> int:
    """Write a + b, return its size."""
    carry = _ZERO
    longer = size_a if size_a > size_b else size_b
    for at in range(longer):
        total = carry
        if at < size_a:
            total += a[at]
        if at < size_b:
            total += b[at]
        into[at] = total & _LIMB
        carry = total >> _BITS
    into[longer] = carry
    return size_of(into, longer + 1)


@part
def plus_one(number: Words, size: int) -> int:
    """Add 1 in place, return the size."""
    for at in range(size):
        if number[at] != _LIMB:
            number[at] += _ONE
            return size
        number[at] = _ZERO
    number[size] = _ONE
    return size + 1


@part
def doubled(number: Words, size: int, times: int, into: Words) -> int:
    """Write number * 2^times, return its size."""
    limbs = times // 32
    bits = np.uint64(times % 32)
    carry = _ZERO
    for at in range(limbs):
        into[at] = _ZERO
    for at in range(size):
        total = (number[at] << bits) | carry
        into[at + limbs] = total & _LIMB
        carry = total >> _BITS
    into[size + limbs] = carry
    return size_of(into, size + limbs + 1)


@part
def halved(number: Words, size: int, times: int, into: Words) -> int:
    """Write floor(number / 2^times), return its size."""
    limbs = times // 32
    bits = np.uint64(times % 32)
    if limbs >= size:
        return 0
    for at in range(limbs, size):
        above = number[at + 1] if at + 1 < size else _ZERO
        into[at - limbs] = (number[at] >> bits) | ((above << (_BITS - bits)) & _LIMB)
    return size_of(into, size - limbs)


@part
def bits_of(number: Words, size: int) -> int:
    """Return how many bits a number has."""
    if size == 0:
        return 0
    bits = 32 * (size - 1)
    left = number[size - 1]
    while left != _ZERO:
        left >>= _ONE
        bits += 1
    return bits


@part
def divided(
    a: Words, size_a: int, b: Words, size_b: int, into: Words, rest: Words, scratch: Words
) -> tuple[int, int]:
    """Write quotient and rest of a by b, which is not 0; return their sizes. Knuth's algorithm
    D."""
    if compare(a, size_a, b, size_b) < 0:
        for at in range(size_a):
            rest[at] = a[at]
        return 0, size_a
    if size_b == 1:
        left = _ZERO
        for at in range(size_a - 1, -1, -1):
            left = (left << _BITS) | a[at]
            into[at] = left // b[0]
            left -= into[at] * b[0]
        rest[0] = left
        return size_of(into, size_a), size_of(rest, 1)
    shift = 0
    first = b[size_b - 1]
    while first < _TOP:
        first <<= _ONE
        shift += 1
    doubled(b, size_b, shift, scratch)
    doubled(a, size_a, shift, rest)
    first, second = scratch[size_b - 1], scratch[size_b - 2]
    for at in range(size_a - size_b, -1, -1):
        leading = (rest[at + size_b] << _BITS) | rest[at + size_b - 1]
        digit = leading // first
        left = leading - digit * first
        while digit > _LIMB or digit * second > ((left << _BITS) | rest[at + size_b - 2]):
            digit -= _ONE
            left += first
            if left > _LIMB:
                break
        borrow = _ZERO
        for i in range(size_b):
            product = digit * scratch[i] + borrow
            taken = product & _LIMB
            borrow = product >> _BITS
            if rest[at + i] < taken:
                rest[at + i] += _BASE
                borrow += _ONE
            rest[at + i] -= taken
        if rest[at + size_b] >= borrow:
            rest[at + size_b] -= borrow
        else:  # one too many: add the divisor back
            digit -= _ONE
            carry = _ZERO
            for i in range(size_b):
                total = rest[at + i] + scratch[i] + carry
                rest[at + i] = total & _LIMB
                carry = total >> _BITS
            rest[at + size_b] = _ZERO
        into[at] = digit
    size_rest = halved(rest, size_of(rest, size_b), shift, rest)
    return size_of(into, size_a - size_b + 1), size_rest


@part
def root(number: Words, size: int, into: Words, scratch: Words) -> int:
    """Write floor(sqrt(number)), return its size. Heron's method from above, which only falls."""
    if size == 0:
        return 0
    into[0] = _ONE
    size_root = doubled(into, 1, (bits_of(number, size) + 1) // 2, scratch[3])
    for at in range(size_root):
        into[at] = scratch[3, at]
    while True:
        size_quotient, _ = divided(
            number, size, into, size_root, scratch[0], scratch[1], scratch[2]
        )
        size_sum = sum_of(into, size_root, scratch[0], size_quotient, scratch[1])
        size_next = halved(scratch[1], size_sum, 1, scratch[0])
        if compare(scratch[0], size_next, into, size_root) >= 0:
            return size_root
        size_root = size_next
        for at in range(size_root):
            into[at] = scratch[0, at]


@part
def long_vwap(
    v0: Word, v1: Word, t0: Word, t1: Word, t2: Word, digits: int, scratch: Words
) -> tuple[Word, Word]:
    """Return t * 10^digits / v as (low, high), rounded half even; v is above 0, t not negative."""
    volume, turnover, factor, product = scratch[0], scratch[1], scratch[2], scratch[3]
    put(v0, v1, volume, 0)
    put(t0, t1, turnover, 0)
    put(t2, _ZERO, turnover, 4)
    put(POWERS[digits, 0], POWERS[digits, 1], factor, 0)
    size_volume = size_of(volume, 4)
    size = multiplied(turnover, size_of(turnover, 8), factor, size_of(factor, 4), product)
    quotient, rest, twice = scratch[4], scratch[5], scratch[6]
    size, size_rest = divided(product, size, volume, size_volume, quotient, rest, twice)
    side = compare(twice, doubled(rest, size_rest, 1, twice), volume, size_volume)
    if side > 0 or (side == 0 and size > 0 and (quotient[0] & _ONE) != _ZERO):
        size = plus_one(quotient, size)
    return two_words(quotient, size)


@part
def long_stdev(
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
    volume, turnover, square, factor = scratch[0], scratch[1], scratch[2], scratch[3]
    put(v0, v1, volume, 0)
    put(t0, t1, turnover, 0)
    put(t2, _ZERO, turnover, 4)
    put(q0, q1, square, 0)
    put(q2, q3, square, 4)
    put(POWERS[2 * digits, 0], POWERS[2 * digits, 1], factor, 0)
    size_volume, size_turnover = size_of(volume, 4), size_of(turnover, 8)
    mixed, squared, spread, wanted = scratch[4], scratch[5], scratch[6], scratch[7]
    size_mixed = multiplied(square, size_of(square, 8), volume, size_volume, mixed)
    size_squared = multiplied(turnover, size_turnover, turnover, size_turnover, squared)
    size = difference(mixed, size_mixed, squared, size_squared, spread)
    if size == 0:
        return _ZERO, _ZERO
    size = multiplied(spread, size, factor, size_of(factor, 4), wanted)
    divisor, variance, rest, result = squared, mixed, spread, turnover
    size_divisor = multiplied(volume, size_volume, volume, size_volume, divisor)
    size, size_rest = divided(wanted, size, divisor, size_divisor, variance, rest, scratch[8])
    size_root = root(variance, size, result, scratch[8:12])
    # (root + 1/2)^2 lies a quarter above root^2 + root; the exact variance is rest / divisor above
    # the whole one
    size_squared = multiplied(result, size_root, result, size_root, scratch[8])
    over = scratch[9]
    size_over = difference(variance, size, scratch[8], size_squared, over)
    side = compare(over, size_over, result, size_root)
    if side == 0:
        quarters = scratch[10]
        side = compare(quarters, doubled(rest, size_rest, 2, quarters), divisor, size_divisor)
        if side == 0 and size_root > 0 and (result[0] & _ONE) != _ZERO:
            side = 1
    if side > 0:
        size_root = plus_one(result, size_root)
    return two_words(result, size_root)
