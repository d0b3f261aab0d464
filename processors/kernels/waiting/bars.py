"""Bars of streams that have had no kline yet, of one partition and interval: by the slot of their
symbol, from the oldest start on.

The figures of a bar are bytes in a segment, which is a value of the state topic too; here is only
where they lie. A segment begins with a byte for its version. Each of its bars is the short form of
`avro.closed_bars`, and then the record's offset and its stream's `expired`, as Avro has longs.
"""

from typing import NamedTuple

import numpy as np

from processors.kernels.avro.closed_bars import CLOSED_BAR
from processors.kernels.avro.read import NOTHING, read_long, read_size
from processors.kernels.avro.write import put_long
from processors.kernels.columns import Array, Record
from processors.kernels.compiled import INT, array, kernel, named, part, reads

STREAM = np.dtype(
    [
        ("closed", np.int64),
        ("expired", np.int64),
        ("count", np.int32),
        ("waits", np.int8),
    ],
    align=True,
)
"""A stream as `reconciliation.state.Stream`; `waits`: it has had no kline, its bars are here."""

PLACE = np.dtype(
    [
        ("start", np.int64),
        ("end", np.int64),
        ("at", np.int32),
        ("size", np.int32),
        ("segment", np.int32),
    ],
    align=True,
)
"""A bar: its time in ms, and where its bytes are."""

SETTINGS = np.dtype(
    [
        ("kept", np.int64),
        ("wait", np.int64),
        ("hour", np.int64),
        ("segment", np.int64),
        ("used", np.int64),
    ]
)
"""One record: how many bars of a stream are kept, for how long at most, in steps of what; the
segment that is open, and how much of it is used."""

SEEN = np.dtype(
    [
        ("name", np.int64),
        ("name_end", np.int64),
        ("start", np.int64),
        ("end", np.int64),
        ("offset", np.int64),
        ("expired", np.int64),
        ("at", np.int64),
        ("size", np.int64),
    ]
)
"""A bar of a segment."""

DONE = 0
UNKNOWN_STREAM = 1
"""Python must make the stream, or has it itself."""
FULL = 2
"""No place for a further bar of the stream."""
NO_BYTES = 3
"""No room in the open segment."""

MOST_LONGS = 20
"""Bytes behind a bar's short form."""


class Waiting(NamedTuple):
    """All that the kernel works on."""

    slot_of: Array
    """By the index of the tables, -1 for none."""
    streams: Array
    places: Array
    """PLACE by slot, `count` of them from the oldest start on."""
    live: Array
    """By segment the bytes that count, int64."""
    opened: Array
    """The open segment."""
    settings: Array


TAKES = named(
    Waiting,
    array(np.int32),
    array(STREAM),
    array(PLACE, 2),
    array(np.int64),
    array(np.uint8),
    array(SETTINGS),
)


@kernel(array(CLOSED_BAR), INT, reads(np.uint8), TAKES)
def take_bars(bars: Array, index: int, short: Array, waiting: Waiting) -> tuple[int, int]:
    """Take the bars from an index on; return after which one it stopped, and DONE or why."""
    while index < len(bars):
        bar = bars[index]
        if bar["counts"] != 0:
            slot = waiting.slot_of[bar["symbol"]]
            if slot < 0 or waiting.streams[slot]["waits"] == 0:
                return index, UNKNOWN_STREAM
            reason = _take(waiting, slot, bar, short)
            if reason != DONE:
                return index, reason
        index += 1
    return index, DONE


@part
def _take(waiting: Waiting, slot: int, bar: Record, short: Array) -> int:
    stream, places, settings = waiting.streams[slot], waiting.places[slot], waiting.settings[0]
    start, end = bar["ts_start"], bar["ts_end"]
    count = int(stream["count"])
    at = count
    while at > 0 and places[at - 1]["start"] >= start:
        at -= 1
    known = at < count and places[at]["start"] == start
    if not known:
        if end <= stream["expired"]:
            return DONE
        if count == len(places):
            return FULL
    size = bar["after"] - bar["first"]
    if settings["used"] + size + MOST_LONGS > len(waiting.opened):
        return NO_BYTES
    if known:
        waiting.live[places[at]["segment"]] -= int(places[at]["size"])
    else:
        move = count
        while move > at:
            _copy(places[move - 1], places[move])
            move -= 1
        stream["count"] += 1
        places[at]["start"], places[at]["end"] = start, end
    place = places[at]
    place["segment"], place["at"], place["size"] = settings["segment"], settings["used"], 0
    # a bar that is dropped at once is written all the same: it says what has expired
    if end > stream["closed"]:
        stream["closed"] = end
        _drop_oldest(waiting, slot, int(stream["count"]) - settings["kept"])
        over = end - settings["wait"]
        over -= over % settings["hour"]
        gone = 0
        while gone < stream["count"] and places[gone]["end"] <= over:
            gone += 1
        _drop_oldest(waiting, slot, gone)
    opened, used = waiting.opened, settings["used"]
    for byte in range(bar["first"], bar["after"]):
        opened[used] = short[byte]
        used += 1
    used = put_long(opened, used, bar["offset"])
    used = put_long(opened, used, stream["expired"])
    written = used - settings["used"]
    settings["used"] = used
    for at in range(stream["count"]):
        if places[at]["start"] == start:
            places[at]["size"] = written
            waiting.live[settings["segment"]] += written
    return DONE


@part
def _copy(one: Record, other: Record) -> None:
    other["start"], other["end"], other["at"] = one["start"], one["end"], one["at"]
    other["size"], other["segment"] = one["size"], one["segment"]


@part
def _drop_oldest(waiting: Waiting, slot: int, gone: int) -> None:
    """Forget the bars with the least starts."""
    if gone <= 0:
        return
    stream, places = waiting.streams[slot], waiting.places[slot]
    for at in range(gone):
        if places[at]["end"] > stream["expired"]:
            stream["expired"] = places[at]["end"]
        waiting.live[places[at]["segment"]] -= int(places[at]["size"])
    for at in range(gone, stream["count"]):
        _copy(places[at], places[at - gone])
    stream["count"] -= np.int32(gone)


@kernel(reads(np.uint8), array(SEEN))
def scan(segment: Array, seen: Array) -> int:
    """Read the bars of a segment into `seen`; return how many there are, NOTHING if the bytes are
    no segment."""
    at, count, size = 1, 0, len(segment)
    while at < size:
        if count == len(seen):
            return NOTHING
        bar = seen[count]
        bar["at"] = at
        bar["name"], at = _text(segment, at, size)
        bar["name_end"] = at
        bar["start"], at = _long(segment, at, size)
        bar["end"], at = _long(segment, at, size)
        for _ in range(6):
            _, at = _text(segment, at, size)
        _, at = _long(segment, at, size)
        _, at = _text(segment, at, size)
        _, at = _long(segment, at, size)
        bar["offset"], at = _long(segment, at, size)
        bar["expired"], at = _long(segment, at, size)
        if at == NOTHING:
            return NOTHING
        bar["size"] = at - bar["at"]
        count += 1
    return count


@part
def _text(segment: Array, at: int, size: int) -> tuple[int, int]:
    return (NOTHING, NOTHING) if at == NOTHING else read_size(segment, at, size)


@part
def _long(segment: Array, at: int, size: int) -> tuple[int, int]:
    return (0, NOTHING) if at == NOTHING else read_long(segment, at, size)
