"""Bars of streams that have had no kline yet, by kernels: most bars of most markets.

An object for each would be a kilobyte: 5,000 symbols have 300,000 that wait. Here a bar is a
hundred bytes in a segment, which the state topic has as one value; with its first kline a stream is
lifted out.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from processors.kernels.avro.read import NOTHING
from processors.kernels.columns import Array, Tables
from processors.kernels.numbered_pairs import gathered
from processors.kernels.observed import grown
from processors.kernels.waiting.bars import (
    DONE,
    FULL,
    PLACE,
    SEEN,
    SETTINGS,
    STREAM,
    UNKNOWN_STREAM,
    Waiting,
    scan,
    take_bars,
)
from processors.kernels.waiting.run import SHORT_FORM, BarRun, bar_of
from processors.model.observation import BEGINNING
from processors.model.records import BarRevision
from schemas.errors import InfowayError
from schemas.wire import compile_decoder

_KEY = b"bars:"
_VERSION = b"\1"
_LEAST_BYTES, MOST_BYTES = 1 << 14, 1 << 18
"""Of a segment; it is a value of the state topic."""
SLACK_BYTES = 1 << 16
"""Of bars that are gone which are left alone, however few are left."""
_behind = [{"name": name, "type": "long"} for name in ("offset", "expired")]
_decode = compile_decoder({"fields": [*SHORT_FORM["fields"], *_behind]})
_LEAST_BAR = 24
"""Bytes that a bar takes at least: six decimals, five longs, two texts."""


class WaitingFromTheFuture(InfowayError):
    """Bars in the state topic were written by a version that this one does not know."""

    def __init__(self, key: bytes, version: bytes) -> None:
        super().__init__(
            f"the state {key.decode()!r} has the form {version.hex()}, this version reads "
            f"{_VERSION.hex()}: start the version that wrote it, or compute anew under a fresh "
            "prefix"
        )


class Lifted(NamedTuple):
    """A stream that is the general path's from now on."""

    closed: int
    expired: int
    bars: list[BarRevision]


class WaitingBars:
    """Those of one partition and interval."""

    def __init__(
        self,
        interval: str,
        kept: int,
        wait_ms: int,
        hour_ms: int,
        is_general: Callable[[str, str], bool],
        entries: Mapping[bytes, bytes],
    ) -> None:
        """`kept` bars of a stream are kept at least, none that ended `wait_ms` before the latest.
        `is_general` says of a symbol and the interval whether the general path has the stream.
        Restores what `dirty` yielded; raises WaitingFromTheFuture."""
        self._interval = interval
        self._is_general = is_general
        self._slots: dict[str, int] = {}
        self._tables = Tables()
        self._known = 0
        self._slot_of = np.full(64, -1, np.int32)
        self._streams = np.zeros(64, STREAM)
        self._places = np.zeros((64, kept + 1), PLACE)
        self._live = np.zeros(16, np.int64)
        self._opened = np.zeros(_LEAST_BYTES, np.uint8)
        self._settings = np.zeros(1, SETTINGS)
        setting = self._settings[0]
        setting["kept"], setting["wait"], setting["hour"] = kept, wait_ms, hour_ms
        self._segments: dict[int, bytes] = {}
        """Those that are closed, in order."""
        self._total = 0
        """Bytes of them."""
        self._unwritten: set[int] = set()
        self._changed = False
        self._free: list[int] = []
        self._restore(entries)
        self._open()

    def take(self, run: BarRun, index: int) -> int:
        """Take the bars of a run from an index on; return that of the first one whose stream the
        general path has, or the run's length."""
        self._follow(run.tables)
        self._changed = True
        while True:
            index, reason = take_bars(run.bars, index, run.short, self._arrays())
            if reason == DONE:
                return index
            if reason == UNKNOWN_STREAM:
                symbol = run.tables.symbols[int(run.bars["symbol"][index])]
                if symbol in self._slots or self._is_general(symbol, self._interval):
                    return index
                self._slot_of[int(run.bars["symbol"][index])] = self._make(symbol)
            elif reason == FULL:
                self._widen(2 * self._places.shape[1])
            elif len(self._opened) < MOST_BYTES or self._settings["used"] == 1:
                self._opened = grown(self._opened, 2 * len(self._opened))
            else:
                self._close()
                self._open()

    @property
    def tables(self) -> Tables:
        """The tables of the last run, for a run of a single bar."""
        return self._tables

    def lift(self, symbol: str) -> Lifted | None:
        """Take a stream out of the arrays; None if it is not there."""
        slot = self._slots.get(symbol)
        if slot is None or not self._streams[slot]["waits"]:
            return None
        stream = self._streams[slot]
        bars = []
        for place in self._places[slot, : int(stream["count"])]:
            packed = self._bytes_of(int(place["segment"]))
            at, size = int(place["at"]), int(place["size"])
            self._live[int(place["segment"])] -= size
            bars.append(self._bar(packed[at : at + size]))
        stream["waits"] = stream["count"] = 0
        self._changed = True
        return Lifted(int(stream["closed"]), int(stream["expired"]), bars)

    def names(self) -> list[str]:
        """Return the symbols whose streams are here."""
        return [name for name, slot in self._slots.items() if self._streams[slot]["waits"]]

    def dirty(self) -> Iterator[tuple[bytes, bytes | None]]:
        """Yield the segments that changed since the last call, and forget it."""
        if not self._changed:
            return
        self._changed = False
        self._clean()
        self._close()
        self._open()
        numbers = np.fromiter(self._segments, np.int64, len(self._segments))
        for number in numbers[self._live[numbers] == 0].tolist():
            self._total -= len(self._segments.pop(number))
            if number in self._unwritten:
                self._unwritten.discard(number)
            else:
                yield self._key(number), None
            self._free.append(number)
        for number in sorted(self._unwritten):
            yield self._key(number), self._segments[number]
        self._unwritten.clear()

    def _key(self, number: int) -> bytes:
        return b"%b%b:%d" % (_KEY, self._interval.encode(), number)

    def _arrays(self) -> Waiting:
        return Waiting(
            self._slot_of, self._streams, self._places, self._live, self._opened, self._settings
        )

    def _follow(self, tables: Tables) -> None:
        if tables is not self._tables:
            self._tables, self._known = tables, 0
        while self._known < len(tables.symbols):
            if self._known == len(self._slot_of):
                self._slot_of = grown(self._slot_of, 2 * self._known)
            self._slot_of[self._known] = self._slots.get(tables.symbols[self._known], -1)
            self._known += 1

    def _make(self, symbol: str) -> int:
        slot = self._slots[symbol] = len(self._slots)
        if slot == len(self._streams):
            self._streams = grown(self._streams, 2 * slot)
            self._places = grown(self._places, 2 * slot)
        self._streams[slot] = BEGINNING, BEGINNING, 0, 1
        return slot

    def _widen(self, columns: int) -> None:
        wider = np.zeros((len(self._places), columns), PLACE)
        wider[:, : self._places.shape[1]] = self._places
        self._places = wider

    # segments

    def _open(self) -> None:
        """Begin a segment."""
        number = self._free.pop() if self._free else len(self._segments)
        if number >= len(self._live):
            self._live = grown(self._live, 2 * number)
        self._live[number] = 0
        self._opened[0] = _VERSION[0]
        self._settings["segment"], self._settings["used"] = number, 1

    def _close(self) -> None:
        """End the open segment; one without a bar is none."""
        number = int(self._settings["segment"][0])
        if self._live[number] == 0:
            self._free.append(number)
            return
        self._segments[number] = segment = self._bytes_of(number)
        self._total += len(segment)
        self._unwritten.add(number)

    def _bytes_of(self, number: int) -> bytes:
        found = self._segments.get(number)
        if found is None:
            found = self._opened[: int(self._settings["used"][0])].tobytes()
        return found

    def _clean(self) -> None:
        """Move what is left of the oldest segments into the open one, once most is gone."""
        total = self._total
        if total <= SLACK_BYTES:
            return
        live = int(self._live[list(self._segments)].sum())
        for number, segment in list(self._segments.items()):
            if total <= 2 * live + SLACK_BYTES:
                return
            total, live = total - len(segment), live - int(self._live[number])
            self._move(number, segment)

    def _move(self, number: int, segment: bytes) -> None:
        counts = self._streams["count"][: len(self._slots), np.newaxis]
        places = self._places[: len(self._slots)]
        used = np.arange(places.shape[1]) < counts
        at = np.nonzero(used & (places["segment"] == number))
        if not len(at[0]):
            return
        sizes = places["size"][at].astype(np.int64)
        first, total = int(self._settings["used"][0]), int(sizes.sum())
        if first + total > MOST_BYTES:
            self._close()
            self._open()
            first = 1
        if first + total > len(self._opened):
            self._opened = grown(self._opened, max(first + total, 2 * len(self._opened)))
        moved = gathered(segment, places["at"][at].astype(np.int64), sizes)
        self._opened[first : first + total] = np.frombuffer(moved, np.uint8)
        self._settings["used"] = first + total
        into = int(self._settings["segment"][0])
        self._places["at"][at] = first + np.cumsum(sizes) - sizes
        self._places["segment"][at] = into
        self._live[number] -= total
        self._live[into] += total

    def _bar(self, stored: bytes) -> BarRevision:
        found = _decode(bytes(5) + stored)
        return bar_of(found, found["offset"], self._interval, "")

    # the state topic

    def _seen(self, segment: bytes) -> Array:
        seen = np.zeros(len(segment) // _LEAST_BAR + 1, SEEN)
        count = scan(np.frombuffer(segment, np.uint8), seen)
        if count == NOTHING:
            raise ValueError(f"bars that wait for klines cannot be read: {segment[:40].hex()}")
        return seen[:count]

    def _restore(self, entries: Mapping[bytes, bytes]) -> None:
        prefix = b"%b%b:" % (_KEY, self._interval.encode())
        slots, parts, numbers = [], [], []
        for key, segment in entries.items():
            if not key.startswith(prefix):
                continue
            if segment[:1] != _VERSION:
                raise WaitingFromTheFuture(key, segment[:1])
            number = int(key.removeprefix(prefix))
            self._segments[number] = segment
            self._total += len(segment)
            seen = self._seen(segment)
            for first, after in zip(seen["name"].tolist(), seen["name_end"].tolist(), strict=True):
                name = segment[first:after].decode()
                slot = self._slots.get(name)
                if slot is None:
                    slot = self._make(name)
                    self._streams[slot]["waits"] = not self._is_general(name, self._interval)
                slots.append(slot)
            parts.append(seen)
            numbers += [number] * len(seen)
        most = max(self._segments, default=-1) + 1
        self._free = [number for number in range(most) if number not in self._segments]
        self._segments = dict(sorted(self._segments.items()))
        self._live = grown(self._live, max(len(self._live), 2 * most))
        if parts:
            self._restore_bars(np.array(slots), np.concatenate(parts), np.array(numbers))

    def _restore_bars(self, slots: Array, seen: Array, numbers: Array) -> None:
        np.maximum.at(self._streams["closed"], slots, seen["end"])
        np.maximum.at(self._streams["expired"], slots, seen["expired"])
        order = np.lexsort((seen["offset"], seen["start"], slots))
        slots, seen, numbers = slots[order], seen[order], numbers[order]
        is_last = np.ones(len(slots), np.bool_)
        is_last[:-1] = (slots[1:] != slots[:-1]) | (seen["start"][1:] != seen["start"][:-1])
        left = is_last & (self._streams["waits"][slots] != 0)
        left &= seen["end"] > self._streams["expired"][slots]
        slots, seen, numbers = slots[left], seen[left], numbers[left]
        counts = np.bincount(slots, minlength=len(self._streams))
        self._streams["count"] = counts
        if counts.max() >= self._places.shape[1]:
            self._widen(int(counts.max()) + 1)
        at = np.arange(len(slots)) - (np.cumsum(counts) - counts)[slots]
        for name, column in (
            ("start", seen["start"]), ("end", seen["end"]), ("at", seen["at"]),
            ("size", seen["size"]), ("segment", numbers),
        ):  # fmt: skip
            self._places[name][slots, at] = column
        np.add.at(self._live, numbers, seen["size"])
