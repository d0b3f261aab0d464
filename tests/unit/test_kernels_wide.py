"""Sums and quotients in limbs are those of Python's integers, on both sides of every bound."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.kernels.bars.figures import scaled
from processors.kernels.numbers import wide
from schemas.decimals import divide_half_even

WORD = 1 << 64


def numbers(bits):
    """Numbers of so many bits: any, powers of two and their neighbours, few digits."""
    near = st.integers(0, bits).flatmap(
        lambda power: st.integers(max(0, (1 << power) - 2), min((1 << power) + 2, (1 << bits) - 1))
    )
    return st.one_of(st.integers(0, (1 << bits) - 1), near, st.integers(0, 20))


def limbs(number, count):
    return [np.uint64(number >> 64 * limb & WORD - 1) for limb in range(count)]


def joined(found):
    return sum(int(limb) << 64 * number for number, limb in enumerate(found))


@settings(max_examples=300, deadline=None)
@given(a=numbers(192), b=numbers(192), factor=numbers(64))
def test_sums_and_products(a, b, factor):
    assert joined(wide.add3(*limbs(a, 3), *limbs(b, 3))) == (a + b) % (1 << 192)
    assert joined(wide.negate3(*limbs(a, 3))) == -a % (1 << 192)
    assert wide.is_negative(limbs(a, 3)[2]) == (a >= 1 << 191)
    assert wide.less3(*limbs(a, 3), *limbs(b, 3)) == (a < b)
    assert joined(wide.times3(*limbs(a, 3), np.uint64(factor))) == a * factor
    low, wide_b = a % (1 << 128), b % (1 << 128)
    assert joined(wide.add2(*limbs(low, 2), *limbs(wide_b, 2))) == (low + wide_b) % (1 << 128)
    assert joined(wide.times2(*limbs(low, 2), np.uint64(factor))) == low * factor
    assert joined(wide.multiply(np.uint64(a % WORD), np.uint64(factor))) == a % WORD * factor


@settings(max_examples=500, deadline=None)
@given(quotient=numbers(127), divisor=numbers(126), rest=st.fractions(0, 1))
def test_quotients_are_rounded_half_to_even(quotient, divisor, rest):
    divisor = divisor or 1
    for left in (int(rest * divisor), divisor // 2, (divisor + 1) // 2):
        number = quotient * divisor + min(left, divisor - 1)
        found = joined(wide.divide(*limbs(number, 4), *limbs(divisor, 2)))
        assert found == divide_half_even(number, divisor)


@settings(max_examples=500, deadline=None)
@given(quotient=numbers(127), first=st.integers(0, 9), second=st.integers(0, 9), rest=numbers(60))
def test_digits_are_rounded_off_half_to_even(quotient, first, second, rest):
    whole = 10 ** (first + second)
    for left in (rest % whole, whole // 2, whole // 2 + 1):
        number = (quotient * whole + min(left, whole - 1)) % (1 << 191)
        if number // whole < 1 << 127:
            found = wide.round_off(*limbs(number, 3), np.uint64(10**first), np.uint64(10**second))
            assert joined(found) == divide_half_even(number, whole)


def test_a_mantissa_keeps_its_last_digit_when_its_scale_grows():
    most = 10**18 - 1
    for number in (0, 1, -1, most, -most, most // 1_000, -(most // 1_000), 123_456_789_012_345_678):
        for places in range(19):
            expected = number * 10**places
            found = int(scaled(number, places))
            assert found == expected if abs(expected) <= most else found > most
