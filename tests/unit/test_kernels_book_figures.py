"""A book's figures in kernels against Python's integers, in numbers of every size: where a quotient
is rounded, half to even too."""

import random
import struct
from itertools import product

import numpy as np
import pytest

from processors.kernels.books import figures as book_figures
from processors.kernels.compiled import AVAILABLE
from processors.kernels.numbers import words
from schemas.decimals import divide_half_even
from schemas.sides import order_speaks

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="numba has no wheel here")

ROUNDS = 20_000
WORD = (1 << 64) - 1
HALVES = [(bid, ask) for ask in range(1, 40) for bid in range(1, 40)]


def pair(number):
    return np.uint64(number >> 64), np.uint64(number & WORD)


def signed(found):
    high, low, negative = found
    number = (int(high) << 64) | int(low)
    assert number or not negative
    return -number if negative else number


def double(bits):
    return struct.unpack("<d", struct.pack("<Q", int(bits)))[0]


def size(drawn, bits):
    return drawn.randrange(1 << drawn.randrange(1, bits + 1))


def test_division_of_two_words():
    drawn = random.Random(1)
    for _ in range(ROUNDS):
        divisor = size(drawn, 64) + 1 if drawn.random() < 0.9 else WORD
        divisor = min(divisor, WORD)
        number = (drawn.randrange(divisor) << 64) | size(drawn, 64)
        found = words.divided(*pair(number), np.uint64(divisor))
        assert tuple(map(int, found)) == divmod(number, divisor)


def test_an_imbalance_is_the_nearest_double():
    drawn = random.Random(2)
    for number in range(ROUNDS):
        bid = size(drawn, 73) + 1
        ask = bid + size(drawn, 20) if number % 3 == 0 else size(drawn, 73) + 1
        found = double(book_figures.wide_imbalance(*pair(bid), *pair(ask)))
        assert found == (bid - ask) / (bid + ask)
        if max(bid, ask) < 1 << 62:
            assert double(book_figures.imbalance(np.uint64(bid), np.uint64(ask))) == found


@pytest.mark.parametrize("shift", [0, 61 - 54])
def test_an_imbalance_halfway_between_two_doubles_is_even(shift):
    # (bid - ask) / 2^54 with an odd numerator of 54 bits lies halfway
    for numerator in range((1 << 53) + 1, (1 << 53) + 41, 2):
        bid, ask = ((1 << 54) + numerator) // 2, ((1 << 54) - numerator) // 2
        total = bid + ask
        if total != 1 << 54:  # halves of odd numbers: twice as large, the quotient is the same
            bid, ask = (1 << 54) + numerator, (1 << 54) - numerator
        bid, ask = bid << shift, ask << shift
        found = double(book_figures.wide_imbalance(*pair(bid), *pair(ask)))
        assert found == (bid - ask) / (bid + ask)
        found = double(book_figures.wide_imbalance(*pair(bid << 20), *pair(ask << 20)))
        assert found == (bid - ask) / (bid + ask)


def test_mids_are_rounded_half_to_even():
    drawn = random.Random(3)
    for number in range(ROUNDS):
        bid, ask = (size(drawn, 59) * drawn.choice((1, -1)) for _ in range(2))
        bid_size, ask_size = size(drawn, 59) + 1, size(drawn, 59) + 1
        places = drawn.randrange(19)
        if number % 3 == 0:
            (bid_size, ask_size), places = HALVES[number % len(HALVES)], 0
        found = book_figures.weighted_middle(bid, bid_size, ask, ask_size, places)
        turnover = (bid * ask_size + ask * bid_size) * 10**places
        assert signed(found) == divide_half_even(turnover, bid_size + ask_size)
        assert signed(book_figures.middle(bid, ask, places)) == divide_half_even(
            (bid + ask) * 10**places, 2
        )


def test_the_order_of_levels_speaks_as_in_the_general_path():
    lists = [each for length in range(4) for each in product(range(1, 4), repeat=length)]
    levels = np.ones((8, 2), np.int64)
    for a, b in product(lists, lists):
        levels[: len(a), 0], levels[4 : 4 + len(b), 0] = a, b
        assert book_figures.order_speaks(levels, 0, len(a), 4, len(b)) == order_speaks(a, b)
