"""What the VWAP agent keeps of a partition: each symbol's rolling windows and sessions, and their
form in the state topic."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import orjson

from processors.agents.vwap.figures import Sums
from processors.agents.vwap.rolling import Rolling
from processors.agents.vwap.windows import SESSION
from processors.kernels.numbered_pairs import NumberedPairs
from processors.model.begun_sessions import BegunSessions
from processors.model.event_time import Feeds
from processors.model.intervals import DAY, span_ms
from processors.model.observation import BEGINNING
from schemas.errors import InfowayError

if TYPE_CHECKING:
    from processors.agents.vwap.native import Native


SESSIONS_KEPT = 3
"""A symbol's sessions that late trades may still reach: the present one, the one before, one more
for a feed that lags."""

_WINDOWS_KEY = b"windows"
_HEAD_KEY = b"head:"
_BUCKET_KEY = b"trades:"


class WindowsChanged(InfowayError):
    """The state was built for other windows, and what the new ones need was not kept."""

    def __init__(self, built_for: Sequence[str], asked: Sequence[str]) -> None:
        super().__init__(
            f"the state was built for the windows {', '.join(built_for)}, which did not keep "
            "the trades that "
            f"{', '.join(asked)} need: compute anew under a fresh prefix"
        )
        self.built_for = built_for
        self.asked = asked


@dataclass(slots=True)
class SessionSums(Sums):
    """The sums of one session, [start, end), and its greatest event time so far."""

    trade_date: int = 0
    start: int = 0
    end: int = 0
    latest: int = BEGINNING


@dataclass(slots=True)
class SymbolWindows:
    """What is kept of a symbol."""

    rolling: Rolling
    sessions: list[SessionSums] = field(default_factory=list)
    """From the oldest on, at most SESSIONS_KEPT."""
    ts_recv: int = 0
    """Greatest receive time (us) of all that the symbol's rows may depend on: its trades, and the
    controls about it."""


class VwapState:
    """The state of one partition: its feeds and each symbol's windows."""

    def __init__(
        self,
        partition: int,
        feeds: Feeds,
        sessions: BegunSessions,
        windows: Sequence[str],
        spans: Sequence[int],
        entries: Mapping[bytes, bytes],
    ) -> None:
        self.partition = partition
        self.feeds = feeds
        self.sessions = sessions
        self.symbols: dict[str, SymbolWindows] = {}
        self.changed: set[str] = set()
        self.sweep_at: dict[str, int] = {}
        """Per feed the event time at which idle symbols are looked for again."""
        self.gone: set[bytes] = set()
        """Keys of symbols that have gone from one path to the other."""
        self.native: Native
        """The symbols that kernels have; set by the agent."""
        self._windows = windows
        self._spans = spans
        self._windows_written = False
        self._load(entries)

    def symbol(self, name: str) -> SymbolWindows:
        """Return the windows of a symbol, made where there are none, to be changed."""
        self.changed.add(name)
        known = self.symbols.get(name)
        if known is None:
            known = self.symbols[name] = SymbolWindows(Rolling(self._spans))
        return known

    def remove(self, name: str) -> None:
        """Forget a symbol that kernels have now."""
        known = self.symbols.pop(name)
        self.changed.discard(name)
        self.gone.add(_HEAD_KEY + name.encode())
        self.gone.update(_bucket_key(bucket, name) for bucket in known.rolling.buckets())

    def changes(self) -> Iterator[tuple[bytes, bytes | None] | NumberedPairs]:
        """Yield what changed since the last call, and forget it."""
        for change in self._changes():
            if isinstance(change, NumberedPairs):
                if self.gone:
                    self.gone.difference_update(key for key, _ in change.pairs())
            else:
                self.gone.discard(change[0])
            yield change
        yield from ((key, None) for key in sorted(self.gone))
        self.gone.clear()

    def _changes(self) -> Iterator[tuple[bytes, bytes | None] | NumberedPairs]:
        yield from self.native.changes()
        yield from self.feeds.dirty()
        yield from self.sessions.dirty()
        if not self._windows_written:
            yield _WINDOWS_KEY, orjson.dumps(self._windows)
            self._windows_written = True
        for name in sorted(self.changed):
            known = self.symbols[name]
            sessions = [
                [
                    s.trade_date,
                    s.start,
                    s.end,
                    s.latest,
                    str(s.volume),
                    str(s.turnover),
                    str(s.square),
                    s.count,
                ]
                for s in known.sessions
            ]
            yield (
                _HEAD_KEY + name.encode(),
                orjson.dumps([known.rolling.now, known.ts_recv, sessions]),
            )
            for bucket, value in known.rolling.dirty():
                yield _bucket_key(bucket, name), value
        self.changed.clear()

    def _load(self, entries: Mapping[bytes, bytes]) -> None:
        if _WINDOWS_KEY in entries:
            self._check_windows(orjson.loads(entries[_WINDOWS_KEY]))
        buckets: dict[str, list[tuple[int, bytes]]] = {}
        for key, value in entries.items():
            if key.startswith(_BUCKET_KEY):
                bucket, _, name = key.removeprefix(_BUCKET_KEY).partition(b":")
                buckets.setdefault(name.decode(), []).append((int(bucket), value))
        for key, value in entries.items():
            if key.startswith(_HEAD_KEY):
                name_of = key.removeprefix(_HEAD_KEY).decode()
                now, ts_recv, sessions = orjson.loads(value)
                known = self.symbol(name_of)
                known.ts_recv = ts_recv
                known.sessions = [
                    SessionSums(int(volume), int(turnover), int(square), count, *times)
                    for *times, volume, turnover, square, count in sessions
                ]
                known.rolling.restore(now, buckets.get(name_of, ()))
        self.changed.clear()

    def _check_windows(self, built_for: list[str]) -> None:
        longest = max(span_ms(window) or 0 for window in built_for)
        if max(self._spans, default=0) > longest or (
            SESSION in self._windows and SESSION not in built_for
        ):
            raise WindowsChanged(built_for, self._windows)
        self._windows_written = list(self._windows) == built_for
        for name in self.feeds.names():
            event = self.feeds.feed(name).latest_event_ms
            self.sweep_at[name] = BEGINNING if event == BEGINNING else (event // DAY + 1) * DAY


def _bucket_key(bucket: int, name: str) -> bytes:
    return _BUCKET_KEY + b"%d:" % bucket + name.encode()
