"""Reads what kernels wrote into the state topic themselves: numbers of 64 bits, and no end is
given."""

import numpy as np

from processors.kernels.columns import Array
from processors.kernels.compiled import part

_SEVEN, _LOW_SEVEN = np.uint64(7), np.uint64(0x7F)
_ZERO, _ONE = np.uint64(0), np.uint64(1)


@part
def get_unsigned(stored: Array, at: int) -> tuple[np.uint64, int]:
    """Return what `write.put_unsigned` wrote at a place, and where it ends."""
    number, shift = _ZERO, _ZERO
    while stored[at] >= 128:
        number |= (np.uint64(stored[at]) & _LOW_SEVEN) << shift
        shift += _SEVEN
        at += 1
    return number | np.uint64(stored[at]) << shift, at + 1


@part
def get_long(stored: Array, at: int) -> tuple[int, int]:
    """Return what `write.put_long` wrote at a place, and where it ends."""
    zigzag, at = get_unsigned(stored, at)
    half = int(np.int64(zigzag >> _ONE))
    return -half - 1 if zigzag & _ONE != _ZERO else half, at
