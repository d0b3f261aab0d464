"""What a feed's event time brings about: bars close, open ones are shown, closed ones are dropped.

An advance stops where Python must look or no room is left, and goes on there when it is called
again.
"""

import numpy as np

from processors.kernels.bars.arrays import (
    BEYOND,
    BOUNDARY,
    CLOSE,
    CLOSING,
    COMPLETE,
    COMPLETENESS,
    DONE,
    DROPPING,
    FULL,
    GENERAL,
    IDLE,
    KLINES,
    NO_BARS,
    NONE,
    SESSION,
    SETTLING,
    SORTING,
    TRADES,
    TURN,
    UPDATE,
    UPDATING,
    BarArrays,
)
from processors.kernels.bars.chains import drop, find, make, pop, sort, wait
from processors.kernels.bars.figures import fold_bar
from processors.kernels.bars.rows import (
    has_room,
    is_known,
    is_small,
    max_of,
    publish,
    show_progress,
)
from processors.kernels.columns import Record
from processors.kernels.compiled import part
from processors.model.intervals import DAY
from processors.model.observation import FOREVER


@part
def has_room_for_bars(arrays: BarArrays, slot: int) -> bool:
    """Return whether a bar of each interval can be made for a slot, and wait."""
    levels = arrays.settings[0]["levels"]
    feed = arrays.symbols[slot]["feed"]
    opened, closed = arrays.heaps[2 * feed], arrays.heaps[2 * feed + 1]
    return bool(
        arrays.run[0]["free_count"] >= levels
        and opened["size"] + levels < opened["room"]
        and closed["size"] + levels < closed["room"]
    )


@part
def start_of(arrays: BarArrays, slot: int, level: int, event: int) -> tuple[int, int]:
    """Return DONE and the start of the bar that an event time belongs to, or why there is none:
    SESSION if the session is not known, GENERAL between sessions."""
    interval, known = arrays.levels[level], arrays.slots[slot]
    if interval["is_session"] == 0:
        return DONE, event - event % interval["length"]
    if event < known["session_start"] or event >= known["session_end"]:
        return SESSION, 0
    if known["has_session"] == 0:
        return GENERAL, 0
    return DONE, known["session_start"]


@part
def locate(arrays: BarArrays, slot: int, level: int, event: int) -> int:
    """Return the bar that an event time belongs to; NONE if there is none."""
    reason, start = start_of(arrays, slot, level, event)
    return find(arrays, slot, level, start) if reason == DONE else NONE


@part
def find_or_make(
    arrays: BarArrays, slot: int, level: int, event: int, open_anyway: bool
) -> tuple[int, int]:
    """Return DONE and the bar that an event time belongs to, made if there is none, NONE between
    sessions; or the reason to stop.

    A new bar whose time is over is closed from the start, unless `open_anyway`.
    """
    run, known, settings = arrays.run[0], arrays.slots[slot], arrays.settings[0]
    reason, start = start_of(arrays, slot, level, event)
    if reason == GENERAL:
        return DONE, NONE
    if reason != DONE:
        run["slot"], run["time"] = slot, event
        return reason, NONE
    index = find(arrays, slot, level, start)
    if index != NONE:
        return DONE, index
    if start <= arrays.links[slot, level]["forgotten_until"]:
        return GENERAL, NONE
    if arrays.levels[level]["is_session"] != 0:
        end = known["session_end"]
    else:
        end = start + arrays.levels[level]["length"]
        # a session begins with its first trade, not only when the first bar is folded into it
        if settings["has_sessions"] != 0 and (
            event < known["session_start"] or event >= known["session_end"]
        ):
            run["slot"], run["time"] = slot, event
            return SESSION, NONE
    symbol = arrays.symbols[slot]
    watermark = max_of(
        arrays.feeds[symbol["feed"]]["latest_event"] - settings["delay"],
        symbol["least_watermark"],
    )
    is_over = end <= watermark or symbol["complete_from"] == FOREVER
    index = make(arrays, slot, level, start, end, known["trade_date"], is_over and not open_anyway)
    wait(arrays, index, 0)
    return DONE, index


@part
def advance(arrays: BarArrays) -> int:
    """Do what the event time of the feed `advancing` has made due; return DONE, or why Python must
    look before it goes on."""
    run, settings = arrays.run[0], arrays.settings[0]
    feed = run["advancing"]
    timer = arrays.timers[feed]
    latest = arrays.feeds[feed]["latest_event"]
    watermark = latest - settings["delay"]
    if run["phase"] == CLOSING:
        reason = _close_due(arrays, feed, watermark)
        if reason != DONE:
            return reason
        shows = settings["update"] > 0 and latest >= timer["tick"]
        run["phase"] = SORTING if shows else BOUNDARY
    if run["phase"] == SORTING:
        sort(arrays, 2 * feed)
        run["position"] = 0
        run["phase"] = UPDATING
    if run["phase"] == UPDATING:
        reason = _show_open(arrays, feed)
        if reason != DONE:
            return reason
        run["phase"] = BOUNDARY
        if run["shows_general"] != 0:
            return TURN
    if run["phase"] == BOUNDARY:
        run["phase"] = SETTLING
        if watermark >= timer["boundary"]:
            if not has_room(arrays, 1, timer["key"]):
                run["phase"] = BOUNDARY
                return FULL
            show_progress(arrays, feed)
            run["phase"] = DROPPING
    if run["phase"] == DROPPING:
        unrevisable = watermark - settings["horizon"]
        reason = _drop_due(arrays, feed, unrevisable)
        if reason != DONE:
            return reason
        run["phase"] = SETTLING
        # the boundary follows the watermark before this one
        is_new_day = watermark // DAY != (timer["boundary"] - 1) // DAY
        if is_new_day or timer["general_closed"] <= unrevisable:
            return BEYOND
    settle(arrays, feed)
    run["phase"] = IDLE
    return DONE


@part
def settle(arrays: BarArrays, feed: int) -> None:
    """Set when anything is to be done next for a feed."""
    settings, timer, row = arrays.settings[0], arrays.timers[feed], arrays.feeds[feed]
    latest, delay = row["latest_event"], settings["delay"]
    timer["boundary"] = _next(latest - delay, settings["grid"])
    timer["tick"] = FOREVER
    if settings["update"] > 0:
        timer["tick"] = _next(latest, settings["update"])
    due = timer["boundary"] + delay
    if timer["tick"] < due:
        due = timer["tick"]
    heap = arrays.heaps[2 * feed]
    if heap["size"] > 0 and arrays.entries[heap["base"]]["end"] + delay < due:
        due = arrays.entries[heap["base"]]["end"] + delay
    if timer["general_end"] < due - delay:
        due = timer["general_end"] + delay
    row["due"] = due


@part
def _next(now: int, step: int) -> int:
    return (now // step + 1) * step


@part
def _waits(arrays: BarArrays, at: int, feed: int, closed: int) -> bool:
    """Return whether the bar of an entry still waits there."""
    entry = arrays.entries[at]
    bar = arrays.bars[entry["bar"]]
    return bool(
        bar["level"] == entry["level"]
        and bar["slot"] == entry["slot"]
        and bar["start"] == entry["start"]
        and bar["closed"] == closed
        and arrays.symbols[entry["slot"]]["feed"] == feed
    )


@part
def _is_before_general(arrays: BarArrays, at: int, timer: Record) -> bool:
    entry = arrays.entries[at]
    if entry["end"] != timer["general_end"]:
        return bool(entry["end"] < timer["general_end"])
    if entry["level"] != timer["general_level"]:
        return bool(entry["level"] < timer["general_level"])
    order = arrays.slots[entry["slot"]]["order"]
    if order != timer["general_order"]:
        return bool(order < timer["general_order"])
    return bool(entry["start"] < timer["general_start"])


@part
def _close_due(arrays: BarArrays, feed: int, watermark: int) -> int:
    heap, timer = arrays.heaps[2 * feed], arrays.timers[feed]
    while True:
        at = heap["base"]
        is_due = heap["size"] > 0 and arrays.entries[at]["end"] <= watermark
        if is_due and not _waits(arrays, at, feed, 0):
            pop(arrays, 2 * feed)
            continue
        if timer["general_end"] <= watermark and not (
            is_due and _is_before_general(arrays, at, timer)
        ):
            return TURN
        if not is_due:
            return DONE
        index = arrays.entries[at]["bar"]
        reason = _prepare_close(arrays, index)
        if reason != DONE:
            return reason
        pop(arrays, 2 * feed)
        _close(arrays, index)


@part
def _prepare_close(arrays: BarArrays, index: int) -> int:
    """Make the bars that this one is folded into; return DONE if it can be closed here, or the
    reason to stop."""
    run, bar = arrays.run[0], arrays.bars[index]
    run["bar"] = index
    slot = bar["slot"]
    if bar["provenance"] != TRADES or not is_small(
        arrays, slot, bar["volume_0"], bar["volume_1"],
        bar["turnover_0"], bar["turnover_1"], bar["turnover_2"],
    ):  # fmt: skip
        return GENERAL
    if not is_known(arrays, index):
        return COMPLETENESS
    if not has_room_for_bars(arrays, slot):
        return NO_BARS
    if not has_room(arrays, 1, arrays.slots[slot]["key"]):
        return FULL
    if bar["folded"] == 0:
        coarser = arrays.levels[bar["level"]]["first_child"]
        while coarser != NONE:
            reason, found = find_or_make(arrays, slot, coarser, bar["start"], True)
            if reason != DONE:
                return reason
            if (
                found != NONE
                and arrays.bars[found]["provenance"] != KLINES
                and (arrays.bars[found]["closed"] != 0 or arrays.bars[found]["folded"] != 0)
            ):
                return GENERAL
            coarser = arrays.levels[coarser]["sibling"]
    return DONE


@part
def _close(arrays: BarArrays, index: int) -> None:
    bar = arrays.bars[index]
    slot, level = bar["slot"], bar["level"]
    bar["closed"] = np.int8(1)
    wait(arrays, index, 0)
    if arrays.links[slot, level]["current"] == index:
        arrays.links[slot, level]["current"] = NONE
    if bar["folded"] == 0:
        bar["folded"] = np.int8(1)
        coarser = arrays.levels[level]["first_child"]
        while coarser != NONE:
            found = locate(arrays, slot, coarser, bar["start"])
            if found != NONE and arrays.bars[found]["provenance"] != KLINES:
                fold_bar(arrays, found, index)
            coarser = arrays.levels[coarser]["sibling"]
    publish(arrays, index, CLOSE)


@part
def _show_open(arrays: BarArrays, feed: int) -> int:
    run, heap, timer = arrays.run[0], arrays.heaps[2 * feed], arrays.timers[feed]
    while True:
        at = heap["base"] + run["position"]
        is_left = run["position"] < heap["size"]
        if timer["general_end"] != FOREVER and not (
            is_left and _is_before_general(arrays, at, timer)
        ):
            return TURN
        if not is_left:
            return DONE
        index = arrays.entries[at]["bar"]
        bar = arrays.bars[index]
        if _waits(arrays, at, feed, 0) and bar["count"] != bar["published"]:
            run["bar"] = index
            slot = bar["slot"]
            if bar["provenance"] != TRADES or not is_small(
                arrays, slot, bar["volume_0"], bar["volume_1"],
                bar["turnover_0"], bar["turnover_1"], bar["turnover_2"],
            ):  # fmt: skip
                return GENERAL
            if not is_known(arrays, index):
                return COMPLETENESS
            if not has_room(arrays, 1, arrays.slots[slot]["key"]):
                return FULL
            publish(arrays, index, UPDATE)
        run["position"] += 1


@part
def _drop_due(arrays: BarArrays, feed: int, unrevisable: int) -> int:
    run, heap, healable = arrays.run[0], arrays.heaps[2 * feed + 1], arrays.settings[0]["healable"]
    while heap["size"] > 0 and arrays.entries[heap["base"]]["end"] <= unrevisable:
        if run["forgotten"] == len(arrays.forgotten):
            return NO_BARS
        waits = _waits(arrays, heap["base"], feed, 1)
        index = arrays.entries[heap["base"]]["bar"]
        pop(arrays, 2 * feed + 1)
        if not waits:
            continue
        bar = arrays.bars[index]
        if bar["end"] + healable <= unrevisable:
            drop(arrays, index)
        elif bar["completeness"] == COMPLETE:
            _remember(arrays, index, unrevisable - healable)
            drop(arrays, index)
        else:
            wait(arrays, index, healable)
    return DONE


@part
def _remember(arrays: BarArrays, index: int, healable_until: int) -> None:
    run, bar = arrays.run[0], arrays.bars[index]
    link = arrays.links[bar["slot"], bar["level"]]
    link["forgotten_until"] = max_of(link["forgotten_until"], bar["start"])
    kept = arrays.forgotten[run["forgotten"]]
    kept["slot"], kept["level"] = bar["slot"], bar["level"]
    kept["start"], kept["until"] = bar["start"], healable_until
    run["forgotten"] += 1
