"""The arrays of the symbols that kernels have: rings, windows, sessions, bounds, scales; no feeds
and no rows.

A symbol's mantissas are in two scales of its own. They grow with the digits that its trades show,
and everything that is kept is multiplied up, in place.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isqrt

import numpy as np

from processors.agents.vwap.state import SESSIONS_KEPT, SessionSums, SymbolWindows
from processors.kernels.columns import MOST_MANTISSA, Array, shortest
from processors.kernels.numbers.long_numbers import SCRATCH
from processors.kernels.observed import grown
from processors.kernels.vwap.arrays import CHUNK, CLOSING, COVER, MOST_CHUNK, SESSION, SLOT, WRITTEN
from processors.kernels.vwap.rolling import ENTRY, WINDOW
from processors.kernels.vwap.state import remember_ring, sum_up
from processors.model.observation import BEGINNING
from schemas.decimals import SCALE

SYMBOL_KEY = b"symbol:"
CHUNK_KEY = b"chunk:"
_LEAST_RING = 16
_HEADROOM = 4
"""A symbol's greatest price may grow so many times before Python must look."""
_WORD = 64
_MASK = (1 << 64) - 1
_FIELDS = (("volume", "v", 2), ("turnover", "t", 3), ("square", "q", 4))


class NoFit(Exception):
    """Numbers that the arrays cannot hold: the symbol goes to the general path."""


@dataclass(slots=True)
class StoredSymbol:
    """A symbol as the state topic has it: mantissas in its scales."""

    now: int
    ts_recv: int
    most_price: int
    chunks: int
    price_scale: int
    volume_scale: int
    opened: Array
    """The trades of the open chunk, of dtype ENTRY."""
    entries: Array
    """All its trades, in any order."""
    sessions: list[list[int]] = field(default_factory=list)
    """trade_date, start, end, latest, count, and the nine words of the sums."""
    live: list[tuple[int, int]] = field(default_factory=list)
    """Numbers and greatest event times of its closed chunks."""


class Slots:
    """The arrays of one partition, by the symbol's slot."""

    def __init__(self, spans: Sequence[int], has_session: bool) -> None:
        self.spans: Array = np.array(spans, np.int64)
        self.longest: int = max(spans, default=0)
        self.rows: Array = np.zeros(64, SLOT)
        self.windows: Array = np.zeros((64, len(spans)), WINDOW)
        self.sessions: Array = np.zeros((64, SESSIONS_KEPT if has_session else 1), SESSION)
        self.covers: Array = np.zeros((64, len(spans) + 1), COVER)
        self.opened: Array = np.zeros((64, CHUNK), ENTRY)
        self.arena: Array = np.zeros(64 * _LEAST_RING, ENTRY)
        self.names: Array = np.zeros(1024, np.uint8)
        self.longest_name = 0
        self.written: Array = np.zeros(1, WRITTEN)
        self.closed: Array = np.zeros(0, np.uint8)
        self.closings: Array = np.zeros(0, CLOSING)
        self.powers: Array = np.array([10**digits for digits in range(SCALE + 1)], np.int64)
        self.scratch: Array = np.zeros(SCRATCH, np.uint64)
        self.live: list[deque[tuple[int, int]]] = []
        """By slot the numbers and greatest event times of the closed chunks in the state topic."""
        self.since: list[int] = []
        """By slot the number of the first chunk that counts."""
        self.gone: set[bytes] = set()
        """Keys that the state topic still has."""
        self._free: dict[int, list[int]] = {}
        self._top = self._names_end = 0

    def __len__(self) -> int:
        return len(self.live)

    def make(self, slot: int, name: str) -> None:
        """Make a slot, the next one, if there is none; it belongs to the general path until it is
        taken over."""
        if slot < len(self.live):
            return
        if slot == len(self.rows):
            for each in ("rows", "windows", "sessions", "covers", "opened"):
                setattr(self, each, grown(getattr(self, each), 2 * slot))
        self.live.append(deque())
        self.since.append(0)
        packed = name.encode()
        end = self._names_end + len(packed)
        if end > len(self.names):
            self.names = grown(self.names, 2 * end)
        self.names[self._names_end : end] = np.frombuffer(packed, np.uint8)
        row = self.rows[slot]
        row["name"], row["name_end"], row["general"] = self._names_end, end, 1
        row["now"], row["lane"], row["market"] = BEGINNING, -1, -1
        self._names_end = end
        self.longest_name = max(self.longest_name, len(packed))
        self._set_limit(slot)

    # numbers

    def is_new(self, slot: int) -> bool:
        """Return whether nothing is kept of a symbol's trades."""
        row = self.rows[slot]
        return not (row["capacity"] or row["most_price"] or self.sessions["end"][slot].any())

    def begin(self, slot: int, trade: Array) -> None:
        """Do for the first trade of a symbol what `fit`, `raise_most_price` and `grow_ring` would,
        which look at what it has."""
        row = self.rows[slot]
        row["price_scale"], row["volume_scale"] = trade["price_scale"], trade["volume_scale"]
        row["most_price"] = min(_HEADROOM * abs(int(trade["price"])), MOST_MANTISSA)
        self._set_limit(slot)
        if self.longest:
            row["base"], row["capacity"], row["head"] = self._place(_LEAST_RING), _LEAST_RING, 0

    def fit(self, slot: int, trade: Array) -> None:
        """Make the scales hold a trade's digits; raises NoFit."""
        row = self.rows[slot]
        price_scale = max(int(row["price_scale"]), int(trade["price_scale"]))
        volume_scale = max(int(row["volume_scale"]), int(trade["volume_scale"]))
        price = abs(int(trade["price"])) * 10 ** (price_scale - int(trade["price_scale"]))
        volume = int(trade["volume"]) * 10 ** (volume_scale - int(trade["volume_scale"]))
        if max(price, volume) > MOST_MANTISSA:
            raise NoFit
        price_factor = 10 ** (price_scale - int(row["price_scale"]))
        volume_factor = 10 ** (volume_scale - int(row["volume_scale"]))
        ring, opened = self.ring(slot), self._open_trades(slot)
        for entries in (ring, opened):
            if len(entries) and (
                int(np.abs(entries["price"]).max()) * price_factor > MOST_MANTISSA
                or int(entries["volume"].max()) * volume_factor > MOST_MANTISSA
            ):
                raise NoFit
        for entries in (ring, opened):
            entries["price"] *= price_factor
            entries["volume"] *= volume_factor
        self.opened[slot, : len(opened)] = opened
        row["price_scale"], row["volume_scale"] = price_scale, volume_scale
        row["most_price"] = min(int(row["most_price"]) * price_factor, MOST_MANTISSA)
        factors = {
            "volume": volume_factor,
            "turnover": volume_factor * price_factor,
            "square": volume_factor * price_factor**2,
        }
        for session in self._used_sessions(slot):
            for name, letter, words in _FIELDS:
                _put_words(session, letter, words, _words(session, letter, words) * factors[name])
        self._put_ring(slot, ring)
        self._limit(slot)

    def raise_most_price(self, slot: int, trade: Array) -> None:
        """Let the symbol have prices as a trade's, and some greater; raises NoFit."""
        row = self.rows[slot]
        price = abs(int(trade["price"])) * 10 ** (
            int(row["price_scale"]) - int(trade["price_scale"])
        )
        row["most_price"] = min(_HEADROOM * price, MOST_MANTISSA)
        try:
            self._limit(slot)
        except NoFit:
            row["most_price"] = price
            self._limit(slot)

    def _limit(self, slot: int) -> None:
        """Set the limit of volumes from the greatest price; raises NoFit if a sum is above it."""
        limit = self._set_limit(slot)
        sums = [*self.windows[slot], *self._used_sessions(slot)]
        if any(_words(each, "v", 2) >= limit for each in sums):
            raise NoFit

    def _set_limit(self, slot: int) -> int:
        row = self.rows[slot]
        price_scale, volume_scale = int(row["price_scale"]), int(row["volume_scale"])
        most = max(int(row["most_price"]), 1)
        limit: int = min(10 ** (20 + volume_scale), 10 ** (20 + price_scale + volume_scale) // most)
        row["limit0"], row["limit1"] = limit & _MASK, limit >> _WORD
        return limit

    # rings

    def ring(self, slot: int) -> Array:
        """Return a symbol's trades, from the oldest on, as a copy."""
        row = self.rows[slot]
        at = (int(row["head"]) + np.arange(int(row["count"]))) & (int(row["capacity"]) - 1)
        found: Array = self.arena[int(row["base"]) + at]
        return found

    def grow_ring(self, slot: int) -> None:
        """Give a symbol room for twice as many trades."""
        entries = self.ring(slot)
        self._put_ring(slot, entries, max(_LEAST_RING, 2 * int(self.rows["capacity"][slot])))

    def clear(self, slot: int, name: str) -> None:
        """Forget a symbol's trades."""
        row = self.rows[slot]
        if row["count"] == 0:
            return
        self._put_ring(slot, np.zeros(0, ENTRY))
        self._forget_chunks(slot, name)
        row["changed"] = 1

    def _forget_chunks(self, slot: int, name: str) -> None:
        row = self.rows[slot]
        self.gone.update(chunk_key(number, name) for number, _ in self.live[slot])
        self.live[slot].clear()
        row["open"], self.since[slot] = 0, int(row["chunks"])

    def _put_ring(self, slot: int, entries: Array, capacity: int = 0) -> None:
        """Replace a symbol's trades, sorted by time, and sum them up."""
        row = self.rows[slot]
        if row["capacity"]:
            self._free.setdefault(int(row["capacity"]), []).append(int(row["base"]))
        if len(entries) or capacity:
            capacity = max(capacity, _LEAST_RING)
            while capacity < len(entries):
                capacity *= 2
        else:
            capacity = 0
        row["base"] = self._place(capacity) if capacity else 0
        row["capacity"], row["head"], row["count"] = capacity, 0, len(entries)
        self.arena[int(row["base"]) : int(row["base"]) + len(entries)] = entries
        sum_up(self.rows, self.windows, self.spans, self.arena, slot)

    def _place(self, capacity: int) -> int:
        free = self._free.get(capacity)
        if free:
            return free.pop()
        place, self._top = self._top, self._top + capacity
        if self._top > len(self.arena):
            # a quarter more: resize keeps what is there, and the pages of the rest cost nothing
            self.arena = grown(self.arena, max(self._top, len(self.arena) * 5 // 4))
        return place

    # sessions

    def open_session(self, slot: int, trade_date: int, start: int, end: int) -> None:
        """Begin a session, which the oldest kept one makes room for."""
        sessions = self.sessions[slot]
        sessions[:-1] = sessions[1:].copy()
        sessions[-1] = np.zeros((), SESSION)
        opened = sessions[-1]
        opened["trade_date"], opened["start"], opened["end"] = trade_date, start, end
        opened["latest"] = BEGINNING
        order = sorted(
            range(len(sessions)),
            key=lambda at: (sessions["end"][at] > sessions["start"][at], sessions["start"][at]),
        )
        sessions[:] = sessions[order]

    def _used_sessions(self, slot: int) -> list[Array]:
        return [session for session in self.sessions[slot] if session["count"] > 0]

    # the state topic

    def make_room_for_chunks(self, trades: int) -> None:
        """Make sure that so many trades more can close chunks."""
        closings = int(self.written["closings"][0])
        more = closings + min(trades, trades // CHUNK + len(self.live) + 1)
        if len(self.closings) < more:
            self.closings = grown(self.closings, 2 * more)
        used = int(self.closings["end"][closings - 1]) if closings else 0
        most = used + (more - closings) * MOST_CHUNK
        if len(self.closed) < most:
            self.closed = grown(self.closed, 2 * most)

    def _open_trades(self, slot: int) -> Array:
        opened = self.opened[slot, : int(self.rows["open"][slot])]
        row = self.rows[slot]
        kept = opened[opened["ts"] > int(row["now"]) - self.longest].copy()
        row["open"] = len(kept)
        return kept

    def restore(self, slot: int, symbol: StoredSymbol) -> None:
        """Take a symbol from the state topic."""
        row = self.rows[slot]
        for name in ("now", "ts_recv", "most_price", "chunks", "price_scale", "volume_scale"):
            row[name] = getattr(symbol, name)
        row["open"], row["general"], row["changed"] = len(symbol.opened), 0, 0
        self.opened[slot, : len(symbol.opened)] = symbol.opened
        self.sessions[slot] = 0
        if self.sessions.shape[1] == SESSIONS_KEPT:
            for at, session in enumerate(symbol.sessions, SESSIONS_KEPT - len(symbol.sessions)):
                self.sessions[slot, at] = tuple(session)
        entries = symbol.entries[symbol.entries["ts"] > symbol.now - self.longest]
        self._put_ring(slot, entries[np.argsort(entries["ts"], kind="stable")])
        self._limit(slot)
        self.live[slot] = deque(sorted(symbol.live))
        if any(latest <= symbol.now - self.longest for _, latest in symbol.live):
            row["changed"] = 1

    # between the paths

    def drop(self, slot: int, name: str) -> None:
        """Leave a symbol to the general path."""
        row = self.rows[slot]
        self._put_ring(slot, np.zeros(0, ENTRY))
        self._forget_chunks(slot, name)
        self.sessions[slot] = 0
        row["general"], row["changed"], row["now"] = 1, 0, BEGINNING
        row["price_scale"] = row["volume_scale"] = row["most_price"] = 0
        self._limit(slot)

    def export(self, slot: int, known: SymbolWindows) -> None:
        """Write a symbol into the form of the general path."""
        row = self.rows[slot]
        price_unit = 10 ** (SCALE - int(row["price_scale"]))
        volume_unit = 10 ** (SCALE - int(row["volume_scale"]))
        known.ts_recv = max(known.ts_recv, int(row["ts_recv"]))
        ring = self.ring(slot)
        columns = (ring[name].tolist() for name in ("ts", "price", "volume"))
        trades = zip(*columns, strict=True)
        known.rolling.take_over(
            int(row["now"]), ((ts, p * price_unit, v * volume_unit) for ts, p, v in trades)
        )
        known.sessions = [
            SessionSums(
                volume=_words(each, "v", 2) * volume_unit,
                turnover=_words(each, "t", 3) * volume_unit * price_unit,
                square=_words(each, "q", 4) * volume_unit * price_unit**2,
                count=int(each["count"]),
                trade_date=int(each["trade_date"]),
                start=int(each["start"]),
                end=int(each["end"]),
                latest=int(each["latest"]),
            )
            for each in self._used_sessions(slot)
        ]

    def take_over(self, slot: int, known: SymbolWindows) -> None:
        """Take a symbol from the general path; raises NoFit."""
        trades = [
            (ts, *price_and_volume)
            for ts, entry in known.rolling.trades()
            for price_and_volume in _trades_of(*entry)
        ]
        digits = [(shortest(price)[1], shortest(volume)[1]) for _, price, volume in trades]
        price_scale = max((scales[0] for scales in digits), default=0)
        volume_scale = max((scales[1] for scales in digits), default=0)
        for session in known.sessions:
            volume_scale = max(volume_scale, shortest(session.volume)[1])
        while not all(_divides(each, price_scale, volume_scale) for each in known.sessions):
            # the digits of prices that have gone
            if price_scale < SCALE:
                price_scale += 1
            elif volume_scale < SCALE:
                price_scale, volume_scale = 0, volume_scale + 1
            else:
                raise NoFit
        price_unit, volume_unit = 10 ** (SCALE - price_scale), 10 ** (SCALE - volume_scale)
        rows = [(ts, price // price_unit, volume // volume_unit) for ts, price, volume in trades]
        if any(abs(price) > MOST_MANTISSA or v > MOST_MANTISSA for _, price, v in rows):
            raise NoFit
        most = max((abs(price) for _, price, _ in rows), default=0)
        for session in known.sessions:
            # its greatest price is not known any more: the root of the mean square bounds its sums
            if session.volume:
                most = max(most, isqrt(session.square // session.volume) // price_unit + 1)
        row = self.rows[slot]
        row["price_scale"], row["volume_scale"] = price_scale, volume_scale
        if most > MOST_MANTISSA:
            raise NoFit
        row["now"], row["ts_recv"], row["most_price"] = known.rolling.now, known.ts_recv, most
        self.sessions[slot] = 0
        if self.sessions.shape[1] == SESSIONS_KEPT:
            for at, session in enumerate(known.sessions, SESSIONS_KEPT - len(known.sessions)):
                into = self.sessions[slot, at]
                for name in ("trade_date", "start", "end", "latest", "count"):
                    into[name] = getattr(session, name)
                _put_words(into, "v", 2, session.volume // volume_unit)
                _put_words(into, "t", 3, session.turnover // (volume_unit * price_unit))
                _put_words(into, "q", 4, session.square // (volume_unit * price_unit**2))
        self._put_ring(slot, np.array(rows, ENTRY))
        self._limit(slot)
        # the state topic takes them as trades that came now
        self.make_room_for_chunks(len(rows))
        remember_ring(
            self.rows, self.arena, self.opened, self.closed, self.closings, slot, self.written
        )


def symbol_key(name: str) -> bytes:
    """Return the key of a symbol in the state topic."""
    return SYMBOL_KEY + name.encode()


def chunk_key(number: int, name: str) -> bytes:
    """Return the key of a chunk of a symbol's trades in the state topic."""
    return CHUNK_KEY + b"%d:" % number + name.encode()


def _words(sums: Array, letter: str, words: int) -> int:
    number = sum(int(sums[f"{letter}{at}"]) << (_WORD * at) for at in range(words))
    is_negative = letter == "t" and number >> (_WORD * words - 1)
    return number - (1 << (_WORD * words)) if is_negative else number


def _put_words(sums: Array, letter: str, words: int, number: int) -> None:
    for at in range(words):
        sums[f"{letter}{at}"] = (number >> (_WORD * at)) & _MASK


def _trades_of(volume: int, turnover: int, square: int, count: int) -> list[tuple[int, int]]:
    """Return trades (price, volume) that have these sums; raises NoFit.

    Entries of one trade have one price; those of several come from a state of an older version.
    """
    if volume == 0:
        return [(0, 0)] * count
    if count > 1 and square * volume != turnover * turnover:
        raise NoFit
    return [(turnover // volume, volume), *[(0, 0)] * (count - 1)]


def _divides(session: SessionSums, price_scale: int, volume_scale: int) -> bool:
    price_unit, volume_unit = 10 ** (SCALE - price_scale), 10 ** (SCALE - volume_scale)
    return not (
        session.volume % volume_unit
        or session.turnover % (price_unit * volume_unit)
        or session.square % (price_unit**2 * volume_unit)
    )
