"""The activity agent's loop over plain trades: judge, fold into the open bar of each threshold,
encode the bars that are full.

What happens to a trade is the general path's `processors.agents.activity.general`. `fold_trades`
stops before it touches the state if a trade is not plain, and goes on there when it is called
again.
"""

import numpy as np

from processors.kernels.activity.arrays import (
    DONE,
    DUE,
    FULL,
    GENERAL,
    LOOK,
    TAKES,
    ActivityArrays,
)
from processors.kernels.activity.figures import (
    add,
    begin_next,
    has_room,
    is_full,
    price_of,
    turnover_of,
    turnover_with,
    volume_of,
    volume_with,
)
from processors.kernels.activity.rows import have_room, put_row
from processors.kernels.columns import TRADE, Array, Record
from processors.kernels.compiled import INT, array, kernel, part
from processors.kernels.observed import ACCEPTED, NEW_LANE, NEW_SYMBOL, judge, take

_MINUTE = np.int64(60_000)


@kernel(array(TRADE), INT, TAKES)
def fold_trades(trades: Array, partition: int, arrays: ActivityArrays) -> int:
    """Take the trades from `run.next` on; return DONE or why it stopped."""
    run, feeds = arrays.run[0], arrays.feeds
    while run["next"] < len(trades):
        trade = trades[run["next"]]
        verdict = judge(
            feeds, arrays.symbols, arrays.slot_of, arrays.feed_of_lane, arrays.limits, trade
        )
        if verdict in (NEW_LANE, NEW_SYMBOL):
            return LOOK
        counts = verdict == ACCEPTED
        if counts:
            reason = _fold(arrays, trade, partition)
            if reason != DONE:
                return reason
        feed = take(feeds, arrays.feed_of_lane, trade, counts)
        run["next"] += 1
        if counts and feeds[feed]["latest_event"] >= feeds[feed]["due"]:
            return DUE
    return DONE


@part
def _fold(arrays: ActivityArrays, trade: Record, partition: int) -> int:
    slot = arrays.slot_of[trade["symbol"]]
    known = arrays.slots[slot]
    event, business = trade["ts_event"], arrays.lanes[trade["lane"]]["business"]
    if (
        event < known["session_start"]
        or event >= known["session_end"]
        or business != known["business"]
    ):
        end = known["outside_end"]
        is_outside = end - _MINUTE <= event < end and business == known["outside_business"]
        return DONE if is_outside else GENERAL
    if known["is_native"] == 0:
        return GENERAL
    t0, t1, t2, is_small = turnover_of(trade)
    if not is_small:
        return GENERAL
    price, volume, turnover = price_of(trade), volume_of(trade), (t0, t1, t2)
    closing = 0
    for level in range(len(arrays.thresholds)):
        bar = arrays.bars[slot, level]
        if not has_room(bar):
            return GENERAL
        if _is_full_with(arrays, level, bar, volume, turnover):
            first = event
            if bar["count"] > 0 and bar["ts_first"] < event:
                first = bar["ts_first"]
            # how a bar that began earlier was observed is looked up by the general path
            if first < arrays.symbols[slot]["complete_from"]:
                return GENERAL
            closing += 1
    if closing > 0 and not have_room(arrays, closing, trade):
        return FULL
    # from here on nothing stops
    for level in range(len(arrays.thresholds)):
        bar = arrays.bars[slot, level]
        closes = closing > 0 and _is_full_with(arrays, level, bar, volume, turnover)
        add(bar, trade, price, volume, turnover)
        if closes:
            put_row(arrays, bar, level, known["trade_date"], trade, partition)
            begin_next(bar)
    known["dirty"] = known["unpublished"] = np.int8(1)
    return DONE


@part
def _is_full_with(
    arrays: ActivityArrays,
    level: int,
    bar: Record,
    volume: tuple[np.uint64, np.uint64],
    turnover: tuple[np.uint64, np.uint64, np.uint64],
) -> bool:
    """Return whether a trade completes a bar."""
    return is_full(
        arrays.thresholds[level],
        bar["count"] + 1,
        volume_with(bar, volume),
        turnover_with(bar, turnover),
    )
