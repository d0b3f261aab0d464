"""Folds the trades of a run into bars, and closes bars as the feeds' event time goes on.

What happens to a trade is the general path's `processors.agents.bars.general`, for the bars of
symbols whose numbers fit. `fold_trades` stops before it touches the bars of a trade that is not
plain, and goes on there when it is called again.
"""

import numpy as np

from processors.kernels.bars.arrays import (
    CLOSING,
    COMPLETENESS,
    DONE,
    FULL,
    GENERAL,
    IDLE,
    KLINES,
    LATE_TRADE,
    LOOK,
    NO_BARS,
    NONE,
    TAKES,
    TRADES,
    BarArrays,
)
from processors.kernels.bars.closing import advance, find_or_make, has_room_for_bars, locate
from processors.kernels.bars.figures import add_trade, rescale, scaled, turnover_of
from processors.kernels.bars.rows import has_room, is_known, is_small, max_of, publish
from processors.kernels.columns import MOST_MANTISSA, TRADE, Array, Record
from processors.kernels.compiled import array, kernel, part
from processors.kernels.numbers.wide import add2, add3
from processors.kernels.observed import ACCEPTED, REPEAT, judge, take

_ZERO = np.uint64(0)


@kernel(array(TRADE), TAKES)
def fold_trades(trades: Array, arrays: BarArrays) -> int:
    """Take the trades from `run.next` on, after what is left of an advance; return DONE or why it
    stopped."""
    run = arrays.run[0]
    if run["phase"] != IDLE:
        reason = advance(arrays)
        if reason != DONE:
            return reason
    while run["next"] < len(trades):
        trade = trades[run["next"]]
        reason = _take_trade(arrays, trade)
        if reason != DONE:
            return reason
        run["next"] += 1
        feed = run["came_by"]
        run["came_by"] = NONE
        if feed != NONE and arrays.feeds[feed]["latest_event"] >= arrays.feeds[feed]["due"]:
            run["advancing"] = feed
            run["phase"] = CLOSING
            reason = advance(arrays)
            if reason != DONE:
                return reason
    return DONE


@part
def _take_trade(arrays: BarArrays, trade: Record) -> int:
    run = arrays.run[0]
    run["offset"], run["ts_recv"] = trade["offset"], trade["ts_recv"]
    if run["came_by"] == NONE:
        verdict = judge(
            arrays.feeds,
            arrays.symbols,
            arrays.slot_of,
            arrays.feed_of_lane,
            arrays.limits,
            trade,
        )
        if verdict == REPEAT:
            take(arrays.feeds, arrays.feed_of_lane, trade, False)
            return DONE
        if verdict != ACCEPTED:
            return LOOK
        # judged again after a stop it is accepted again: nothing is later than itself
        run["came_by"] = take(arrays.feeds, arrays.feed_of_lane, trade, True)
    slot = arrays.slot_of[trade["symbol"]]
    known = arrays.slots[slot]
    run["slot"], run["bar"] = slot, NONE
    if known["is_native"] == 0:
        return GENERAL
    price_scale, volume_scale = trade["price_scale"], trade["volume_scale"]
    grows = price_scale > known["price_scale"] or volume_scale > known["volume_scale"]
    if grows and not rescale(
        arrays,
        slot,
        max_of(price_scale, known["price_scale"]),
        max_of(volume_scale, known["volume_scale"]),
    ):
        return GENERAL
    price = scaled(trade["price"], known["price_scale"] - price_scale)
    volume = scaled(trade["volume"], known["volume_scale"] - volume_scale)
    if price > MOST_MANTISSA or volume > MOST_MANTISSA:
        return GENERAL
    event = trade["ts_event"]
    for level in range(arrays.settings[0]["levels"]):
        if arrays.levels[level]["is_root"] != 0 and not _is_current(arrays, slot, level, event):
            reason = _prepare(arrays, slot, level, event, price, volume)
            if reason != DONE:
                return reason
    for level in range(arrays.settings[0]["levels"]):
        if arrays.levels[level]["is_root"] != 0:
            if _is_current(arrays, slot, level, event):
                add_trade(arrays, arrays.links[slot, level]["current"], trade, price, volume)
            else:
                _add_elsewhere(arrays, slot, level, trade, price, volume)
    return DONE


@part
def _is_current(arrays: BarArrays, slot: int, level: int, event: int) -> bool:
    index = arrays.links[slot, level]["current"]
    return bool(
        index != NONE and arrays.bars[index]["start"] <= event and event < arrays.bars[index]["end"]
    )


@part
def _prepare(arrays: BarArrays, slot: int, root: int, event: int, price: int, volume: int) -> int:
    """Make the bars that a trade goes into outside of the current one; return DONE if it can be
    folded here, or the reason to stop."""
    if not has_room_for_bars(arrays, slot):
        return NO_BARS
    if not has_room(arrays, arrays.settings[0]["levels"], arrays.slots[slot]["key"]):
        return FULL
    t0, t1, t2 = turnover_of(price, volume)
    level = root
    while level != NONE:
        reason, index = find_or_make(arrays, slot, level, event, False)
        if reason != DONE:
            return reason
        goes_on = False
        if index != NONE and arrays.bars[index]["provenance"] != KLINES:
            bar = arrays.bars[index]
            if bar["provenance"] != TRADES and (level == root or bar["closed"] != 0):
                return GENERAL
            if bar["closed"] != 0:
                if not is_known(arrays, index):
                    arrays.run[0]["bar"] = index
                    return COMPLETENESS
                v0, v1 = add2(bar["volume_0"], bar["volume_1"], np.uint64(volume), _ZERO)
                s0, s1, s2 = add3(
                    bar["turnover_0"], bar["turnover_1"], bar["turnover_2"], t0, t1, t2
                )
                if not is_small(arrays, slot, v0, v1, s0, s1, s2):
                    return GENERAL
            goes_on = bar["folded"] != 0
        elif index != NONE and level == root:
            return GENERAL
        level = _after(arrays, level, goes_on)
    return DONE


@part
def _add_elsewhere(
    arrays: BarArrays, slot: int, root: int, trade: Record, price: int, volume: int
) -> None:
    """Fold a trade into an open bar that is not the current one, or into a closed one and what that
    was folded into."""
    event = trade["ts_event"]
    level = root
    while level != NONE:
        index = locate(arrays, slot, level, event)
        goes_on = False
        if index != NONE and arrays.bars[index]["provenance"] != KLINES:
            bar = arrays.bars[index]
            add_trade(arrays, index, trade, price, volume)
            if bar["closed"] != 0:
                publish(arrays, index, LATE_TRADE)
            goes_on = bar["folded"] != 0
            if level == root and not goes_on:
                _make_current(arrays, slot, level, index)
        level = _after(arrays, level, goes_on)


@part
def _make_current(arrays: BarArrays, slot: int, level: int, index: int) -> None:
    link, bar = arrays.links[slot, level], arrays.bars[index]
    # a bar that began in another business's session may end elsewhere: each of its trades is looked
    # up
    if arrays.levels[level]["is_session"] != 0 and bar["end"] != arrays.slots[slot]["session_end"]:
        return
    if link["current"] == NONE or bar["start"] > arrays.bars[link["current"]]["start"]:
        link["current"] = index


@part
def _after(arrays: BarArrays, level: int, goes_on: bool) -> int:
    """Return the level that a late trade comes to next: those that are folded from this one, if its
    bar has been folded into them."""
    interval = arrays.levels[level]
    if goes_on and interval["first_child"] != NONE:
        return int(interval["first_child"])
    return int(interval["skip"])
