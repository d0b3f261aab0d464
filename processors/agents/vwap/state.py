"""The VWAP agent: after each accepted trade a row per rolling window and one for the market's session; no bars, no late topic."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isqrt
from typing import Any

import orjson

from processors.feeds import BEGINNING, EventTime, Feeds
from processors.records import ControlRecord, Entries, Record, Row, Trade
from processors.rolling import Rolling, Sums, span_ms
from processors.sessions import Calendars
from schemas.decimals import UNIT

SESSION = "session"
"""The window that restarts with the market's session."""

_LONGEST_SESSION_MS = 48 * 3_600_000
_SESSIONS_KEPT = 3
"""A symbol's sessions that late trades may still reach: the present one, the one before, one more for a feed that lags."""

_WINDOWS_KEY = b"windows"
_HEAD_KEY = b"head:"
_BUCKET_KEY = b"trades:"


class WindowsWrong(ValueError):
    """Settings that name no windows; the message lists every mistake."""


class WindowsChanged(RuntimeError):
    """The state was built for other windows, and what the new ones need was not kept."""

    def __init__(self, built_for: Sequence[str], asked: Sequence[str]) -> None:
        super().__init__(
            f"the state was built for the windows {', '.join(built_for)}, which did not keep the trades that "
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
    """From the oldest on, at most _SESSIONS_KEPT."""
    ts_recv: int = 0
    """Greatest receive time (us) of all that the symbol's rows may depend on: its trades, and the controls about it."""


class VwapState:
    """The state of one partition: its feeds and each symbol's windows."""

    def __init__(
        self,
        partition: int,
        feeds: Feeds,
        windows: Sequence[str],
        spans: Sequence[int],
        entries: Mapping[bytes, bytes],
    ) -> None:
        self.partition = partition
        self.feeds = feeds
        self.symbols: dict[str, SymbolWindows] = {}
        self.changed: set[str] = set()
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

    def dirty(self) -> Iterator[tuple[bytes, bytes | None]]:
        """Yield what changed since the last call, and forget it."""
        yield from self.feeds.dirty()
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
                yield _BUCKET_KEY + b"%d:" % bucket + name.encode(), value
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


class Vwap:
    """The agent `vwap`: rows of `infoway.vwap.<window>`."""

    name = "vwap"

    def __init__(
        self,
        windows: Sequence[str],
        calendars: Calendars,
        event_time: EventTime,
        emit_ms: int | None = None,
    ) -> None:
        """Take the names of the windows, lengths from '1s' to '24h' or 'session'; raises WindowsWrong.

        With `emit_ms` rows come only when a symbol's event time crosses a multiple of it: each window as it stood at the
        symbol's last trade before; late trades show in the rows after them, sessions that have passed are not shown again.
        """
        spans = {window: span_ms(window) for window in windows if window != SESSION}
        mistakes = [
            f"{window!r}: expected 'session' or a length from 1s to 24h, as 30s, 5m or 1h"
            for window, span in spans.items()
            if not span
        ]
        if not windows or len(set(windows)) < len(windows):
            mistakes.append(f"{', '.join(windows) or 'none'}: expected at least one, each once")
        if emit_ms is not None and emit_ms <= 0:
            mistakes.append(
                f"emit_ms={emit_ms}: expected milliseconds above 0, or None for a row per trade"
            )
        if mistakes:
            raise WindowsWrong("VWAP windows: " + "; ".join(mistakes))
        self._windows = list(windows)
        self._spans = [span for span in spans.values() if span]
        self._rolling = [(window, f"infoway.vwap.{window}") for window in spans]
        self._session_topic = f"infoway.vwap.{SESSION}" if SESSION in windows else None
        self._calendars = calendars
        self._event_time = event_time
        self._emit_ms = emit_ms

    def load(self, partition: int, entries: Mapping[bytes, bytes]) -> VwapState:
        """Return the state of a partition from the live entries of the state topic; raises WindowsChanged."""
        reach = max([*self._spans, _LONGEST_SESSION_MS if self._session_topic else 0])
        return VwapState(
            partition,
            Feeds(self._event_time, partition, reach, entries),
            self._windows,
            self._spans,
            entries,
        )

    def apply(self, state: VwapState, records: Sequence[Record]) -> list[Row]:
        """Fold records in log order; return the rows of each accepted trade, in the order of the windows, session last."""
        rows: list[Row] = []
        feeds = state.feeds
        for record in records:
            if isinstance(record, Trade):
                if feeds.accept(record):
                    self._trade(state, record, rows)
            elif isinstance(record, ControlRecord):
                for name in feeds.control(record):
                    symbol = state.symbol(name)
                    symbol.ts_recv = max(symbol.ts_recv, record.control.ts_recv)
        return rows

    def dirty(self, state: VwapState) -> Entries:
        """Return what changed since the last call, and forget it."""
        return state.dirty()

    def _trade(self, state: VwapState, trade: Trade, rows: list[Row]) -> None:
        symbol = state.symbol(trade.symbol)
        rolling, ts = symbol.rolling, trade.ts_event
        if trade.ts_recv > symbol.ts_recv:
            symbol.ts_recv = trade.ts_recv
        if self._emit_ms is not None and rolling.now != BEGINNING:
            cell = rolling.now // self._emit_ms
            if ts // self._emit_ms > cell:
                newest = symbol.sessions[-1] if symbol.sessions else None
                shown = (
                    newest
                    if newest is not None and newest.latest // self._emit_ms == cell
                    else None
                )
                self._emit(state, symbol, shown, trade, rows)
        turnover = trade.price * trade.volume
        square = trade.price * turnover
        rolling.add(ts, trade.volume, turnover, square)
        session = self._session_of(symbol, trade) if self._session_topic else None
        if session is not None:
            session.add(trade.volume, turnover, square, 1)
            if ts > session.latest:
                session.latest = ts
        if self._emit_ms is None:
            self._emit(state, symbol, session, trade, rows)

    def _session_of(self, symbol: SymbolWindows, trade: Trade) -> SessionSums | None:
        """Return the sums that the trade belongs to; None between sessions, and for a session whose sums are forgotten."""
        ts, sessions = trade.ts_event, symbol.sessions
        for known in reversed(sessions):
            if known.start <= ts < known.end:
                return known
        found = self._calendars.session_of(trade.business, trade.symbol, ts)
        if found is None or (len(sessions) == _SESSIONS_KEPT and found.end <= sessions[0].start):
            return None
        made = SessionSums(trade_date=found.trade_date, start=found.start, end=found.end)
        symbol.sessions = sorted([*sessions, made], key=lambda session: session.start)[
            -_SESSIONS_KEPT:
        ]
        return made

    def _emit(
        self,
        state: VwapState,
        symbol: SymbolWindows,
        session: SessionSums | None,
        cause: Trade,
        rows: list[Row],
    ) -> None:
        name, now, completeness = cause.symbol, symbol.rolling.now, state.feeds.completeness
        source, ts_recv, partition, offset = (
            cause.source,
            symbol.ts_recv,
            state.partition,
            cause.offset,
        )
        for (window, topic), sums in zip(self._rolling, symbol.rolling.windows, strict=True):
            start = now - sums.span
            vwap, volume, turnover, count, stdev = figures(sums)
            known = completeness(name, start + 1, now + 1)
            figured = (
                name,
                window,
                now,
                start,
                None,
                vwap,
                volume,
                turnover,
                count,
                stdev,
                known,
                source,
                ts_recv,
                partition,
                offset,
            )
            rows.append((topic, name, figured))
        if session is not None and self._session_topic is not None:
            start, latest, date = session.start, session.latest, session.trade_date
            vwap, volume, turnover, count, stdev = figures(session)
            known = completeness(name, start, latest + 1)
            place = (name, SESSION, latest, start - 1, date)
            rows.append(
                (
                    self._session_topic,
                    name,
                    (
                        *place,
                        vwap,
                        volume,
                        turnover,
                        count,
                        stdev,
                        known,
                        source,
                        ts_recv,
                        partition,
                        offset,
                    ),
                )
            )


def figures(sums: Sums) -> tuple[Any, ...]:
    """Return vwap, volume, turnover, trade_count and stdev of exact sums, in units of 10^-18, each rounded half even once.

    stdev = sqrt((Sppv x Sv - Spv^2) / Sv^2). vwap and stdev are None where no volume is.
    """
    volume, turnover = sums.volume, sums.turnover
    if volume == 0:
        return None, 0, 0, sums.count, None
    # the roundings of divide_half_even, here: two calls less for every row
    vwap, rest = divmod(turnover, volume)
    if rest and ((twice := rest * 2) > volume or (twice == volume and vwap & 1)):
        vwap += 1
    rounded, rest = divmod(turnover, UNIT)
    if rest and ((twice := rest * 2) > UNIT or (twice == UNIT and rounded & 1)):
        rounded += 1
    spread = sums.square * volume - turnover * turnover
    if spread == 0:
        return vwap, volume, rounded, sums.count, 0
    squared_volume = volume * volume
    variance, rest = divmod(spread, squared_volume)
    stdev = isqrt(variance)
    over = variance - stdev * stdev
    # (stdev + 1/2)^2 lies a quarter above stdev^2 + stdev; the exact variance is rest / squared_volume above the whole one
    if over > stdev or (
        over == stdev
        and ((quarters := 4 * rest) > squared_volume or (quarters == squared_volume and stdev & 1))
    ):
        stdev += 1
    return vwap, volume, rounded, sums.count, stdev
