"""The arrays of the bars of one partition: makes them, lets them grow, and takes bars in and out of
them; which trade goes where is the kernels'."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from processors.agents.bars.exchange import rows_of, time_bar_of
from processors.agents.bars.figures import TimeBar
from processors.kernels.bars import arrays as a
from processors.kernels.bars import state as stored
from processors.kernels.bars.state import VERSION, dump, lift, place, restore
from processors.kernels.columns import TRADE, Array
from processors.kernels.numbered_pairs import NumberedPairs
from processors.kernels.observed import Observed, grown
from processors.model.event_time import EventTime
from processors.model.intervals import Ladder
from processors.model.observation import BEGINNING, FOREVER
from schemas.errors import InfowayError

BAR_KEY = bytes([stored.BAR_KEY])
_SPACING = 1 << 40
_LEAST_BARS, _LEAST_ENTRIES, _LEAST_ROWS, _LEAST_BYTES = 256, 64, 4096, 1 << 20
_FORGOTTEN_AT_ONCE = 4096
_DUMPED_AT_ONCE, _DUMPED_BYTES = 4096, 160


class StateTooNew(InfowayError):
    """The state topic has bars of a version that this one cannot read."""

    def __init__(self, version: int) -> None:
        super().__init__(
            f"the bars' state is of version {version}, this program reads up to {VERSION}: "
            "run the version that wrote it, or compute anew under a fresh prefix"
        )


class NativeBars:
    """Bars in arrays, by slot of their symbol."""

    def __init__(
        self,
        partition: int,
        observed: Observed,
        event_time: EventTime,
        ladder: Ladder,
        grid_ms: int,
        update_ms: int | None,
        healable_ms: int,
    ) -> None:
        self.observed = observed
        self.names: list[str] = []
        """Keys of rows: symbols and feeds, as SLOT and TIMER number them."""
        self.keys: list[bytes] = []
        self._feeds = 0
        self._ordered: list[str] = []
        self._ladder = ladder
        self._settings = np.zeros(1, a.SETTINGS)
        setting = self._settings[0]
        setting["delay"] = event_time.watermark_delay_ms
        setting["horizon"] = event_time.revision_horizon_ms
        setting["healable"], setting["grid"] = healable_ms, grid_ms
        setting["update"] = update_ms or 0
        setting["partition"], setting["levels"] = partition, len(ladder.intervals)
        setting["has_sessions"] = ladder.intervals[-1].is_session
        self.run = np.zeros(1, a.RUN)
        self.run["came_by"] = self.run["bar"] = self.run["free"] = a.NONE
        self.slots = np.zeros(64, a.SLOT)
        self.links = np.zeros((64, len(ladder.intervals)), a.LINK)
        self.bars = np.zeros(0, a.BAR)
        self._dirty = np.zeros(0, np.int32)
        self.timers = np.zeros(4, a.TIMER)
        self.heaps = np.zeros(8, a.HEAP)
        self.entries = np.zeros(0, a.ENTRY)
        self.forgotten = np.zeros(_FORGOTTEN_AT_ONCE, a.FORGOTTEN)
        self.rows = np.zeros(_LEAST_ROWS, a.ROW)
        self.out = np.zeros(_LEAST_BYTES, np.uint8)
        self._texts = np.zeros(64, a.TEXT)
        self._text_count = 0
        self._bytes = np.zeros(1024, np.uint8)
        self._byte_count = 0
        self._levels = _levels_of(ladder)
        for text in (*a.FIXED, *(interval.name for interval in ladder.intervals)):
            self._add_text(text)
        self._fixed_count = self._text_count
        self.no_trades = np.zeros(0, TRADE)
        self._arrays: a.BarArrays | None = None
        self._grow_bars(_LEAST_BARS)

    @property
    def arrays(self) -> a.BarArrays:
        """All arrays as they are now; an array that has grown is another one."""
        seen = self.observed
        found = self._arrays
        if (
            found is None
            or found.feeds is not seen.feeds
            or found.symbols is not seen.symbols
            or found.slot_of is not seen.slot_of
            or found.feed_of_lane is not seen.feed_of_lane
        ):
            found = self._arrays = a.BarArrays(
                seen.feeds, seen.symbols, seen.slot_of, seen.feed_of_lane, seen.limits,
                self._settings, self.run, self._levels, self.slots, self.links, self.bars,
                self.timers, self.heaps, self.entries, self._texts, self._bytes, self._dirty,
                self.forgotten, self.rows, self.out,
            )  # fmt: skip
        return found

    def set_source(self, source: str) -> None:
        """Set where the records of the partition come from."""
        text = self._texts[a.SOURCE]
        if self._bytes[text["first"] : text["after"]].tobytes() != _avro(source):
            text["first"] = self._byte_count
            self._put_bytes(_avro(source))
            text["after"] = self._byte_count

    def slot(self, symbol: str) -> int:
        """Return the slot of a symbol that the feeds know, made if there is none."""
        slot = self.observed.slots.get(symbol)
        if slot is not None:
            return slot
        slot = self.observed.slot(symbol)
        if slot >= len(self.slots):
            self.slots, self.links = grown(self.slots, 2 * slot), grown(self.links, 2 * slot)
            self._arrays = None
        self.know_feeds()
        known = self.slots[slot]
        known["is_native"] = 1
        known["key"] = self._key(symbol)
        self.links["newest"][slot] = self.links["oldest"][slot] = a.NONE
        self.links["current"][slot] = a.NONE
        self.links["forgotten_until"][slot] = BEGINNING
        self._order(symbol)
        return slot

    def know_feeds(self) -> None:
        """Give feeds that are new timers, which are due at once, and heaps."""
        names = self.observed.feed_names
        while self._feeds < len(names):
            feed = self._feeds
            self._feeds += 1
            if feed >= len(self.timers):
                self.timers, self.heaps = grown(self.timers, 2 * feed), grown(self.heaps, 4 * feed)
            timer = self.timers[feed]
            timer["boundary"] = timer["tick"] = BEGINNING
            timer["general_end"] = timer["general_closed"] = FOREVER
            timer["key"] = self._key(names[feed])
            self.observed.feeds[feed]["due"] = BEGINNING
            for number in (2 * feed, 2 * feed + 1):
                self._grow_heap(number, _LEAST_ENTRIES)
            self._arrays = None

    def reserve(self, bars: int, feed: int) -> None:
        """Make room for so many bars more, and for their entries in a feed's heaps."""
        if self.run[0]["free_count"] < bars:
            self._grow_bars(max(bars, len(self.bars)))
        for number in (2 * feed, 2 * feed + 1):
            heap = self.heaps[number]
            if heap["size"] + bars >= heap["room"]:
                self._grow_heap(number, int(heap["room"]) + max(bars, int(heap["room"])))

    def make_room(self) -> None:
        """Make room for the bars of one more trade, of any feed, or of one more closing bar."""
        levels = int(self._settings[0]["levels"]) + 1
        for feed in range(self._feeds):
            self.reserve(levels, feed)

    def has_bars(self, symbol: str) -> bool:
        """Return whether a symbol has bars in the arrays."""
        slot = self.observed.slots.get(symbol)
        return slot is not None and bool((self.links["newest"][slot] != a.NONE).any())

    def lift(self, symbol: str) -> list[TimeBar]:
        """Take the bars of a symbol out of the arrays; it is the general path's from then on."""
        slot = self.observed.slots[symbol]
        found = np.zeros(64, a.BAR)
        count = lift(slot, found, self.arrays)
        if count > len(found):
            found = np.zeros(count, a.BAR)
            lift(slot, found, self.arrays)
        known = self.slots[slot]
        known["is_native"] = 0
        known["session_start"] = known["session_end"] = 0
        return [
            time_bar_of(
                row, symbol, int(known["price_scale"]), int(known["volume_scale"]),
                bool(self._levels[row["level"]]["is_session"]),
            )
            for row in found[:count]
        ]  # fmt: skip

    def place(self, symbol: str, bars: Sequence[TimeBar], forgotten_until: Iterable[int]) -> bool:
        """Take the bars of a symbol from the general path; return False, and take none, if their
        numbers do not fit. `forgotten_until` has the latest start of a forgotten bar per level."""
        slot = self.slot(symbol)
        found = rows_of(slot, bars)
        if found is None:
            return False
        rows, price_scale, volume_scale = found
        known = self.slots[slot]
        known["price_scale"], known["volume_scale"] = price_scale, volume_scale
        known["is_native"] = 1
        self.note_forgotten(symbol, forgotten_until)
        self.reserve(len(rows), int(self.observed.symbols[slot]["feed"]))
        scales = np.full((len(rows), 2), (price_scale, volume_scale), np.int8)
        place(rows, scales, self.arrays)
        return True

    def make_general(self, symbol: str) -> None:
        """Have the kernels stop at a symbol, which has no bars in the arrays."""
        self.slots[self.slot(symbol)]["is_native"] = 0

    def note_forgotten(self, symbol: str, forgotten_until: Iterable[int]) -> None:
        """Set the latest start of a forgotten bar of a symbol, per level."""
        self.links["forgotten_until"][self.slot(symbol)] = list(forgotten_until)

    def watch_general(self, feed: int, bar: TimeBar | None) -> None:
        """Set the next bar of the general path that waits for a feed's event time."""
        timer = self.timers[feed]
        timer["general_end"] = FOREVER
        if bar is not None:
            timer["general_end"], timer["general_start"] = bar.end, bar.start
            timer["general_level"] = bar.level
            timer["general_order"] = self.slots[self.slot(bar.symbol)]["order"]

    def set_session(self, slot: int, session: tuple[int, int, int | None]) -> None:
        """Set the session of a symbol for [start, end), with its trade date or None for none."""
        known = self.slots[slot]
        known["session_start"], known["session_end"], trade_date = session
        known["has_session"] = trade_date is not None
        known["trade_date"] = a.NONE if trade_date is None else trade_date

    def pairs_changed(self) -> Iterator[NumberedPairs]:
        """Yield what the state topic must have of the bars that changed, and forget it."""
        first, total = 0, int(self.run[0]["dirty"])
        most = a.ROW_BYTES + 2 * max(map(len, self.keys), default=0)
        ends = np.empty(min(total, _DUMPED_AT_ONCE), np.int64)
        out = np.empty(max(most, _DUMPED_BYTES * len(ends)), np.uint8)
        while first < total:
            after = dump(first, out, ends, self.arrays)
            found = ends[: after - first]
            sizes = np.diff(found, prepend=0)
            kept = sizes > 0
            yield NumberedPairs(
                BAR_KEY,
                _number_of,
                self._dirty[first:after][kept].astype(np.int64),
                sizes[kept],
                sizes[kept] == stored.REMOVED_BYTES,
                out[: found[-1]].tobytes(),
            )
            first = after
        self.run[0]["dirty"] = 0

    def load(self, entries: Mapping[bytes, bytes]) -> None:
        """Take the bars that `entries_changed` yielded; raises StateTooNew."""
        keys = [key for key in entries if key.startswith(BAR_KEY)]
        rows, scales, symbols = read_entries([entries[key] for key in keys])
        if not keys:
            return
        # the records keep their numbers, by which the state topic knows them
        numbers = np.array([int.from_bytes(key[1:], "big") for key in keys])
        for symbol in sorted(set(symbols)):
            self.slot(symbol)
        rows["slot"] = [self.observed.slots[symbol] for symbol in symbols]
        for scale, name in enumerate(("price_scale", "volume_scale")):
            np.maximum.at(self.slots[name], rows["slot"], scales[:, scale])
        waiting = np.bincount(self.observed.symbols["feed"][rows["slot"]], minlength=self._feeds)
        for feed, count in enumerate(waiting.tolist()):
            self.reserve(count, feed)
        if int(numbers.max()) >= len(self.bars):
            self._grow_bars(int(numbers.max()) + 1 - len(self.bars))
        taken = set(numbers.tolist())
        free = [number for number in range(len(self.bars)) if number not in taken]
        chain = [*numbers.tolist(), *free]
        self.bars["older"][chain[:-1]] = chain[1:]
        self.bars["older"][chain[-1]] = a.NONE
        self.run["free"] = chain[0]
        place(rows, scales, self.arrays)
        self.bars["stored"][numbers] = 1
        self.bars["dirty"][numbers] = 0
        self.run["dirty"] = 0

    def _grow_bars(self, more: int) -> None:
        count = len(self.bars)
        self.bars = grown(self.bars, count + more)
        self._dirty = grown(self._dirty, count + more)
        self.bars["level"][count:] = a.NONE
        self.bars["older"][count:] = [*range(count + 1, count + more), int(self.run["free"][0])]
        self.run["free"] = count
        self.run["free_count"] += more
        self._arrays = None

    def _grow_heap(self, number: int, room: int) -> None:
        """Move a heap to the end of the entries; when most of these are unused, move all."""
        heaps, used = self.heaps, int(self.heaps["room"].sum())
        if len(self.entries) > 2 * (used + room):
            bases = np.argsort(heaps["base"], kind="stable")
            packed = [self._entries_of(each) for each in bases.tolist()]
            at = 0
            fresh = np.zeros(used, a.ENTRY)
            for each, found in zip(bases.tolist(), packed, strict=True):
                fresh[at : at + len(found)] = found
                heaps[each]["base"] = at
                at += int(heaps[each]["room"])
            self.entries = fresh
        found = self._entries_of(number)
        base = len(self.entries)
        self.entries = grown(self.entries, base + room)
        self.entries[base : base + len(found)] = found
        heaps[number]["base"], heaps[number]["room"] = base, room
        self._arrays = None

    def _entries_of(self, number: int) -> Array:
        heap = self.heaps[number]
        base = int(heap["base"])
        return self.entries[base : base + int(heap["size"])].copy()

    def _order(self, symbol: str) -> None:
        slots, ordered = self.observed.slots, self._ordered
        at = bisect_left(ordered, symbol)
        ordered.insert(at, symbol)
        before = self._order_of(ordered[at - 1]) if at else None
        after = self._order_of(ordered[at + 1]) if at + 1 < len(ordered) else None
        if before is None and after is None:
            order = 0
        elif after is None:
            assert before is not None
            order = before + _SPACING
        elif before is None:
            order = after - _SPACING
        else:
            order = (before + after) // 2
        if order == before or abs(order) >= 1 << 62:
            for number, name in enumerate(ordered):
                self.slots[slots[name]]["order"] = number * _SPACING
        else:
            self.slots[slots[symbol]]["order"] = order

    def _order_of(self, symbol: str) -> int:
        return int(self.slots[self.observed.slots[symbol]]["order"])

    def _key(self, name: str) -> int:
        self.names.append(name)
        self.keys.append(name.encode())
        self._add_text(name)
        # all rows of one trade must fit into `out`
        levels = int(self._settings[0]["levels"])
        needed = (levels + 1) * (a.ROW_BYTES + len(_avro(name)))
        if needed > len(self.out):
            self.out = np.zeros(2 * needed, np.uint8)
            self._arrays = None
        return len(self.names) - 1

    def _add_text(self, text: str) -> None:
        if self._text_count == len(self._texts):
            self._texts = grown(self._texts, 2 * self._text_count)
            self._arrays = None
        entry = self._texts[self._text_count]
        entry["first"] = self._byte_count
        self._put_bytes(_avro(text))
        entry["after"] = self._byte_count
        self._text_count += 1

    def _put_bytes(self, data: bytes) -> None:
        after = self._byte_count + len(data)
        if after > len(self._bytes):
            self._bytes = grown(self._bytes, 2 * after)
            self._arrays = None
        self._bytes[self._byte_count : after] = np.frombuffer(data, np.uint8)
        self._byte_count = after


def time_bars_of(entries: Mapping[bytes, bytes], ladder: Ladder) -> Iterator[tuple[bytes, TimeBar]]:
    """Yield the keys and bars of entries that kernels have written, for the general path; raises
    StateTooNew."""
    keys = [key for key in entries if key.startswith(BAR_KEY)]
    rows, scales, symbols = read_entries([entries[key] for key in keys])
    for key, row, scale, symbol in zip(keys, rows, scales.tolist(), symbols, strict=True):
        dated = ladder.intervals[row["level"]].is_session
        price_scale, volume_scale = scale
        yield key, time_bar_of(row, symbol, price_scale, volume_scale, dated)


def read_entries(values: Sequence[bytes]) -> tuple[Array, Array, list[str]]:
    """Return the bars of entries of the state topic as BAR, their price and volume scales, and
    their symbols; raises StateTooNew."""
    rows, scales = np.zeros(len(values), a.BAR), np.zeros((len(values), 2), np.int8)
    symbols: list[str] = []
    starts = np.zeros(len(values), np.int64)
    at = 0
    for number, value in enumerate(values):
        size = int.from_bytes(value[:3], "big") + 3
        symbols.append(value[3:size].decode())
        if value[size] > VERSION:
            raise StateTooNew(value[size])
        starts[number] = at + size
        at += len(value)
    restore(np.frombuffer(b"".join(values), np.uint8), starts, rows, scales)
    return rows, scales, symbols


def _number_of(key: bytes) -> int:
    return int.from_bytes(key[1:], "big")


def _levels_of(ladder: Ladder) -> Array:
    levels = np.zeros(len(ladder.intervals), a.LEVEL)
    levels["first_child"] = levels["sibling"] = levels["skip"] = a.NONE
    for level, interval in enumerate(ladder.intervals):
        levels[level]["length"] = interval.length_ms
        levels[level]["is_session"] = interval.is_session
        levels[level]["is_root"] = level in ladder.roots
    # from the finest on: a level's own `skip` is set before its children take it over
    for level, coarser in enumerate(ladder.coarser):
        for child, sibling in zip(coarser, (*coarser[1:], a.NONE), strict=False):
            levels[child]["sibling"] = sibling
            levels[child]["skip"] = levels[level]["skip"] if sibling == a.NONE else sibling
        if coarser:
            levels[level]["first_child"] = coarser[0]
    return levels


def _avro(text: str) -> bytes:
    data = text.encode()
    size, head = 2 * len(data), b""
    while size >= 0x80:
        head += bytes([size & 0x7F | 0x80])
        size >>= 7
    return head + bytes([size]) + data
