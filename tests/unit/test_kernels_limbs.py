"""VWAP and deviation in limbs against Python's integers, on both sides of each bound."""

import os
from math import isqrt
from random import Random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from processors.agents.vwap.figures import Sums, figures
from processors.kernels.compiled import kernel
from processors.kernels.numbers import limbs
from processors.kernels.numbers.long_numbers import SCRATCH, divided, long_stdev, long_vwap, root
from schemas.decimals import UNIT

EXAMPLES = 4 if os.environ.get("NUMBA_DISABLE_JIT") == "1" else 100
MASK = (1 << 64) - 1


@kernel
def figures_of(sums, price_scale, volume_scale, scratch, out):
    """Write vwap, volume, turnover, deviation, and the first and the last by the long way."""
    v0, v1, t0, t1, t2 = sums[0], sums[1], sums[2], sums[3], sums[4]
    q0, q1, q2, q3 = sums[5], sums[6], sums[7], sums[8]
    digits = 18 - price_scale
    out[0, 0], out[0, 1] = limbs.vwap(v0, v1, t0, t1, t2, digits, scratch)
    out[1, 0], out[1, 1] = limbs.scaled(v0, v1, limbs.ZERO, 18 - volume_scale)
    out[2, 0], out[2, 1] = limbs.scaled(t0, t1, t2, digits - volume_scale)
    out[3, 0], out[3, 1] = limbs.stdev(v0, v1, t0, t1, t2, q0, q1, q2, q3, digits, scratch)
    out[4, 0], out[4, 1] = long_vwap(v0, v1, t0, t1, t2, digits, scratch)
    out[5, 0], out[5, 1] = long_stdev(v0, v1, t0, t1, t2, q0, q1, q2, q3, digits, scratch)


@kernel
def divisions(a, size_a, b, size_b, scratch):
    return divided(a, size_a, b, size_b, scratch[0], scratch[1], scratch[2])


@kernel
def words(values, out):
    """Write the quotient and rest of two words by one, by `divide` and by its reciprocal."""
    high, low, divisor = values[0], values[1], values[2]
    out[0], out[1] = limbs.divide(high, low, divisor)
    out[2], out[3] = limbs.divide_by(high, low, divisor, limbs.reciprocal(divisor))


def in_words(number, count):
    return [(number >> (64 * at)) & MASK for at in range(count)]


def kernels_figures(volume, turnover, square, price_scale, volume_scale):
    sums = np.array(
        in_words(volume, 2) + in_words(abs(turnover), 3) + in_words(square, 4), np.uint64
    )
    out = np.zeros((6, 2), np.uint64)
    scratch = np.full(SCRATCH, MASK, np.uint64)  # whatever was left there must not matter
    figures_of(sums, price_scale, volume_scale, scratch, out)
    found = [int(low) | int(high) << 64 for low, high in out]
    assert found[4:] == [found[0], found[3]]
    return found[:4]


def expected(volume, turnover, square, price_scale, volume_scale):
    sums = Sums()
    unit_volume = 10 ** (18 - volume_scale)
    unit_turnover = 10 ** (36 - price_scale - volume_scale)
    unit_square = 10 ** (54 - 2 * price_scale - volume_scale)
    sums.add(volume * unit_volume, abs(turnover) * unit_turnover, square * unit_square, 1)
    vwap, units, turned, _, stdev = figures(sums)
    return [vwap, units, turned, stdev]


def check(trades, price_scale, volume_scale):
    volume = sum(v for _, v in trades)
    turnover = sum(p * v for p, v in trades)
    square = sum(p * p * v for p, v in trades)
    limit = 10 ** (20 + volume_scale)
    if not 0 < volume < limit or abs(turnover) >= limit * 10**price_scale:
        return False
    arguments = (volume, turnover, square, price_scale, volume_scale)
    assert kernels_figures(*arguments) == expected(*arguments)
    return True


scales = st.integers(0, 18)
mantissas = st.one_of(
    st.integers(1, 10**18 - 1),
    st.integers(0, 17).map(lambda digits: 10**digits),
    st.integers(0, 17).map(lambda digits: 10 ** (digits + 1) - 1),
    st.integers(1, 10**6),
    st.integers(0, 59).map(lambda bits: 1 << bits),
)
volumes = st.one_of(mantissas, st.just(0))


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(st.tuples(mantissas, volumes), min_size=1, max_size=9), scales, scales, mantissas)
@example([(10**18 - 1, 10**18 - 1)], 18, 18, 1)
@example([(1, 10**18 - 1), (10**18 - 1, 1)], 0, 18, 1)
def test_any_trades_give_the_general_figures(trades, price_scale, volume_scale, times):
    check(trades, price_scale, volume_scale)
    check([(p, v * times) for p, v in trades], price_scale, volume_scale)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.integers(10, 10**9),
    st.lists(st.tuples(st.integers(-20, 20), st.integers(1, 10**9)), min_size=2, max_size=40),
    st.integers(0, 8),
    st.integers(0, 8),
)
def test_a_market_gives_the_general_figures(price, moves, price_scale, volume_scale):
    trades = [(max(1, price + move), volume) for move, volume in moves]
    assert check(trades, price_scale, volume_scale)


def test_many_markets_give_the_general_figures():
    random = Random(7)
    for _ in range(10 * EXAMPLES):
        base, spread = 10 ** random.randrange(1, 12), 10 ** random.randrange(1, 8)
        trades = [
            (base + random.randrange(spread), random.randrange(1, 10 ** random.randrange(1, 19)))
            for _ in range(random.randrange(2, 9))
        ]
        check(trades, random.randrange(19), random.randrange(19))


@pytest.mark.parametrize("volume", [1, 2, 10**17, 10**18 - 1, 1 << 63, (1 << 64) - 1, 1 << 64])
def test_halves_are_rounded_to_even(volume):
    # two prices of equal weight deviate by half of their distance, and the VWAP lies between them
    rounded = set()
    for price in (1, 2, 3, 4, 10**9, 10**17):
        for distance in range(10):
            assert check([(price, volume), (price + distance, volume)], 18, 18)
            rounded.add((price + distance // 2) & 1)
    assert rounded == {0, 1}


def test_sums_on_both_sides_of_the_short_way_and_at_their_bounds():
    most = 10**18 - 1
    for volume in ((1 << 64) - 1, 1 << 64, (1 << 64) + 1, 10**38 - 1):
        for price in (1, 2, 10**9, (1 << 32) - 1, 1 << 32, most):
            for square_of in (price, price + 1):
                scale = 18
                turnover = price * volume
                if turnover >= 10 ** (20 + scale + 18):
                    continue
                square = square_of * square_of * volume
                arguments = (volume, turnover, square, scale, 18)
                assert kernels_figures(*arguments) == expected(*arguments)
    # the greatest of all: half at the least price, half at the greatest
    assert check([(1, (10**38 - 1) // 2), (most, (10**38 - 1) // 2)], 18, 18)
    assert ((10**38) * (10**38 * 10**36)).bit_length() <= 373
    assert (10**112 * 10**36).bit_length() <= 493


def test_turnover_is_rounded_half_to_even_where_its_digits_are_cut():
    for rest in (4, 5, 6, 15, 25, 10**17, 5 * 10**17, 5 * 10**17 + 1):
        for scales in ((18, 1), (1, 18), (10, 9), (18, 18)):
            check([(rest, 1)], *scales)
            check([(10**17 + rest, 10**17 + 1)], *scales)


def test_spread_so_large_that_the_short_way_gives_up():
    assert check([(1, 10**18 - 1), (10**18 - 1, 1)], 0, 18)
    assert check([(1, 1), (10**18 - 1, 1)], 0, 0)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.integers(1 << 63, MASK),
    st.integers(0, MASK),
    st.integers(0, MASK),
    st.sampled_from([0, 1, MASK, MASK - 1, 1 << 32, (1 << 32) - 1]),
)
def test_two_words_are_divided_by_one(divisor, rest, low, odd):
    for high in (rest % divisor, divisor - 1, odd % divisor):
        for last in (low, odd):
            for by in (divisor, 1 << 63, MASK, MASK << 32 & MASK):
                if high < by:
                    out = np.zeros(4, np.uint64)
                    words(np.array([high, last, by], np.uint64), out)
                    assert tuple(map(int, out)) == 2 * divmod(high << 64 | last, by)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.integers(0, 1 << 493), st.integers(1, 1 << 254))
@example((1 << 493) - 1, (1 << 254) - 1)
@example(((1 << 96) - 1) << 32, (1 << 64) - 1)  # a digit that is one too great
@example((0x7FFFFFFF800000010000000000000000), 0x800000008000000200000005)
def test_long_numbers_are_divided_and_rooted(a, b):
    def limbs_of(number):
        made = np.zeros(40, np.uint64)
        count = (number.bit_length() + 31) // 32
        made[:count] = [(number >> (32 * at)) & 0xFFFFFFFF for at in range(count)]
        return made, count

    def number_of(row, size):
        return sum(int(limb) << (32 * at) for at, limb in enumerate(row[:size]))

    scratch = np.full(SCRATCH, MASK, np.uint64)
    quotient, rest = divisions(*limbs_of(a), *limbs_of(b), scratch)
    assert (number_of(scratch[0], quotient), number_of(scratch[1], rest)) == divmod(a, b)
    into = np.zeros(40, np.uint64)
    assert number_of(into, roots(*limbs_of(a), into, scratch)) == isqrt(a)


@kernel
def roots(a, size, into, scratch):
    return root(a, size, into, scratch)


def test_units_are_those_of_the_contract():
    assert UNIT == 10**18
