"""The state of VWAP as bytes: chunks of a symbol's trades, and the rest of it; and the sums that
are made of trades anew."""

from typing import Any

import numpy as np

from processors.kernels.avro.stored import get_long
from processors.kernels.avro.write import put_big, put_long
from processors.kernels.columns import Array
from processors.kernels.compiled import INT, array, kernel, part, reads
from processors.kernels.numbered_pairs import PAIR_BYTES
from processors.kernels.numbers.limbs import ZERO, Word
from processors.kernels.vwap.arrays import CHUNK, CLOSING, SESSION, SLOT, WRITTEN, Record
from processors.kernels.vwap.rolling import ENTRY, WINDOW, add_to


@part
def remember(
    own: Record, opened: Array, closed: Array, closings: Array, slot: int, written: Array, ts: int,
    price: int, volume: int,
) -> None:  # fmt: skip
    """Put a trade into the symbol's open chunk, and write the chunk once it is full."""
    entry = opened[own["open"]]
    entry["ts"], entry["price"], entry["volume"] = ts, price, volume
    own["open"] += 1
    if own["open"] == CHUNK:
        count = written[0]["closings"]
        at: Any = closings[count - 1]["end"] if count > 0 else np.int64(0)
        closing = closings[count]
        closing["slot"], closing["number"] = slot, own["chunks"]
        closing["latest"] = opened[0]["ts"]
        for index in range(1, CHUNK):
            if opened[index]["ts"] > closing["latest"]:
                closing["latest"] = opened[index]["ts"]
        closing["end"] = put_chunk(
            closed, at, own["price_scale"], own["volume_scale"], opened, CHUNK
        )
        written[0]["closings"] = count + 1
        own["chunks"] += 1
        own["open"] = np.int32(0)


@kernel(
    array(SLOT), array(ENTRY), array(ENTRY, 2), array(np.uint8), array(CLOSING), INT,
    array(WRITTEN),
)  # fmt: skip
def remember_ring(
    slots: Array, arena: Array, opened: Array, closed: Array, closings: Array, slot: int,
    written: Array,
) -> None:  # fmt: skip
    """Remember every trade of a symbol's ring."""
    own = slots[slot]
    for at in range(own["count"]):
        entry = arena[own["base"] + ((own["head"] + at) & (own["capacity"] - 1))]
        remember(
            own, opened[slot], closed, closings, slot, written, entry["ts"], entry["price"],
            entry["volume"],
        )  # fmt: skip


@part
def put_chunk(
    buffer: Array, at: int, price_scale: int, volume_scale: int, entries: Array, count: int
) -> int:
    """Write trades: their scales, how many, and of each how time and price differ from the one
    before, and the volume."""
    at = put_long(buffer, at, price_scale)
    at = put_long(buffer, at, volume_scale)
    at = put_long(buffer, at, count)
    ts, price = np.int64(0), np.int64(0)
    for index in range(count):
        entry = entries[index]
        at = put_long(buffer, at, entry["ts"] - ts)
        at = put_long(buffer, at, entry["price"] - price)
        at = put_long(buffer, at, entry["volume"])
        ts, price = entry["ts"], entry["price"]
    return at


@kernel(
    array(SLOT), array(SESSION, 2), array(ENTRY, 2), array(np.uint8), reads(np.uint8), INT,
    array(np.int64), array(np.uint8), array(np.int64),
)  # fmt: skip
def pack(
    slots: Array, sessions: Array, opened: Array, names: Array, prefix: Array, version: int,
    chosen: Array, buffer: Array, ends: Array,
) -> None:  # fmt: skip
    """Write the state of the chosen symbols as pairs of the state topic: the key is the prefix and
    the symbol, the value a version, times, sessions, and the open chunk."""
    at = 0
    for index in range(len(chosen)):
        slot = chosen[index]
        own = slots[slot]
        begin, size = at, own["name_end"] - own["name"]
        at += PAIR_BYTES
        for place in range(len(prefix)):
            buffer[at + place] = prefix[place]
        at += len(prefix)
        for place in range(size):
            buffer[at + place] = names[own["name"] + place]
        at += size
        first = at
        buffer[at] = np.uint8(version)
        at += 1
        at = put_long(buffer, at, own["now"])
        at = put_long(buffer, at, own["ts_recv"])
        at = put_long(buffer, at, own["most_price"])
        at = put_long(buffer, at, own["chunks"])
        used = 0
        for each in range(sessions.shape[1]):
            if sessions[slot, each]["count"] > 0:
                used += 1
        at = put_long(buffer, at, used)
        for each in range(sessions.shape[1]):
            session = sessions[slot, each]
            if session["count"] > 0:
                at = put_long(buffer, at, session["trade_date"])
                at = put_long(buffer, at, session["start"])
                at = put_long(buffer, at, session["end"])
                at = put_long(buffer, at, session["latest"])
                at = put_long(buffer, at, session["count"])
                at = put_word(buffer, at, session["v0"])
                at = put_word(buffer, at, session["v1"])
                at = put_word(buffer, at, session["t0"])
                at = put_word(buffer, at, session["t1"])
                at = put_word(buffer, at, session["t2"])
                at = put_word(buffer, at, session["q0"])
                at = put_word(buffer, at, session["q1"])
                at = put_word(buffer, at, session["q2"])
                at = put_word(buffer, at, session["q3"])
        at = put_chunk(
            buffer, at, own["price_scale"], own["volume_scale"], opened[slot], own["open"]
        )
        ends[index] = at
        put_big(buffer, begin, first - begin - PAIR_BYTES, 4)
        put_big(buffer, begin + 4, at - first, 4)


@part
def put_word(buffer: Array, at: int, word: Word) -> int:
    """Write a word of 64 bits."""
    return put_long(buffer, at, int(np.int64(word)))


@kernel(reads(np.uint8), INT, array(ENTRY), array(np.int64))
def unpack_chunk(buffer: Array, at: int, entries: Array, scales: Array) -> int:
    """Read the trades that `put_chunk` wrote, and their scales; return how many there are."""
    scales[0], at = get_long(buffer, at)
    scales[1], at = get_long(buffer, at)
    count, at = get_long(buffer, at)
    ts, price = np.int64(0), np.int64(0)
    for index in range(count):
        step, at = get_long(buffer, at)
        ts += step
        step, at = get_long(buffer, at)
        price += step
        volume, at = get_long(buffer, at)
        entry = entries[index]
        entry["ts"], entry["price"], entry["volume"] = ts, price, volume
    return int(count)


@kernel(array(SLOT), array(WINDOW, 2), array(np.int64), array(ENTRY), INT)
def sum_up(slots: Array, windows: Array, spans: Array, arena: Array, slot: int) -> None:
    """Set the sums of a symbol's windows anew from its ring."""
    own = slots[slot]
    mask = own["capacity"] - 1
    for index in range(len(spans)):
        window = windows[slot, index]
        window["left"] = 0
        window["count"] = 0
        window["v0"], window["v1"] = ZERO, ZERO
        window["t0"], window["t1"], window["t2"] = ZERO, ZERO, ZERO
        window["q0"], window["q1"], window["q2"], window["q3"] = ZERO, ZERO, ZERO, ZERO
        for at in range(own["count"]):
            entry = arena[own["base"] + ((own["head"] + at) & mask)]
            if entry["ts"] > own["now"] - spans[index]:
                add_to(window, entry["price"], entry["volume"])
            else:
                window["left"] += 1
