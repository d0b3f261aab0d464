"""The state topic's form of symbols that kernels have: a value for each symbol, with its open chunk
of trades, and one for each closed chunk.

Values begin with a byte for their version, and are longs in Avro's zigzag (`pack` and
`put_chunk` of `kernels.vwap.state`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from processors.agents.vwap.slots import (
    CHUNK_KEY,
    SYMBOL_KEY,
    Slots,
    StoredSymbol,
    chunk_key,
)
from processors.kernels.columns import Array
from processors.kernels.numbered_pairs import PAIR_BYTES, NumberedPairs
from processors.kernels.vwap.arrays import CHUNK, MOST_PACKED
from processors.kernels.vwap.rolling import ENTRY
from processors.kernels.vwap.state import pack, unpack_chunk
from schemas.errors import InfowayError
from schemas.wire import read_long

VERSION = b"\1"
_PREFIX = np.frombuffer(SYMBOL_KEY, np.uint8)
_SUMS_FIELDS = 14
_SIGN = 1 << 64


class StateFromTheFuture(InfowayError):
    """The state was written by a version that this one does not know."""

    def __init__(self, key: bytes, version: bytes) -> None:
        super().__init__(
            f"the state {key.decode()!r} has the form {version.hex()}, this version reads "
            f"{VERSION.hex()}: start the version that wrote it, or compute anew under a fresh "
            "prefix"
        )


def write(
    slots: Slots, names: Sequence[str], number_of: Callable[[bytes], int]
) -> Iterator[tuple[bytes, bytes | None] | NumberedPairs]:
    """Yield what changed since the last call, and forget it."""
    begin = 0
    closed = slots.closed.tobytes() if slots.written["closings"][0] else b""
    for slot, number, latest, end in slots.closings[: int(slots.written["closings"][0])].tolist():
        if number >= slots.since[slot] and latest > slots.rows["now"][slot] - slots.longest:
            slots.live[slot].append((number, latest))
            yield chunk_key(number, names[slot]), VERSION + closed[begin:end]
        begin = end
    slots.written["closings"] = 0
    rows = slots.rows[: len(slots)]
    chosen = np.flatnonzero((rows["changed"] != 0) & (rows["general"] == 0))
    if len(chosen):
        most = MOST_PACKED + PAIR_BYTES + len(SYMBOL_KEY) + 1 + slots.longest_name
        buffer = np.empty(len(chosen) * most, np.uint8)
        ends = np.empty(len(chosen), np.int64)
        pack(
            slots.rows, slots.sessions, slots.opened, slots.names, _PREFIX, VERSION[0], chosen,
            buffer, ends,
        )  # fmt: skip
        packed = buffer[: int(ends[-1])].tobytes()
        none = np.zeros(len(chosen), np.bool_)
        sizes = np.diff(ends, prepend=0)
        yield NumberedPairs(SYMBOL_KEY, number_of, chosen, sizes, none, packed)
        nows = rows["now"][chosen].tolist()
        for slot, now in zip(chosen.tolist(), nows, strict=True):
            live = slots.live[slot]
            while live and live[0][1] <= now - slots.longest:
                yield chunk_key(live.popleft()[0], names[slot]), None
    rows["changed"] = 0
    yield from ((key, None) for key in sorted(slots.gone))
    slots.gone.clear()


def read(entries: Mapping[bytes, bytes]) -> Iterator[tuple[str, StoredSymbol]]:
    """Yield the symbols of a state; raises StateFromTheFuture."""
    chunks: dict[str, list[tuple[int, bytes]]] = {}
    for key, value in entries.items():
        if key.startswith(CHUNK_KEY):
            written, _, name = key.removeprefix(CHUNK_KEY).partition(b":")
            _check(key, value)
            chunks.setdefault(name.decode(), []).append((int(written), value))
    entry_room, scales = np.zeros(CHUNK, ENTRY), np.zeros(2, np.int64)
    for key, value in entries.items():
        if not key.startswith(SYMBOL_KEY):
            continue
        _check(key, value)
        name_of = key.removeprefix(SYMBOL_KEY).decode()
        at = 1
        head: list[int] = []
        for _ in range(5):
            number_read, at = read_long(value, at)
            head.append(number_read)
        now, ts_recv, most_price, count, used = head
        sessions = []
        for _ in range(used):
            session: list[int] = []
            for index in range(_SUMS_FIELDS):
                number_read, at = read_long(value, at)
                session.append(number_read % _SIGN if index > 4 else number_read)
            sessions.append(session)
        opened = _chunk(value, at, entry_room, scales)
        price_scale, volume_scale = map(int, scales)
        parts, live = [opened], []
        for number, packed in chunks.get(name_of, ()):
            found = _chunk(packed, 1, entry_room, scales)
            live.append((number, int(found["ts"].max())))
            found["price"] *= 10 ** (price_scale - int(scales[0]))
            found["volume"] *= 10 ** (volume_scale - int(scales[1]))
            parts.append(found)
        yield (
            name_of,
            StoredSymbol(
                now, ts_recv, most_price, count, price_scale, volume_scale, opened,
                np.concatenate(parts), sessions, live,
            ),
        )  # fmt: skip


def _chunk(value: bytes, at: int, room: Array, scales: Array) -> Array:
    count = unpack_chunk(np.frombuffer(value, np.uint8), at, room, scales)
    found: Array = room[:count].copy()
    return found


def _check(key: bytes, value: bytes) -> None:
    if value[:1] != VERSION:
        raise StateFromTheFuture(key, value[:1])
