"""The state of the bars of one partition as arrays: what each array has, and why a kernel stops.

A symbol has a slot, an interval a level. A bar is a record of `bars`, chained by its slot and level
from the newest to the oldest; free records are chained too. What waits for a feed's event time is
in two heaps a feed: open bars that will close, closed bars that will be dropped.
"""

from typing import NamedTuple

import numpy as np

from processors.kernels.columns import Array
from processors.kernels.compiled import array, named
from processors.kernels.observed import FEED, LIMITS, SYMBOL

NONE = -1
"""No index."""

BAR = np.dtype(
    [
        ("start", np.int64),
        ("end", np.int64),
        ("ts_first", np.int64),
        ("ts_last", np.int64),
        ("ts_recv", np.int64),
        ("open", np.int64),
        ("high", np.int64),
        ("low", np.int64),
        ("close", np.int64),
        ("volume_0", np.uint64),
        ("volume_1", np.uint64),
        ("buy_0", np.uint64),
        ("buy_1", np.uint64),
        ("sell_0", np.uint64),
        ("sell_1", np.uint64),
        ("turnover_0", np.uint64),
        ("turnover_1", np.uint64),
        ("turnover_2", np.uint64),
        ("count", np.int64),
        ("published", np.int64),
        ("revision", np.int32),
        ("trade_date", np.int32),
        ("slot", np.int32),
        ("newer", np.int32),
        ("older", np.int32),
        ("level", np.int8),
        ("closed", np.int8),
        ("folded", np.int8),
        ("completeness", np.int8),
        ("known", np.int8),
        ("provenance", np.int8),
        ("dirty", np.int8),
        ("stored", np.int8),
    ],
    align=True,
)
"""A TimeBar: prices as mantissas of the slot's price scale, volumes (128 bits) of its volume scale,
turnover (192 bits, two's complement) of both together. `level` is NONE for a free record,
`completeness` that of its last record, `known` what Python answered when it was asked (0: not
asked since a control record), `stored`: the state topic has it under this index."""

SLOT = np.dtype(
    [
        ("order", np.int64),
        ("session_start", np.int64),
        ("session_end", np.int64),
        ("trade_date", np.int32),
        ("key", np.int32),
        ("price_scale", np.int8),
        ("volume_scale", np.int8),
        ("has_session", np.int8),
        ("is_native", np.int8),
    ],
    align=True,
)
"""A symbol: `order` grows with its text; [session_start, session_end) is the time for which the
session is known: `has_session` or none. `is_native`: its bars are here, not TimeBars."""

LEVEL = np.dtype(
    [
        ("length", np.int64),
        ("first_child", np.int32),
        ("sibling", np.int32),
        ("skip", np.int32),
        ("is_root", np.int8),
        ("is_session", np.int8),
    ],
    align=True,
)
"""An interval: `length` in ms; the levels that are folded from it, from the finest, are its
`first_child` and that one's siblings. `skip` is the level after all of them, in the order in which
a late trade goes through the levels."""

LINK = np.dtype(
    [
        ("newest", np.int32),
        ("oldest", np.int32),
        ("current", np.int32),
        ("forgotten_until", np.int64),
    ],
    align=True,
)
"""The bars of a slot and level: ends of their chain, of a root the bar that trades go into (open
and not folded), and the greatest start of a bar that was published and forgotten."""

TIMER = np.dtype(
    [
        ("boundary", np.int64),
        ("tick", np.int64),
        ("general_end", np.int64),
        ("general_start", np.int64),
        ("general_order", np.int64),
        ("general_level", np.int32),
        ("key", np.int32),
        ("general_closed", np.int64),
    ],
    align=True,
)
"""A feed, as BarTimers. `general_*` is the next open bar of the general path, which takes its turn;
`general_closed` the end of its first closed one."""

HEAP = np.dtype([("base", np.int64), ("room", np.int64), ("size", np.int64)])
"""Entries [base, base + size) are a heap: 2 x feed that of open bars, 2 x feed + 1 of closed."""

ENTRY = np.dtype(
    [
        ("end", np.int64),
        ("start", np.int64),
        ("slot", np.int32),
        ("bar", np.int32),
        ("level", np.int32),
    ],
    align=True,
)
"""A bar that waits. It may be gone, or another feed's by now: then it is passed over."""

FORGOTTEN = np.dtype(
    [("start", np.int64), ("until", np.int64), ("slot", np.int32), ("level", np.int32)], align=True
)
"""A bar that was dropped but must be remembered, and until which end a heal could reach bars."""

ROW = np.dtype([("end", np.int64), ("key", np.int32), ("topic", np.int8)], align=True)
"""A row in `out`: where it ends, whose key it has, its topic: the level, or behind those,
progress."""

SETTINGS = np.dtype(
    [
        ("delay", np.int64),
        ("horizon", np.int64),
        ("healable", np.int64),
        ("grid", np.int64),
        ("update", np.int64),
        ("partition", np.int64),
        ("levels", np.int32),
        ("has_sessions", np.int8),
    ],
    align=True,
)
"""One record; times in ms, `update` 0 for none."""

RUN = np.dtype(
    [
        ("offset", np.int64),
        ("ts_recv", np.int64),
        ("next", np.int64),
        ("came_by", np.int32),
        ("advancing", np.int32),
        ("phase", np.int32),
        ("shows_general", np.int32),
        ("position", np.int64),
        ("written", np.int64),
        ("rows", np.int64),
        ("dirty", np.int64),
        ("forgotten", np.int64),
        ("free", np.int32),
        ("free_count", np.int64),
        ("bar", np.int32),
        ("slot", np.int32),
        ("time", np.int64),
    ],
    align=True,
)
"""One record: the record of the log that causes rows, the next trade of the run, the feed that it
came by once it was accepted; the feed that is `advancing` and how far that is (`shows_general`:
the general path's open bars are shown among those here); how much of `out`,
`rows`, `dirty` and `forgotten` is used; the chain of free bars; where a kernel stopped."""

TEXT = np.dtype([("first", np.int64), ("after", np.int64)])
"""Where a text lies in `bytes`, as Avro has it: with its length."""


class BarArrays(NamedTuple):
    """All that a kernel works on."""

    feeds: Array
    symbols: Array
    slot_of: Array
    feed_of_lane: Array
    limits: Array
    settings: Array
    run: Array
    levels: Array
    slots: Array
    links: Array
    """LINK by slot and level."""
    bars: Array
    timers: Array
    heaps: Array
    entries: Array
    texts: Array
    """TEXT: first those of FIXED and of the levels, then the keys' as SLOT and TIMER name them."""
    bytes: Array
    dirty: Array
    """Bars that are to be written to the state topic, int32."""
    forgotten: Array
    rows: Array
    out: Array


TAKES = named(
    BarArrays,
    array(FEED),
    array(SYMBOL),
    array(np.int32),
    array(np.int32),
    array(LIMITS),
    array(SETTINGS),
    array(RUN),
    array(LEVEL),
    array(SLOT),
    array(LINK, 2),
    array(BAR),
    array(TIMER),
    array(HEAP),
    array(ENTRY),
    array(TEXT),
    array(np.uint8),
    array(np.int32),
    array(FORGOTTEN),
    array(ROW),
    array(np.uint8),
)
"""BarArrays, as a kernel takes them."""

FIXED = ("trades", "klines", "mixed", "", "complete", "partial", "gap", "close", "late", "update",
         "source")  # fmt: skip
"""Texts of every row; the last is the partition's source."""
TRADES, KLINES, MIXED = 0, 1, 2
"""Provenance."""
NOT_SAID, COMPLETE, PARTIAL, GAP = 0, 1, 2, 3
"""Completeness; FIXED has their texts from 3 on."""
CLOSE, LATE_TRADE, UPDATE = 7, 8, 9
"""Causes."""
SOURCE = 10

ROW_BYTES = 512
"""A row takes no more than this and twice its symbol."""

# phases of a feed's advance
IDLE, CLOSING, SORTING, UPDATING, BOUNDARY, DROPPING, SETTLING = 0, 1, 2, 3, 4, 5, 6

# why a kernel stopped; before it touched the trade or bar unless said otherwise
DONE = 0
FULL = 1
"""No room for rows."""
NO_BARS = 2
"""No room for bars, forgotten ones or entries of a heap."""
LOOK = 3
"""A lane or symbol that is not known, or too late: `next` is to be judged by Python."""
GENERAL = 4
"""The trade, or the bar `bar`, is the general path's: the symbol is, or must be."""
SESSION = 5
"""The session of `slot` at `time` is not known."""
COMPLETENESS = 6
"""The completeness of `bar` is not known."""
TURN = 7
"""It is the turn of the feed's next bar of the general path, or there is no further one."""
BEYOND = 8
"""The feed has passed a boundary: the general path's closed bars, and symbols without any."""
