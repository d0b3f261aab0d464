"""Raw order books, as producers of this version write them, from Avro to columns.

As in `decode`, what is not plain is marked, and Python reads that record: nothing here decides that
a value is unreadable.
"""

import numpy as np

from processors.kernels.avro.read import NOTHING, is_ascii, read_decimal, read_long, read_size
from processors.kernels.avro.trades import NEW, ODD, PLAIN
from processors.kernels.books.run import BOOK, MOST_LEVELS, PRICE, SIZE
from processors.kernels.columns import MOST_MANTISSA, Array
from processors.kernels.compiled import INT, array, kernel, part, reads
from processors.kernels.name_table import NAME, UNKNOWN, look_up, same
from processors.kernels.numbers.words import Int, Record
from schemas.control import LATEST_MS
from schemas.times import EARLIEST_MS

_MOST = MOST_MANTISSA
_TENTH = MOST_MANTISSA // 10
"""The greatest mantissa that takes another digit."""
_HEADER = 5


@kernel(
    reads(np.uint8),
    reads(np.int64),
    reads(np.uint8),
    reads(np.uint8),
    reads(NAME),
    reads(np.uint8),
    reads(NAME),
    reads(np.uint8),
    INT,
    array(BOOK),
    array(np.int64, 2),
    array(np.uint8),
)
def decode_books(
    values: Array,
    ends: Array,
    head: Array,
    source: Array,
    symbols: Array,
    symbol_bytes: Array,
    origins: Array,
    origin_bytes: Array,
    max_future_ms: int,
    books: Array,
    levels: Array,
    marks: Array,
) -> int:
    """Read one book from each value into `books` and its levels into `levels`, and say in `marks`
    which are plain; return the number of levels.

    `values` are the values' bytes one after the other, `ends` where each ends, `head` the header of
    the schema. `source` is what all records come from, as Avro has it.
    """
    start, row = Int(0), Int(0)
    for index in range(len(ends)):
        at, start = start, ends[index]
        mark, taken = _read_book(
            values, at, start, head, source, symbols, symbol_bytes, origins, origin_bytes,
            max_future_ms, books[index], levels, row,
        )  # fmt: skip
        marks[index] = mark
        row += taken
    return int(row)


@part
def _read_book(
    values: Array,
    at: int,
    end: int,
    head: Array,
    source: Array,
    symbols: Array,
    symbol_bytes: Array,
    origins: Array,
    origin_bytes: Array,
    max_future_ms: int,
    book: Record,
    levels: Array,
    row: int,
) -> tuple[int, int]:
    """Read a value, and its levels from `row` on; return its mark and the number of its levels."""
    odd = Int(ODD), Int(0)
    if end - at < _HEADER or not same(head, 0, values, at, at + _HEADER):
        return odd
    at += _HEADER
    symbol_first, symbol_after = read_size(values, at, end)
    if symbol_first == NOTHING:
        return odd
    event, at = read_long(values, symbol_after, end)
    if at == NOTHING:
        return odd

    at, a, price_scale = _numbers(values, at, end, levels, row, row, PRICE, Int(0))
    if at == NOTHING:
        return odd
    at, sizes, size_scale = _numbers(values, at, end, levels, row, row, SIZE, Int(0))
    if at == NOTHING or sizes != a:
        return odd
    at, b, price_scale = _numbers(values, at, end, levels, row, row + a, PRICE, price_scale)
    if at == NOTHING:
        return odd
    at, sizes, size_scale = _numbers(values, at, end, levels, row, row + a, SIZE, size_scale)
    if at == NOTHING or sizes != b:
        return odd
    if not (_sum_fits(levels, row, a) and _sum_fits(levels, row + a, b)):
        return odd

    origin_first = at
    for _ in range(3):  # business, feed, connection
        if at != NOTHING:
            _, at = read_size(values, at, end)
    origin_after = at
    if at == NOTHING:
        return odd
    _, at = read_long(values, at, end)  # the sequence
    if at == NOTHING:
        return odd
    received, at = read_long(values, at, end)
    if at == NOTHING:
        return odd
    if end - at < len(source) or not same(source, 0, values, at, at + len(source)):
        return odd
    if not _ends_with_text_or_none(values, at + len(source), end):
        return odd
    if not _times_are_true(event, received, max_future_ms):
        return odd

    symbol = look_up(symbols, symbol_bytes, values, symbol_first, symbol_after)
    origin = look_up(origins, origin_bytes, values, origin_first, origin_after)
    if symbol == UNKNOWN or origin == UNKNOWN:
        return Int(NEW), Int(0)
    book["ts_event"] = event
    book["ts_recv"] = received
    book["first"] = row
    book["symbol"] = symbols[symbol]["index"]
    book["lane"] = origins[origin]["index"]
    book["a"] = a
    book["b"] = b
    book["price_scale"] = price_scale
    book["size_scale"] = size_scale
    return Int(PLAIN), a + b


@part
def _times_are_true(event: int, received: int, max_future_ms: int) -> bool:
    """Return whether times are as `decode.raw_records` takes them."""
    latest = received // 1000 + max_future_ms
    return bool(EARLIEST_MS <= event <= latest and latest < LATEST_MS)


@part
def _ends_with_text_or_none(values: Array, at: int, end: int) -> bool:
    """Return whether the rest of a value is null, or a text of ASCII."""
    if at >= end:
        return False
    if values[at] == 0:
        return bool(at + 1 == end)
    if values[at] != 2:
        return False
    first, after = read_size(values, at + 1, end)
    return bool(first != NOTHING and after == end and is_ascii(values, first, after))


@part
def _numbers(
    values: Array,
    at: int,
    end: int,
    levels: Array,
    book: int,
    row: int,
    column: int,
    scale: int,
) -> tuple[int, int, int]:
    """Read a list of numbers into a column from `row` on; return where the next value begins, how
    many there are, and the scale of the book's numbers in this column.

    `scale` is that of those before; they begin at row `book` and are brought to a greater one.
    """
    odd = Int(NOTHING), Int(0), Int(0)
    count, at = read_long(values, at, end)
    if count == 0 and at != NOTHING:
        return at, count, scale
    # a negative number is that of a block that has its size in bytes too
    if at == NOTHING or not 0 < count <= MOST_LEVELS or row + count > len(levels):
        return odd
    for index in range(row, row + count):
        first, at = read_size(values, at, end)
        if at == NOTHING:
            return odd
        number, digits, _ = read_decimal(values, first, at)
        if digits == NOTHING:
            return odd
        while digits > scale:
            scale += 1
            if not _lift(levels, book, index, column):
                return odd
        while digits < scale:
            digits += 1
            if not -_TENTH <= number <= _TENTH:
                return odd
            number *= 10
        levels[index, column] = number
    if at >= end or values[at] != 0:  # another block
        return odd
    return at + 1, count, scale


@part
def _lift(levels: Array, first: int, after: int, column: int) -> bool:
    """Bring numbers to the next scale; return whether they still fit."""
    for index in range(first, after):
        number = levels[index, column]
        if not -_TENTH <= number <= _TENTH:
            return False
        levels[index, column] = number * 10
    return True


@part
def _sum_fits(levels: Array, first: int, count: int) -> bool:
    """Return whether the sizes above 0 of a list sum to at most 18 digits."""
    total = Int(0)
    for index in range(first, first + count):
        size = levels[index, SIZE]
        if size > 0:
            total += size
        if total > _MOST:
            return False
    return True
