"""Records where librdkafka has them in memory, to arrays: what rd_kafka_message_t says of each, and
their values side by side.

A message is an address here, and what lies there is nine words of eight bytes, as librdkafka's
header declares them. This is the only place where kernels read memory that is no array.
"""

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from processors.kernels.columns import Array
from processors.kernels.compiled import Function, array, kernel, reads
from processors.kernels.librdkafka import LIBRARY

WORDS = 9
MESSAGE = np.dtype(
    {
        "names": ["error", "topic", "partition", "value", "size", "key", "key_size", "offset"],
        "formats": [np.int32, np.int64, np.int32, *(np.int64,) * 5],
        "offsets": [0, 8, 16, 24, 32, 40, 48, 56],
        "itemsize": 8 * WORDS,
    }
)
"""rd_kafka_message_t, pointers as numbers: topic is its rd_kafka_topic_t, value and key are
addresses, 0 for null. The ninth word is librdkafka's own."""
_VALUE, _SIZE = 3, 4
"""Words of a message."""


def _kernel(*takes: Any) -> Callable[[Function], Function]:
    # without the library there is nothing to link them with, and nobody to call them
    return (lambda function: function) if LIBRARY is None else kernel(*takes)


def _word_at(address: Any) -> Any:
    return ctypes.c_int64.from_address(int(address)).value


def _byte_at(address: Any) -> Any:
    return ctypes.c_uint8.from_address(int(address)).value


def _free_at(address: Any) -> None:
    assert LIBRARY is not None
    LIBRARY.rd_kafka_message_destroy(int(address))


_free: Any = _free_at


if LIBRARY is not None:
    import numba
    from numba.core import cgutils, types
    from numba.extending import intrinsic

    if not numba.config.DISABLE_JIT:

        def _at(kind: Any, pointed: Any) -> Any:
            """Return what compiles to a load of a number from an address."""

            def compile_load(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
                del context, signature
                return builder.load(builder.inttoptr(arguments[0], pointed.as_pointer()))

            return intrinsic(lambda typing, address: (kind(address), compile_load))

        _word_at = _at(types.int64, cgutils.intp_t)
        _byte_at = _at(types.uint8, cgutils.int8_t)
        _free = types.ExternalFunction("rd_kafka_message_destroy", types.void(types.int64))


@_kernel(reads(np.int64), array(np.int64, 2))
def read_messages(addresses: Array, words: Array) -> None:
    """Fill `words` with those of the messages."""
    for row in range(len(addresses)):
        for word in range(words.shape[1]):
            words[row, word] = _word_at(addresses[row] + 8 * word)


@_kernel(reads(np.int64, 2), reads(np.int64), array(np.uint8), array(np.int64))
def copy_values(words: Array, rows: Array, packed: Array, ends: Array) -> None:
    """Copy the values of the messages at `rows` side by side into `packed`, which has room for
    them, and say where each ends."""
    end = 0
    for at in range(len(rows)):
        value, size = words[rows[at], _VALUE], words[rows[at], _SIZE]
        for byte in range(size):
            packed[end + byte] = _byte_at(value + byte)
        end += size
        ends[at] = end


@_kernel(reads(np.int64))
def free_messages(addresses: Array) -> None:
    """Give the messages back to librdkafka; what they point to is gone then."""
    for row in range(len(addresses)):
        _free(addresses[row])
