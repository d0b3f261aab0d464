"""The general path of the VWAP agent, in Python's integers: a trade into its symbol's windows, and
the rows of it.

It serves symbols whose numbers do not fit the kernels' arrays and machines without numba, and is
the reference for the kernels.
"""

from dataclasses import dataclass

from processors.agents.vwap.figures import figures
from processors.agents.vwap.state import (
    SESSIONS_KEPT,
    SessionSums,
    SymbolWindows,
    VwapState,
)
from processors.agents.vwap.windows import SESSION
from processors.kernels.columns import EncodedRows
from processors.model.begun_sessions import BegunSessions
from processors.model.observation import BEGINNING
from processors.model.records import Row, Trade
from processors.model.trading_days import LONGEST_SESSION_MS, Session
from schemas.records import VwapRecord


@dataclass(frozen=True, slots=True)
class General:
    """What the rows of each trade are: their windows, and when they come."""

    rolling: tuple[tuple[str, str], ...]
    """Names and topics of the rolling windows."""
    session_topic: str | None
    emit_ms: int | None

    def trade(self, state: VwapState, trade: Trade, rows: list[Row | EncodedRows]) -> None:
        """Take an accepted trade, and append its rows."""
        symbol = state.symbol(trade.symbol)
        rolling, ts = symbol.rolling, trade.ts_event
        if trade.ts_recv > symbol.ts_recv:
            symbol.ts_recv = trade.ts_recv
        if self.emit_ms is not None and rolling.now != BEGINNING:
            cell = rolling.now // self.emit_ms
            if ts // self.emit_ms > cell:
                newest = symbol.sessions[-1] if symbol.sessions else None
                shown = (
                    newest if newest is not None and newest.latest // self.emit_ms == cell else None
                )
                self._emit(state, symbol, shown, trade, rows)
        turnover = trade.price * trade.volume
        square = trade.price * turnover
        rolling.add(ts, trade.volume, turnover, square)
        session = self._session_of(state, symbol, trade) if self.session_topic else None
        if session is not None:
            session.add(trade.volume, turnover, square, 1)
            if ts > session.latest:
                session.latest = ts
        if self.emit_ms is None:
            self._emit(state, symbol, session, trade, rows)

    def _session_of(
        self, state: VwapState, symbol: SymbolWindows, trade: Trade
    ) -> SessionSums | None:
        """Return the sums that the trade belongs to; None between sessions, and for a session whose
        sums are forgotten."""
        ts, sessions = trade.ts_event, symbol.sessions
        for known in reversed(sessions):
            if known.start <= ts < known.end:
                return known
        oldest = sessions[0].start if len(sessions) == SESSIONS_KEPT else BEGINNING
        found = session_to_open(state.sessions, trade, oldest)
        if found is None:
            return None
        made = SessionSums(trade_date=found.trade_date, start=found.start, end=found.end)
        symbol.sessions = sorted([*sessions, made], key=lambda session: session.start)[
            -SESSIONS_KEPT:
        ]
        return made

    def _emit(
        self,
        state: VwapState,
        symbol: SymbolWindows,
        session: SessionSums | None,
        cause: Trade,
        rows: list[Row | EncodedRows],
    ) -> None:
        name, now, completeness = cause.symbol, symbol.rolling.now, state.feeds.completeness
        source, ts_recv, partition, offset = (
            cause.source, symbol.ts_recv, state.partition, cause.offset
        )  # fmt: skip
        complete_from = state.feeds.complete_from(name)  # a call less for every row
        for (window, topic), sums in zip(self.rolling, symbol.rolling.windows, strict=True):
            start = now - sums.span
            vwap, volume, turnover, count, stdev = figures(sums)
            known = "complete" if start >= complete_from else completeness(name, start + 1, now + 1)
            record = VwapRecord(
                name, window, now, start, None, vwap, volume, turnover, count, stdev,
                known, source, ts_recv, partition, offset,
            )  # fmt: skip
            rows.append((topic, name, record))
        if session is not None and self.session_topic is not None:
            start, latest, date = session.start, session.latest, session.trade_date
            vwap, volume, turnover, count, stdev = figures(session)
            known = completeness(name, start, latest + 1)
            record = VwapRecord(
                name, SESSION, latest, start - 1, date, vwap, volume, turnover, count, stdev,
                known, source, ts_recv, partition, offset,
            )  # fmt: skip
            rows.append((self.session_topic, name, record))


def session_to_open(sessions: BegunSessions, trade: Trade, oldest_start: int) -> Session | None:
    """Return the session whose sums begin with the trade; None between sessions, and for one before
    the oldest that is kept."""
    found = sessions.session_of(trade.business, trade.symbol, trade.ts_event)
    return None if found is None or found.end <= oldest_start else found


def forget_idle(state: VwapState, feed: str, longest: int, horizon_ms: int) -> None:
    """Forget trades and sessions of the feed's general symbols that no trade to come can reach."""
    for name in state.feeds.symbols_of(feed):
        known = state.symbols.get(name)
        if known is None:
            continue
        oldest = state.feeds.watermark_of(name) - horizon_ms
        is_idle = known.rolling.now + longest <= oldest and known.rolling.clear()
        # by then no session that trades can still open begins before these
        if (
            known.sessions
            and max(session.end for session in known.sessions) + LONGEST_SESSION_MS <= oldest
        ):
            known.sessions, is_idle = [], True
        if is_idle:
            state.changed.add(name)
