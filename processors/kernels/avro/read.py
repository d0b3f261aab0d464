"""Reads Avro's numbers and lengths, and decimals in text, within kernels; never beyond the end that
is given.

Each reads what the general path reads (`schemas.wire`, `schemas.decimals`), or says that it does
not: then Python reads the record.
"""

from typing import Any

import numpy as np

from processors.kernels.columns import Array
from processors.kernels.compiled import part

NOTHING = -1
"""Where the next value begins if this one is not plain."""

_MINUS, _POINT, _ZERO, _NINE = 45, 46, 48, 57
_MOST_DIGITS = 18
_LOW_SEVEN, _SEVEN, _ONE = np.uint64(0x7F), np.uint64(7), np.uint64(1)
_LONGEST = np.uint64(63)


@part
def signed(number: np.unsignedinteger[Any]) -> int:
    """Return an unsigned number, less than 2^63, as a signed one: both together make a float."""
    return np.int64(number)  # type: ignore[return-value]


@part
def read_long(buffer: Array, at: int, end: int) -> tuple[int, int]:
    """Return a zigzag long of at most 63 bits, and where the next value begins."""
    number, shift = np.uint64(0), np.uint64(0)
    while at < end and shift < _LONGEST:
        byte = np.uint64(buffer[at])
        at += 1
        number |= (byte & _LOW_SEVEN) << shift
        if byte <= _LOW_SEVEN:
            half = signed(number >> _ONE)
            if number & _ONE:
                return -half - 1, at
            return half, at
        shift += _SEVEN
    return 0, NOTHING


@part
def read_size(buffer: Array, at: int, end: int) -> tuple[int, int]:
    """Return where a string or bytes begins and where it ends, NOTHING and NOTHING if that is
    beyond the end."""
    if at < end and buffer[at] < 0x80:
        size, at = signed(buffer[at]), at + 1
        if size & 1:
            return NOTHING, NOTHING
        size >>= 1
    else:
        size, at = read_long(buffer, at, end)
        if at == NOTHING or size < 0:
            return NOTHING, NOTHING
    if size > end - at:
        return NOTHING, NOTHING
    return at, at + size


@part
def is_ascii(buffer: Array, first: int, after: int) -> bool:
    """Return whether the bytes are ASCII, and so UTF-8 for certain."""
    for at in range(first, after):
        if buffer[at] >= 0x80:
            return False
    return True


@part
def read_decimal(buffer: Array, first: int, after: int) -> tuple[int, int, int]:
    """Return mantissa, scale and the number of digits before the point without leading zeros, of a
    text such as `-12.30`: -1230, 2, 2. The scale is NOTHING if it is not plain.

    Plain is an optional minus, digits, and optionally a point with digits behind it: at most 18
    digits that count, and no more before and behind the point than the general path takes at once.
    """
    negative = first < after and buffer[first] == _MINUS
    at = first + 1 if negative else first
    mantissa, digits, before, scale = 0, 0, 0, NOTHING
    start = at
    while at < after:
        byte = buffer[at]
        if byte == _POINT:
            if scale != NOTHING or at == start:
                return 0, NOTHING, 0
            scale = 0
        else:
            if byte < _ZERO or byte > _NINE:
                return 0, NOTHING, 0
            if digits > 0 or byte != _ZERO:
                digits += 1
                if digits > _MOST_DIGITS:
                    return 0, NOTHING, 0
                mantissa = mantissa * 10 + (signed(byte) - _ZERO)
                if scale == NOTHING:
                    before += 1
            if scale != NOTHING:
                scale += 1
        at += 1
    if scale == NOTHING:
        if at == start or at - start > 20:
            return 0, NOTHING, 0
        scale = 0
    elif scale == 0 or scale > _MOST_DIGITS or at - start - scale - 1 > 20:
        return 0, NOTHING, 0
    return -mantissa if negative else mantissa, scale, before
