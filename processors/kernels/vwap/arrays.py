"""The arrays of VWAP: what they hold of symbols, sessions and windows, and why the loop stops."""

from typing import Any

import numpy as np

from processors.kernels.vwap.rolling import RING, SUMS

SLOT = np.dtype(
    [
        *RING,
        ("ts_recv", np.int64),
        ("most_price", np.int64),
        ("limit0", np.uint64),
        ("limit1", np.uint64),
        ("name", np.int64),
        ("name_end", np.int64),
        ("chunks", np.int64),
        ("open", np.int32),
        ("lane", np.int32),
        ("market", np.int32),
        ("price_scale", np.int8),
        ("volume_scale", np.int8),
        ("general", np.int8),
        ("changed", np.int8),
    ],
    align=True,
)
"""A symbol: its ring, its bounds, where its name stands in `names`; how many chunks of its trades
were closed, and how many trades are in the open one; the lane and the market of its trades outside
of sessions (-1: none yet); `general`: the general path has it; `changed` since the last state."""

SESSION = np.dtype(
    [
        ("trade_date", np.int64),
        ("start", np.int64),
        ("end", np.int64),
        ("latest", np.int64),
        ("count", np.int64),
        *SUMS,
    ]
)
"""The sums of one session, [start, end); one that is not used has start = end. A symbol's are
sorted by start, those that are not used first."""

COVER = np.dtype(
    [
        ("known", np.int64),
        ("since", np.int64),
        ("until", np.int64),
        ("reach_from", np.int64),
        ("reach", np.int64),
    ]
)
"""How one window of one symbol was observed: the index of its text, for every [begin, end) with
since <= begin < until and reach_from <= end <= reach."""

PLAN = np.dtype(
    [
        ("longest", np.int64),
        ("emit_ms", np.int64),
        ("partition", np.int64),
        ("sessions", np.int64),
        ("most_row", np.int64),
    ]
)
"""What does not change: index of the longest window, the grid (0: a row per trade), how many
sessions are kept (0: no window of sessions), and the bytes that a row takes at most without the
symbol."""

WRITTEN = np.dtype([("rows", np.int64), ("bytes", np.int64), ("closings", np.int64)])
"""How far the outputs are filled: rows, their bytes, and closed chunks."""

CLOSING = np.dtype(
    [("slot", np.int64), ("number", np.int64), ("latest", np.int64), ("end", np.int64)]
)
"""A chunk that was closed: whose, its number, its greatest event time, where its bytes end."""

CHUNK = 32
"""Trades of one closed chunk of a symbol."""
MOST_CHUNK = 40 + 30 * CHUNK
"""Bytes that a closed chunk takes at most."""

MOST_PACKED = 60 + 3 * 150 + MOST_CHUNK
"""Bytes that the state of one symbol takes at most, with three sessions."""

COMPLETE, PARTIAL, GAP, SOURCE, FIRST_WINDOW = 0, 1, 2, 3, 4
"""Indices of texts; the windows' names follow, the session's last."""

DONE = 0
UNKNOWN_LANE = 1
UNKNOWN_SYMBOL = 2
GENERAL = 3
SCALES = 4
PRICE = 5
VOLUME = 6
RING_FULL = 7
NO_SESSION = 8
NOT_COVERED = 9
OUTPUT_FULL = 10
DUE = 11
"""Why `fold` stops. All but DUE stop before the trade; DUE after it."""

Record = Any
"""One element of a structured array: numba's Record, numpy's void. Its fields are numbers."""
