"""The kernels' writers of Avro against those of the contract, byte for byte."""

import random

import numpy as np
import pytest

from processors.kernels.avro import write as avro
from processors.kernels.compiled import AVAILABLE, kernel
from schemas.wire import compile_encoder

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="numba has no wheel here")

DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 18}
HALF = (1 << 64) - 1


@kernel
def decimal(buffer, high, low, negative):
    return avro.put_decimal(buffer, 0, high, low, negative)


@kernel
def long(buffer, number):
    return avro.put_long(buffer, 0, number)


def encoder(avro_type):
    schema = {"type": "record", "name": "x", "fields": [{"name": "f", "type": avro_type}]}
    return compile_encoder(schema, 1)


def numbers(bits):
    drawn = random.Random(5)
    for size in range(bits):
        yield from ((1 << size) + near for near in (-1, 0, 1))
        yield from (drawn.randrange(1 << size) for _ in range(20))


def test_a_decimal_is_written_as_the_contract_writes_it():
    encode, buffer = encoder(DECIMAL), np.zeros(32, np.uint8)
    for number in [*numbers(127), 10**38 - 1]:
        if number >= 10**38:
            continue
        for signed in (number, -number):
            high, low = np.uint64(number >> 64), np.uint64(number & HALF)
            end = decimal(buffer, high, low, signed < 0)
            assert bytes(buffer[:end]) == encode(signed)[5:], signed


def test_a_long_is_written_as_the_contract_writes_it():
    encode, buffer = encoder("long"), np.zeros(32, np.uint8)
    for number in [*numbers(63), (1 << 63) - 1]:
        for signed in (number, -number - 1):
            end = long(buffer, np.int64(signed))
            assert bytes(buffer[:end]) == encode(signed)[5:], signed
