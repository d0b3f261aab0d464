"""The VWAP agent's loop over plain trades: judge, roll the windows, sum the session, encode rows.

`fold` stops at what is not plain, before it touches the state, and returns why. Python mends the
reason and calls it again from the same trade. Prices and volumes of a symbol are mantissas in two
scales of its own, to which trades of fewer digits are multiplied up.

Bounds: a symbol's mantissas are at most `most_price` (a value that Python raises in large steps),
and the volume of its longest window and of each of its sessions is below (`limit1`, `limit0`),
which Python sets so that both the volume and the turnover of every row fit decimal(38,18): volume <
10^(20 + volume_scale), and most_price x volume < 10^(20 + price_scale + volume_scale). The bounds
of the sums in `processors.kernels.numbers.limbs` follow from these.
"""

import numpy as np

from processors.kernels.columns import MOST_MANTISSA, TRADE, Array
from processors.kernels.compiled import INT, array, kernel, part
from processors.kernels.numbers.limbs import ZERO, add
from processors.kernels.observed import (
    FEED,
    LATE,
    LIMITS,
    NEW_LANE,
    NEW_SYMBOL,
    REPEAT,
    SYMBOL,
    judge,
    take,
)
from processors.kernels.vwap.arrays import (
    CLOSING,
    COVER,
    DONE,
    DUE,
    GENERAL,
    NO_SESSION,
    NOT_COVERED,
    OUTPUT_FULL,
    PLAN,
    PRICE,
    RING_FULL,
    SCALES,
    SESSION,
    SLOT,
    UNKNOWN_LANE,
    UNKNOWN_SYMBOL,
    VOLUME,
    WRITTEN,
    Record,
)
from processors.kernels.vwap.rolling import ENTRY, WINDOW, add_to, append, insert
from processors.kernels.vwap.rows import emit
from processors.kernels.vwap.state import remember
from processors.model.observation import BEGINNING

_MINUTE = np.int64(60_000)


@kernel(
    array(TRADE), INT, array(FEED), array(SYMBOL), array(np.int32), array(np.int32),
    array(LIMITS), array(PLAN), array(np.int64), array(SLOT), array(WINDOW, 2),
    array(SESSION, 2), array(COVER, 2), array(ENTRY), array(ENTRY, 2), array(np.uint8),
    array(CLOSING), array(np.int64), array(np.uint8), array(np.uint8), array(np.int64),
    array(np.uint8), array(np.int64), array(np.int8), array(np.int32), array(WRITTEN),
    array(np.int64), array(np.uint64, 2),
)  # fmt: skip
def fold(
    trades: Array,
    first: int,
    feeds: Array,
    symbols: Array,
    slot_of: Array,
    feed_of_lane: Array,
    limits: Array,
    plan: Array,
    spans: Array,
    slots: Array,
    windows: Array,
    sessions: Array,
    covers: Array,
    arena: Array,
    opened: Array,
    closed: Array,
    closings: Array,
    outside: Array,
    names: Array,
    texts: Array,
    text_ends: Array,
    values: Array,
    ends: Array,
    topics: Array,
    keys: Array,
    written: Array,
    powers: Array,
    scratch: Array,
) -> tuple[int, int]:
    """Fold trades from index `first` on; return the index of the trade at which it stopped, and
    why."""
    grid = plan[0]["emit_ms"]
    kept = plan[0]["sessions"]
    count = len(spans)
    longest = plan[0]["longest"]
    for index in range(first, len(trades)):
        trade = trades[index]
        verdict = judge(feeds, symbols, slot_of, feed_of_lane, limits, trade)
        if verdict == NEW_LANE:
            return index, UNKNOWN_LANE
        if verdict == NEW_SYMBOL:
            return index, UNKNOWN_SYMBOL
        if verdict in (REPEAT, LATE):
            take(feeds, feed_of_lane, trade, False)
            continue
        slot = slot_of[trade["symbol"]]
        own = slots[slot]
        if own["general"] != 0:
            return index, GENERAL
        # the numbers, in the symbol's scales
        price_digits = own["price_scale"] - trade["price_scale"]
        volume_digits = own["volume_scale"] - trade["volume_scale"]
        if price_digits < 0 or volume_digits < 0:
            return index, SCALES
        price, volume = trade["price"], trade["volume"]
        most = np.int64(MOST_MANTISSA) // powers[price_digits]
        if price > most or price < -most:
            return index, SCALES
        if volume > np.int64(MOST_MANTISSA) // powers[volume_digits]:
            return index, SCALES
        price *= powers[price_digits]
        volume *= powers[volume_digits]
        if price > own["most_price"] or price < -own["most_price"]:
            return index, PRICE
        ts = trade["ts_event"]
        latest = own["now"] if own["now"] > ts else ts
        in_reach = False
        if count > 0:
            in_reach = ts > own["now"] or ts > own["now"] - spans[longest]
            if overflows(windows[slot, longest], volume, own):
                return index, VOLUME
            if in_reach and own["count"] == own["capacity"]:
                return index, RING_FULL
        # its session
        chosen = -1
        if kept > 0:
            chosen = session_of(sessions[slot], ts)
            if chosen < 0:
                if own["lane"] != trade["lane"] or outside[own["market"]] != ts // _MINUTE:
                    return index, NO_SESSION
            elif overflows(sessions[slot, chosen], volume, own):
                return index, VOLUME
        # the rows that it causes
        shows = True
        now = latest
        shown = chosen
        session_end = ts + 1
        if grid > 0:
            now = own["now"]
            shows = now != BEGINNING and ts // grid > now // grid
            shown = newest_of(sessions[slot], now // grid, grid) if shows and kept > 0 else -1
        if shown >= 0 and (grid > 0 or sessions[slot, shown]["latest"] > ts):
            session_end = sessions[slot, shown]["latest"] + 1
        if shows:
            from_on = symbols[slot]["complete_from"]
            for window in range(count):
                start = now - spans[window]
                if not is_known(covers[slot, window], start + 1, now + 1, from_on):
                    return index, NOT_COVERED
            if shown >= 0:
                start = sessions[slot, shown]["start"]
                if not is_known(covers[slot, count], start, session_end, from_on):
                    return index, NOT_COVERED
            room = (count + 1) * (plan[0]["most_row"] + own["name_end"] - own["name"])
            if written[0]["rows"] + count + 1 > len(ends) or written[0]["bytes"] + room > len(
                values
            ):
                return index, OUTPUT_FULL
        # from here on nothing stops
        feed = take(feeds, feed_of_lane, trade, True)
        own["changed"] = np.int8(1)
        if trade["ts_recv"] > own["ts_recv"]:
            own["ts_recv"] = trade["ts_recv"]
        if shows and grid > 0:
            emit(
                trade, own, now, shown, session_end, symbols[slot]["complete_from"],
                plan, spans, windows[slot], sessions[slot], covers[slot], names, texts, text_ends,
                values, ends, topics, keys, written, scratch,
            )  # fmt: skip
        if count == 0:
            own["now"] = latest
        elif ts > own["now"]:
            append(own, windows[slot], spans, longest, arena, ts, price, volume)
        elif in_reach:
            insert(own, windows[slot], spans, arena, ts, price, volume)
        if in_reach:
            remember(own, opened[slot], closed, closings, slot, written, ts, price, volume)
        if chosen >= 0:
            session = sessions[slot, chosen]
            add_to(session, price, volume)
            if ts > session["latest"]:
                session["latest"] = ts
        if shows and grid == 0:
            emit(
                trade, own, now, shown, session_end, symbols[slot]["complete_from"],
                plan, spans, windows[slot], sessions[slot], covers[slot], names, texts, text_ends,
                values, ends, topics, keys, written, scratch,
            )  # fmt: skip
        if ts >= feeds[feed]["due"]:
            return index + 1, DUE
    return len(trades), DONE


@part
def overflows(sums: Record, volume: int, own: Record) -> bool:
    """Return whether the sums' volume with the trade reaches the symbol's limit."""
    low, carry = add(sums["v0"], np.uint64(volume), ZERO)
    high = sums["v1"] + carry
    return bool(high > own["limit1"] or (high == own["limit1"] and low >= own["limit0"]))


@part
def session_of(sessions: Array, ts: int) -> int:
    """Return the index of the newest session that has the time, -1 for none."""
    for index in range(len(sessions) - 1, -1, -1):
        if sessions[index]["start"] <= ts < sessions[index]["end"]:
            return index
    return -1


@part
def newest_of(sessions: Array, cell: int, grid: int) -> int:
    """Return the index of the newest session if its last trade lies in the cell of the grid, else
    -1."""
    for index in range(len(sessions) - 1, -1, -1):
        if sessions[index]["count"] > 0:
            return index if sessions[index]["latest"] // grid == cell else -1
    return -1


@part
def is_known(cover: Record, begin: int, end: int, complete_from: int) -> bool:
    """Return whether it is known how [begin, end) was observed."""
    return bool(
        begin >= complete_from
        or (
            cover["since"] <= begin < cover["until"]
            and cover["reach_from"] <= end <= cover["reach"]
        )
    )
