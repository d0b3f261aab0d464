"""From plain books to encoded rows of `infoway.depth.imbalance`: the depth agent's kernel."""

import numpy as np

from processors.kernels.avro.write import put_bytes, put_decimal, put_long
from processors.kernels.books.figures import (
    POWERS,
    clean,
    imbalance,
    middle,
    order_speaks,
    sort,
    units,
    volume,
    weighted,
    weighted_middle,
    wide_imbalance,
)
from processors.kernels.books.run import BOOK, MOST_LEVELS, PRICE, SIZE
from processors.kernels.columns import HEADER, Array
from processors.kernels.compiled import INT, array, kernel, part, reads
from processors.kernels.numbers.words import Int, Record, Word, added, less, subtracted
from processors.kernels.observed import FEED
from schemas.decimals import SCALE

BEFORE = np.dtype(
    [
        ("bid_high", np.uint64),
        ("bid_low", np.uint64),
        ("bid_size_high", np.uint64),
        ("bid_size_low", np.uint64),
        ("ask_high", np.uint64),
        ("ask_low", np.uint64),
        ("ask_size_high", np.uint64),
        ("ask_size_low", np.uint64),
        ("connection", np.int32),
        ("bid_negative", np.int8),
        ("ask_negative", np.int8),
        ("has_best", np.int8),
        ("settled", np.int8),
        ("reversed", np.int8),
        ("general", np.int8),
        ("changed", np.int8),
    ],
    align=True,
)
"""What is remembered of a symbol's books, as in `agents.depth.state.SymbolBook`, by the agent's
slot: the best prices and sizes in units of 10^-18, as magnitudes of 128 bits with their signs; the
number of the connection; `general`: its best is too large for this, and Python has it."""

ORIGIN = np.dtype(
    [("connection", np.int32), ("source", np.int32), ("swapped", np.int8), ("below_zero", np.int8)],
    align=True,
)
"""What a lane means for its books: the numbers of its connection and of its source's name, whether
its lists are swapped, and whether prices below 0 are real."""

SIDES = (2 * MOST_LEVELS, 2)
"""The shape of the array of levels that the kernel works in: list a from row 0 on, list b from
MOST_LEVELS on."""

FOLDED = 0
"""No book is left."""
STOPPED = 1
"""Python must take the book: its feed, connection or symbol is new, or its best before is too
large."""
FULL = 2
"""The buffer has no room for another row."""

_ROOM = 512
"""More bytes than a row takes beside its symbol and its source."""
_NULL, _THERE = np.uint8(0), np.uint8(2)
_BYTE, _EIGHT = Word(0xFF), Word(8)
_MICROS = 1000
_STATES = np.frombuffer(b"normallockedcrossedone_sidedempty", np.uint8)
_NORMAL, _LOCKED, _CROSSED, _ONE_SIDED, _EMPTY = range(5)
_STATE_ENDS = np.array([0, 6, 12, 19, 28, 33], np.int64)


@kernel(
    reads(BOOK),
    reads(np.int64, 2),
    array(FEED),
    reads(np.int32),
    reads(ORIGIN),
    reads(np.int32),
    array(BEFORE),
    reads(np.uint8),
    reads(np.int64),
    reads(np.uint8),
    reads(np.int64),
    array(np.int64, 2),
    INT,
    array(np.uint8),
    array(np.int64),
    array(np.int64),
)
def fold(
    books: Array,
    levels: Array,
    feeds: Array,
    feed_of_lane: Array,
    origins: Array,
    slot_of: Array,
    before: Array,
    symbols: Array,
    symbol_ends: Array,
    sources: Array,
    source_ends: Array,
    sides: Array,
    partition: int,
    rows: Array,
    ends: Array,
    progress: Array,
) -> int:
    """Fold books from index progress[0] on, and append a row each at rows[progress[1]:]; return why
    it stops at the book progress[0], which has touched nothing.

    ends[i] is where the row of book i ends.
    """
    index, at = progress[0], progress[1]
    reason = FOLDED
    while index < len(books):
        book = books[index]
        feed, slot = feed_of_lane[book["lane"]], slot_of[book["symbol"]]
        if feed < 0 or slot < 0 or before[slot]["general"] != 0:
            reason = STOPPED
            break
        origin = origins[book["lane"]]
        symbol, source = Int(book["symbol"]), Int(origin["source"])
        names = symbol_ends[symbol + 1] - symbol_ends[symbol]
        names += source_ends[source + 1] - source_ends[source]
        if at + _ROOM + names > len(rows):
            reason = FULL
            break
        _observe(feeds[feed], book)
        at += HEADER
        at = put_bytes(rows, at, symbols, symbol_ends[symbol], symbol_ends[symbol + 1])
        at = put_long(rows, at, book["ts_event"])
        at = _put_figures(rows, at, book, levels, origin, before[slot], sides)
        at = put_bytes(rows, at, sources, source_ends[source], source_ends[source + 1])
        at = put_long(rows, at, book["ts_recv"])
        at = put_long(rows, at, partition)
        at = put_long(rows, at, book["offset"])
        ends[index] = at
        index += 1
    progress[0] = index
    progress[1] = at
    return reason


@part
def _observe(feed: Record, book: Record) -> None:
    """Take a book as a sign of life and of event time, as Feeds.observe does."""
    feed["last_alive"] = max(feed["last_alive"], book["ts_recv"] // Int(_MICROS))
    feed["latest_event"] = max(feed["latest_event"], book["ts_event"])
    feed["latest_push"] = max(feed["latest_push"], book["ts_event"])


@part
def _put_figures(
    rows: Array, at: int, book: Record, levels: Array, origin: Record, known: Record, sides: Array
) -> int:
    """Write the fields from best_bid to book_state, and remember the book."""
    if known["connection"] != origin["connection"]:
        known["connection"] = origin["connection"]
        known["settled"] = 0
        known["reversed"] = 0
    bid_first, bids, ask_first, asks = _sides(book, levels, origin, known, sides)
    price_places = SCALE - Int(book["price_scale"])
    size_power = POWERS[SCALE - Int(book["size_scale"])]

    at = _put_best(rows, at, sides, bid_first, bids, POWERS[price_places], size_power)
    at = _put_best(rows, at, sides, ask_first, asks, POWERS[price_places], size_power)
    both = bids > 0 and asks > 0
    if both:
        at = _put_prices(rows, at, sides, bid_first, ask_first, price_places)
        at = _put_imbalances(rows, at, sides, bid_first, bids, ask_first, asks)
    else:
        for _ in range(7):  # spread to imbalance_weighted
            rows[at] = _NULL
            at += 1
    for depth in (5, 10):
        at = _put_size(rows, at, volume(sides, bid_first, bids, depth), size_power)
        at = _put_size(rows, at, volume(sides, ask_first, asks, depth), size_power)
    if both:
        at = _put_flow(rows, at, sides, bid_first, ask_first, known, POWERS[price_places],
                       size_power)  # fmt: skip
    else:
        rows[at] = _NULL
        at += 1
        if known["has_best"] != 0:
            known["has_best"] = 0
    known["changed"] = 1
    at = put_long(rows, at, bids)
    at = put_long(rows, at, asks)
    state = Int(_EMPTY)
    if both:
        spread = sides[ask_first, PRICE] - sides[bid_first, PRICE]
        state = Int(_NORMAL if spread > 0 else _LOCKED if spread == 0 else _CROSSED)
    elif bids + asks > 0:
        state = Int(_ONE_SIDED)
    return put_bytes(rows, at, _STATES, _STATE_ENDS[state], _STATE_ENDS[state + 1])


@part
def _sides(
    book: Record, levels: Array, origin: Record, known: Record, sides: Array
) -> tuple[int, int, int, int]:
    """Clean and sort both lists; return where the bids begin and how many they are, and the
    asks."""
    below_zero = origin["below_zero"] != 0
    first, a, b = book["first"], Int(book["a"]), Int(book["b"])
    a_first, b_first = first, first + a
    if origin["swapped"] != 0:
        a_first, b_first = first + a, first
        a, b = b, a
    a = clean(levels, a_first, a, below_zero, sides, 0)
    b = clean(levels, b_first, b, below_zero, sides, MOST_LEVELS)
    if known["settled"] == 0 and (a > 1 or b > 1):
        speaks = order_speaks(sides, 0, a, MOST_LEVELS, b)
        if speaks != 0:
            known["settled"] = 1
            known["reversed"] = 1 if speaks < 0 else 0
    is_reversed = known["reversed"] != 0
    a = sort(sides, 0, a, is_reversed)
    b = sort(sides, MOST_LEVELS, b, not is_reversed)
    if is_reversed:
        return Int(0), a, Int(MOST_LEVELS), b
    return Int(MOST_LEVELS), b, Int(0), a


@part
def _put_best(
    rows: Array, at: int, sides: Array, first: int, count: int, price_power: Word, size_power: Word
) -> int:
    if count == 0:
        rows[at] = _NULL
        rows[at + 1] = _NULL
        return at + 2
    high, low, negative = units(sides[first, PRICE], price_power)
    at = _put_number(rows, at, high, low, negative)
    high, low, negative = units(sides[first, SIZE], size_power)
    return _put_number(rows, at, high, low, negative)


@part
def _put_prices(
    rows: Array, at: int, sides: Array, bid_first: int, ask_first: int, places: int
) -> int:
    """Write spread, mid and weighted_mid."""
    bid, ask = sides[bid_first, PRICE], sides[ask_first, PRICE]
    high, low, negative = units(ask - bid, POWERS[places])
    at = _put_number(rows, at, high, low, negative)
    high, low, negative = middle(bid, ask, places)
    at = _put_number(rows, at, high, low, negative)
    high, low, negative = weighted_middle(
        bid, sides[bid_first, SIZE], ask, sides[ask_first, SIZE], places
    )
    return _put_number(rows, at, high, low, negative)


@part
def _put_imbalances(
    rows: Array, at: int, sides: Array, bid_first: int, bids: int, ask_first: int, asks: int
) -> int:
    for depth in (1, 5, 10):
        found = imbalance(
            volume(sides, bid_first, bids, depth), volume(sides, ask_first, asks, depth)
        )
        at = _put_double(rows, at, found)
    bid_high, bid_low = weighted(sides, bid_first, bids)
    ask_high, ask_low = weighted(sides, ask_first, asks)
    return _put_double(rows, at, wide_imbalance(bid_high, bid_low, ask_high, ask_low))


@part
def _put_flow(
    rows: Array,
    at: int,
    sides: Array,
    bid_first: int,
    ask_first: int,
    known: Record,
    price_power: Word,
    size_power: Word,
) -> int:
    """Write the order-flow imbalance against the book before, and remember this one's best."""
    bid_high, bid_low, bid_negative = units(sides[bid_first, PRICE], price_power)
    ask_high, ask_low, ask_negative = units(sides[ask_first, PRICE], price_power)
    bid_size_high, bid_size_low, _ = units(sides[bid_first, SIZE], size_power)
    ask_size_high, ask_size_low, _ = units(sides[ask_first, SIZE], size_power)
    if known["has_best"] == 0:
        rows[at] = _NULL
        at += 1
    else:
        gained_high, gained_low, lost_high, lost_low = Word(0), Word(0), Word(0), Word(0)
        bid = _compared(bid_high, bid_low, bid_negative, known["bid_high"], known["bid_low"],
                        known["bid_negative"] != 0)  # fmt: skip
        ask = _compared(ask_high, ask_low, ask_negative, known["ask_high"], known["ask_low"],
                        known["ask_negative"] != 0)  # fmt: skip
        if bid >= 0:
            gained_high, gained_low = bid_size_high, bid_size_low
        if bid <= 0:
            lost_high, lost_low = known["bid_size_high"], known["bid_size_low"]
        if ask <= 0:
            lost_high, lost_low = added(lost_high, lost_low, ask_size_high, ask_size_low)
        if ask >= 0:
            gained_high, gained_low = added(
                gained_high, gained_low, known["ask_size_high"], known["ask_size_low"]
            )
        if less(gained_high, gained_low, lost_high, lost_low):
            high, low = subtracted(lost_high, lost_low, gained_high, gained_low)
            at = _put_number(rows, at, high, low, True)
        else:
            high, low = subtracted(gained_high, gained_low, lost_high, lost_low)
            at = _put_number(rows, at, high, low, False)
    known["has_best"] = 1
    known["bid_high"], known["bid_low"] = bid_high, bid_low
    known["ask_high"], known["ask_low"] = ask_high, ask_low
    known["bid_negative"] = 1 if bid_negative else 0
    known["ask_negative"] = 1 if ask_negative else 0
    known["bid_size_high"], known["bid_size_low"] = bid_size_high, bid_size_low
    known["ask_size_high"], known["ask_size_low"] = ask_size_high, ask_size_low
    return at


@part
def _compared(
    a_high: Word, a_low: Word, a_negative: bool, b_high: Word, b_low: Word, b_negative: bool
) -> int:
    """Return -1, 0 or 1 as a is less than b, equal or greater; 0 is not negative."""
    if a_negative != b_negative:
        return -1 if a_negative else 1
    if a_high == b_high and a_low == b_low:
        return 0
    return -1 if less(a_high, a_low, b_high, b_low) != a_negative else 1


@part
def _put_size(rows: Array, at: int, size: Word, power: Word) -> int:
    high, low, negative = units(Int(size), power)
    return put_decimal(rows, at, high, low, negative)


@part
def _put_number(rows: Array, at: int, high: Word, low: Word, negative: bool) -> int:
    """Write a decimal that may be null, and is not."""
    rows[at] = _THERE
    return put_decimal(rows, at + 1, high, low, negative)


@part
def _put_double(rows: Array, at: int, pattern: Word) -> int:
    """Write a double by its bits; it may be null, and is not."""
    rows[at] = _THERE
    for place in range(8):
        rows[at + 1 + place] = np.uint8(pattern & _BYTE)
        pattern >>= _EIGHT
    return at + 9
