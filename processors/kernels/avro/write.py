"""Writes Avro into a buffer of bytes, within kernels; as `schemas.wire` does, byte for byte.

Each function takes the buffer and where to write, and returns where the next value begins. The
caller sees to it that the buffer has room: a long takes at most 10 bytes, a decimal 17.
"""

import numpy as np

from processors.kernels.columns import Array
from processors.kernels.compiled import part

_SEVEN, _EIGHT = np.uint64(7), np.uint64(8)
_ONE, _ZERO = np.uint64(1), np.uint64(0)
_LOW_SEVEN, _GOES_ON, _BYTE = np.uint64(0x7F), np.uint64(0x80), np.uint64(0xFF)
_ALL = np.uint64((1 << 64) - 1)


@part
def put_long(buffer: Array, at: int, number: int) -> int:
    """Write an int64 in zigzag."""
    signed = np.int64(number)
    return put_unsigned(buffer, at, (np.uint64(signed) << _ONE) ^ np.uint64(signed >> np.int64(63)))


@part
def put_unsigned(buffer: Array, at: int, number: np.uint64) -> int:
    """Write a number in groups of seven bits, the lowest first, as Avro writes a long's zigzag."""
    while number > _LOW_SEVEN:
        buffer[at] = np.uint8((number & _LOW_SEVEN) | _GOES_ON)
        number >>= _SEVEN
        at += 1
    buffer[at] = np.uint8(number)
    return at + 1


@part
def put_big(buffer: Array, at: int, number: int, size: int) -> None:
    """Write a number in so many bytes, the highest first; no Avro."""
    for place in range(size):
        buffer[at + place] = np.uint8(number >> (8 * (size - 1 - place)) & 0xFF)


@part
def put_bytes(buffer: Array, at: int, data: Array, first: int, after: int) -> int:
    """Write the length and the bytes of data[first:after]."""
    at = put_long(buffer, at, after - first)
    for index in range(first, after):
        buffer[at] = data[index]
        at += 1
    return at


@part
def put_decimal(buffer: Array, at: int, high: np.uint64, low: np.uint64, negative: bool) -> int:
    """Write the length and the two's complement of a number whose absolute value is
    high x 2^64 + low, less than 2^127.

    The length is that of `schemas.wire`, a byte for each 8 bits and one bit for the sign: -128
    takes two bytes.
    """
    size = 1
    if high != _ZERO:
        left = high
        size = 9
    else:
        left = low
    while left > _LOW_SEVEN:
        left >>= _EIGHT
        size += 1
    if negative:
        # the complement and one: wrapped by hand, as plain Python would warn
        low ^= _ALL
        high ^= _ALL
        if low != _ALL:
            low += _ONE
        else:
            low = _ZERO
            high = high + _ONE if high != _ALL else _ZERO
    buffer[at] = np.uint8(2 * size)
    at += 1
    index = size - 1
    while index >= 8:
        buffer[at] = np.uint8((high >> (_EIGHT * np.uint64(index - 8))) & _BYTE)
        at += 1
        index -= 1
    while index >= 0:
        buffer[at] = np.uint8((low >> (_EIGHT * np.uint64(index))) & _BYTE)
        at += 1
        index -= 1
    return at


@part
def put_signed(buffer: Array, at: int, high: np.uint64, low: np.uint64, negative: bool) -> int:
    """Write a decimal by its absolute value; one that was rounded to 0 has no sign."""
    return put_decimal(buffer, at, high, low, negative and (high != _ZERO or low != _ZERO))
