"""The open activity bars of one partition as arrays: what each array has, and why the kernel stops.

A symbol has a slot, a threshold a level. A slot has the bars of one trade date: that of the
symbol's last trade.
"""

from typing import NamedTuple

import numpy as np

from processors.kernels.columns import Array
from processors.kernels.compiled import array, named
from processors.kernels.observed import FEED, LIMITS, SYMBOL

BAR = np.dtype(
    [
        ("index", np.int64),
        ("revision", np.int64),
        ("published", np.int64),
        ("count", np.int64),
        ("ts_recv", np.int64),
        ("ts_first", np.int64),
        ("ts_last", np.int64),
        ("open_0", np.uint64),
        ("open_1", np.uint64),
        ("high_0", np.uint64),
        ("high_1", np.uint64),
        ("low_0", np.uint64),
        ("low_1", np.uint64),
        ("close_0", np.uint64),
        ("close_1", np.uint64),
        ("volume_0", np.uint64),
        ("volume_1", np.uint64),
        ("turnover_0", np.uint64),
        ("turnover_1", np.uint64),
        ("turnover_2", np.uint64),
        ("buy_0", np.uint64),
        ("buy_1", np.uint64),
        ("sell_0", np.uint64),
        ("sell_1", np.uint64),
    ]
)
"""An ActivityBar, field by field. Numbers are in its units, whatever the scale of a trade: prices
(two's complement) and volumes have 128 bits, the turnover (two's complement) has 192."""

SLOT = np.dtype(
    [
        ("session_start", np.int64),
        ("session_end", np.int64),
        ("outside_end", np.int64),
        ("trade_date", np.int32),
        ("business", np.int32),
        ("outside_business", np.int32),
        ("is_native", np.int8),
        ("dirty", np.int8),
        ("unpublished", np.int8),
    ],
    align=True,
)
"""A symbol: the session and the business of its last trade in one; the end of a minute whose trades
of a business belong to no session. `is_native`: the bars of that session's date are here. `dirty`:
the kernel has changed them since the state was last written; `unpublished`: one of them may have
trades that no record of it has."""

LANE = np.dtype([("business", np.int32), ("source", np.int32)])
"""What a lane means for its trades: the number of its business, the text of its source."""

THRESHOLD = np.dtype(
    [
        ("limit_0", np.uint64),
        ("limit_1", np.uint64),
        ("limit_2", np.uint64),
        ("value_0", np.uint64),
        ("value_1", np.uint64),
        ("kind", np.int8),
    ],
    align=True,
)
"""What completes the bars of a level: `limit` in the units of its total, `value` as rows have it;
`kind` is TICK, VOLUME or TURNOVER."""

RUN = np.dtype([("next", np.int64), ("rows", np.int64), ("written", np.int64)])
"""One record: the next trade of the run, how many rows there are, how much of `out` is used."""


class ActivityArrays(NamedTuple):
    """All that the kernel works on."""

    feeds: Array
    symbols: Array
    slot_of: Array
    feed_of_lane: Array
    limits: Array
    lanes: Array
    thresholds: Array
    slots: Array
    bars: Array
    """BAR by slot and level."""
    keys: Array
    """The symbols of the tables as Names have them; `texts`: FIXED, then the sources."""
    key_ends: Array
    texts: Array
    text_ends: Array
    run: Array
    out: Array
    ends: Array
    """Per row where it ends in `out`, the level that is its topic, the index of its symbol."""
    topics: Array
    row_keys: Array


TAKES = named(
    ActivityArrays,
    array(FEED),
    array(SYMBOL),
    array(np.int32),
    array(np.int32),
    array(LIMITS),
    array(LANE),
    array(THRESHOLD),
    array(SLOT),
    array(BAR, 2),
    array(np.uint8),
    array(np.int64),
    array(np.uint8),
    array(np.int64),
    array(RUN),
    array(np.uint8),
    array(np.int64),
    array(np.int8),
    array(np.int32),
)
"""ActivityArrays, as the kernel takes them."""

FIXED = ("tick", "volume", "turnover", "close", "complete")
"""Texts of rows; those of the sources follow."""
TICK, VOLUME, TURNOVER, CLOSE, COMPLETE = 0, 1, 2, 3, 4

MOST_LEVELS = 127
"""The number of a row's topic has a byte."""

# why the kernel stopped; before it touched the trade unless said otherwise
DONE = 0
FULL = 1
"""No room for the trade's rows."""
LOOK = 2
"""A lane or symbol that is not known."""
GENERAL = 3
"""The trade is the general path's."""
DUE = 4
"""After the trade before `next`: something is due at its feed's event time."""
