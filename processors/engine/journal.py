"""An agent's state in its state topic: many keys and values to a Kafka record, in the way of a log.

Each transaction appends one record, or few. A record's Kafka key is a slot; its value has the
record's number, the number of the oldest record that still counts, and pairs of the state. Once
less than half of the log is live, the oldest record's live pairs are written again and its slot is
free for a later record. So the number of keys in the topic stays bounded without tombstones.

Numbered pairs come from kernels, thousands at once. The journal keeps them as bytes, and in arrays
by their numbers where each one lies.
"""

import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from processors.kernels.columns import Array
from processors.kernels.numbered_pairs import PAIR, REMOVED, NumberedPairs, gathered, pairs_in
from processors.kernels.observed import grown

PREFIX = b"\0journal:"
"""Of the Kafka keys of these records; the slot follows as decimal digits."""
MOST_BYTES = 500_000
"""Of a record, unless a single pair is larger: brokers take a million."""
SLACK_BYTES = 512 * 1024
"""Of dead pairs that are left alone, however little is live."""

_VERSION = 1
_HEAD = struct.Struct(">BQQ")
"""Version, number of the record, number of the oldest record that counts."""
_LEAST_MOVED = 128 * 1024
_MOST_MIGRATED = 20_000
_SPARE_SLOTS = 64

Pairs = dict[bytes, bytes]
Written = list[tuple[bytes, bytes | None]]
"""Keys and values of Kafka records; None is a tombstone."""
Changes = Iterable[tuple[bytes, bytes | None] | NumberedPairs]


class UnknownJournal(ValueError):
    """A record of a state topic that this version does not read."""

    def __init__(self, key: bytes, value: bytes) -> None:
        super().__init__(
            f"record {key[:40]!r} begins with {value[:1]!r}, and this version reads version "
            f"{_VERSION}: run the version that wrote it, or compute anew under a fresh prefix"
        )


class _Places(NamedTuple):
    """Where the numbered pairs of one kind lie in the bytes of a record."""

    prefix: bytes
    numbers: Array
    starts: Array
    sizes: Array


@dataclass(slots=True)
class _JournalRecord:
    number: int
    slot: int
    size: int
    live: Pairs
    packed: bytes = b""
    """Numbered pairs, those that are dead by now too."""
    places: list[_Places] = field(default_factory=list)


@dataclass(slots=True)
class _Kind:
    """Where the live numbered pairs of one kind are, by their numbers."""

    number_of: Callable[[bytes], int]
    holder: Array = field(default_factory=lambda: np.full(64, _NOWHERE, np.int64))
    """The number of the record."""
    sizes: Array = field(default_factory=lambda: np.zeros(64, np.int64))

    def has(self, number: int) -> bool:
        """Return whether the pair of a number is live."""
        return number < len(self.holder) and bool(self.holder[number] != _NOWHERE)

    def reserve(self, most: int) -> None:
        """Make room for numbers up to this."""
        length = len(self.holder)
        if most >= length:
            self.holder = grown(self.holder, 2 * most)
            self.holder[length:] = _NOWHERE
            self.sizes = grown(self.sizes, 2 * most)


_NOWHERE = -1


class _Part(NamedTuple):
    """What one record is to have."""

    pairs: list[tuple[bytes, bytes | None]]
    numbered: list[NumberedPairs]


class Journal:
    """The live pairs of one agent and partition, and the records that hold them.

    What is written is taken for committed: the worker ends where it is not.
    """

    def __init__(self) -> None:
        self._records: deque[_JournalRecord] = deque()
        """Those that count, by their numbers."""
        self._holder: dict[bytes, _JournalRecord] = {}
        """The record that holds each live key."""
        self._plain: Pairs = {}
        """Live pairs that are Kafka records of their own, as the version before wrote them."""
        self._kinds: dict[bytes, _Kind] = {}
        """By prefix."""
        self._free: list[int] = []
        self._next_slot = self._next_number = 0
        self.live_bytes = 0
        self.total_bytes = 0
        """Of the records that count, dead pairs included."""

    @classmethod
    def restored(cls, entries: Mapping[bytes, bytes]) -> "Journal":
        """Return the journal of a state topic's live entries, without the engine's own. Raises
        UnknownJournal."""
        journal = cls()
        found: list[tuple[int, int, bytes]] = []
        oldest = -1
        for key, value in entries.items():
            if not key.startswith(PREFIX):
                journal._plain[key] = value
                continue
            if value[:1] != bytes([_VERSION]):
                raise UnknownJournal(key, value)
            _, number, counts_from = _HEAD.unpack_from(value)
            found.append((number, int(key.removeprefix(PREFIX)), value))
            oldest = max(oldest, counts_from)
        for number, slot, value in sorted(found):
            journal._next_slot = max(journal._next_slot, slot + 1)
            journal._next_number = number + 1
            if number < oldest:
                journal._free.append(slot)
            else:
                journal._append(
                    _JournalRecord(number, slot, len(value), {}), pairs_in(value, _HEAD.size)
                )
        return journal

    def pairs(self) -> Pairs:
        """Return the live pairs."""
        found = dict(self._plain)
        for record in self._records:
            found |= record.live
            for places in record.places:
                for key, value in pairs_in(self._live_of(record, places).packed):
                    assert value is not None
                    found[key] = value
        return found

    def written(self, changes: Changes) -> Written:
        """Take changed pairs, at most one a key, and return the Kafka records to write; a value of
        None removes the key."""
        written: Written = []
        numbered: list[NumberedPairs] = []
        changed = self._changed(changes, written, numbered)
        self._migrate(changed, written)
        self._clean(changed, numbered)
        if changed or numbered:
            self._write(changed, numbered, written)
        while len(self._free) > 2 * len(self._records) + _SPARE_SLOTS:
            written.append((_key(self._free.pop(0)), None))
        return written

    def _changed(
        self, changes: Changes, written: Written, numbered: list[NumberedPairs]
    ) -> dict[bytes, bytes | None]:
        changed: dict[bytes, bytes | None] = {}
        plain: list[NumberedPairs] = []
        for change in changes:
            if isinstance(change, NumberedPairs):
                if len(change.numbers):
                    plain += self._kind_of(change, written)
                    self._forget_numbers(change)
                    numbered.append(change)
                continue
            key, value = change
            if self._kinds and (prefix := self._prefix_of(key)) is not None:
                kind = self._kinds[prefix]
                if value is not None or kind.has(kind.number_of(key)):
                    one = _numbered(prefix, kind.number_of, {key: value})
                    self._forget_numbers(one)
                    numbered.append(one)
                continue
            holder = self._holder.get(key)
            if holder is not None:
                if holder.live[key] == value:
                    continue
                self._forget(key, holder)
            elif key in self._plain:
                del self._plain[key]
                written.append((key, None))
                if value is None:
                    continue
            elif value is None and key not in changed:
                continue
            changed[key] = value
        for pairs in plain:
            new = [each.numbers for each in numbered if each.prefix == pairs.prefix]
            left = pairs.chosen(~np.isin(pairs.numbers, np.concatenate(new)))
            if len(left.numbers):
                numbered.append(left)
        return changed

    def _migrate(self, changed: dict[bytes, bytes | None], written: Written) -> None:
        """Take over pairs of the version before; a transaction must not get too long by them."""
        for key in list(self._plain)[:_MOST_MIGRATED]:
            changed[key] = self._plain.pop(key)
            written.append((key, None))

    def _clean(self, changed: dict[bytes, bytes | None], numbered: list[NumberedPairs]) -> None:
        """Free the oldest records, whose live pairs are written again: in steps that are as large
        as what is written anyway, so that no transaction gets long by it."""
        new = sum(_size(key, value) for key, value in changed.items())
        live = self.live_bytes + sum(
            _size(key, value) for key, value in changed.items() if value is not None
        )
        for pairs in numbered:
            new += len(pairs.packed)
            live += int(pairs.sizes[~pairs.removed].sum())
        moved, most_moved = 0, max(2 * new, _LEAST_MOVED)
        while self._records:
            oldest = self._records[0]
            if oldest.live or any(self._lives(oldest, places).any() for places in oldest.places):
                wasteful = self.total_bytes + new + moved > 2 * live + SLACK_BYTES
                if not wasteful or moved >= most_moved:
                    break
                for key, value in list(oldest.live.items()):
                    self._forget(key, oldest)
                    changed[key] = value
                    moved += _size(key, value)
                for places in oldest.places:
                    left = self._live_of(oldest, places)
                    if len(left.numbers):
                        self._forget_numbers(left)
                        numbered.append(left)
                        moved += len(left.packed)
            self._records.popleft()
            self.total_bytes -= oldest.size
            self._free.append(oldest.slot)

    def _write(
        self,
        changed: Mapping[bytes, bytes | None],
        numbered: Iterable[NumberedPairs],
        written: Written,
    ) -> None:
        counts_from = self._records[0].number if self._records else self._next_number
        for part in _parted(changed, numbered):
            head = _HEAD.pack(_VERSION, self._next_number, counts_from)
            packed = (pairs.packed for pairs in part.numbered)
            value = b"".join((head, *_encoded(part.pairs), *packed))
            if self._free:
                slot = self._free.pop()
            else:
                slot, self._next_slot = self._next_slot, self._next_slot + 1
            record = _JournalRecord(self._next_number, slot, len(value), {})
            self._append(record, part.pairs)
            self._place(record, part.numbered)
            self._next_number += 1
            written.append((_key(slot), value))

    def _append(self, record: _JournalRecord, pairs: Iterable[tuple[bytes, bytes | None]]) -> None:
        self._records.append(record)
        self.total_bytes += record.size
        for key, value in pairs:
            if (holder := self._holder.get(key)) is not None:
                self._forget(key, holder)
            if value is not None:
                self._holder[key] = record
                # a copy: what orjson returns keeps the 4 KB that it was written into
                record.live[key] = memoryview(value).tobytes()
                self.live_bytes += _size(key, value)

    def _place(self, record: _JournalRecord, numbered: Iterable[NumberedPairs]) -> None:
        """Keep numbered pairs of a record, and remember where they are."""
        numbered = list(numbered)
        before = len(record.packed)
        record.packed = b"".join([record.packed, *(pairs.packed for pairs in numbered)])
        for pairs in numbered:
            kind, kept = self._kinds[pairs.prefix], ~pairs.removed
            kind.reserve(int(pairs.numbers.max()))
            numbers, sizes = pairs.numbers[kept], pairs.sizes[kept]
            starts = (before + np.cumsum(pairs.sizes) - pairs.sizes)[kept]
            before += len(pairs.packed)
            kind.holder[numbers], kind.sizes[numbers] = record.number, sizes
            self.live_bytes += int(sizes.sum())
            record.places.append(_Places(pairs.prefix, numbers, starts, sizes))

    def _lives(self, record: _JournalRecord, places: _Places) -> Array:
        """Return of each pair of a record whether it is live."""
        lives: Array = self._kinds[places.prefix].holder[places.numbers] == record.number
        return lives

    def _live_of(self, record: _JournalRecord, places: _Places) -> NumberedPairs:
        """Return the pairs of a record that are live."""
        kind, live = self._kinds[places.prefix], self._lives(record, places)
        numbers, sizes = places.numbers[live], places.sizes[live]
        packed = gathered(record.packed, places.starts[live], sizes)
        removed = np.zeros(len(numbers), np.bool_)
        return NumberedPairs(places.prefix, kind.number_of, numbers, sizes, removed, packed)

    def _forget(self, key: bytes, holder: _JournalRecord) -> None:
        del self._holder[key]
        self.live_bytes -= _size(key, holder.live.pop(key))

    def _forget_numbers(self, pairs: NumberedPairs) -> None:
        kind = self._kinds[pairs.prefix]
        kind.reserve(int(pairs.numbers.max()))
        numbers = pairs.numbers[kind.holder[pairs.numbers] != _NOWHERE]
        self.live_bytes -= int(kind.sizes[numbers].sum())
        kind.holder[numbers] = _NOWHERE

    def _prefix_of(self, key: bytes) -> bytes | None:
        return next((prefix for prefix in self._kinds if key.startswith(prefix)), None)

    def _kind_of(self, pairs: NumberedPairs, written: Written) -> list[NumberedPairs]:
        """Begin a kind with what was restored of it, if it is new; return those of its pairs that
        were Kafka records of their own."""
        if pairs.prefix in self._kinds:
            return []
        self._kinds[pairs.prefix] = _Kind(pairs.number_of)
        for record in self._records:
            found = _of_prefix(pairs.prefix, record.live)
            for key in found:
                self._forget(key, record)
            if found:
                self._place(record, [_numbered(pairs.prefix, pairs.number_of, found)])
        plain = _of_prefix(pairs.prefix, self._plain)
        for key in plain:
            del self._plain[key]
            written.append((key, None))
        return [_numbered(pairs.prefix, pairs.number_of, plain)] if plain else []


def _of_prefix(prefix: bytes, pairs: Pairs) -> Pairs:
    return {key: value for key, value in pairs.items() if key.startswith(prefix)}


def _numbered(
    prefix: bytes, number_of: Callable[[bytes], int], pairs: Mapping[bytes, bytes | None]
) -> NumberedPairs:
    return NumberedPairs(
        prefix,
        number_of,
        np.array([number_of(key) for key in pairs], np.int64),
        np.array([_size(*pair) for pair in pairs.items()], np.int64),
        np.array([value is None for value in pairs.values()], np.bool_),
        b"".join(_encoded(pairs.items())),
    )


def _key(slot: int) -> bytes:
    return PREFIX + b"%d" % slot


def _size(key: bytes, value: bytes | None) -> int:
    return PAIR.size + len(key) + len(value or b"")


def _parted(
    changed: Mapping[bytes, bytes | None], numbered: Iterable[NumberedPairs]
) -> Iterator[_Part]:
    """Cut the pairs into those of one record each."""
    part, size = _Part([], []), _HEAD.size
    for key, value in changed.items():
        more = _size(key, value)
        if part.pairs and size + more > MOST_BYTES:
            yield part
            part, size = _Part([], []), _HEAD.size
        part.pairs.append((key, value))
        size += more
    for pairs in numbered:
        ends, first = np.cumsum(pairs.sizes), 0
        while first < len(ends):
            begun = int(ends[first - 1]) if first else 0
            after = int(np.searchsorted(ends, begun + MOST_BYTES - size, "right"))
            if after == first and (part.pairs or part.numbered):
                yield part
                part, size = _Part([], []), _HEAD.size
                continue
            after = max(after, first + 1)
            part.numbered.append(pairs.part(first, after))
            size += int(ends[after - 1]) - begun
            first = after
    yield part


def _encoded(pairs: Iterable[tuple[bytes, bytes | None]]) -> Iterator[bytes]:
    for key, value in pairs:
        yield PAIR.pack(len(key), REMOVED if value is None else len(value))
        yield key
        if value is not None:
            yield value
