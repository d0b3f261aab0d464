"""The VWAP agent: after each accepted trade a row per rolling window and one for the market's
session; no bars, no late topic.

Runs of plain trades go through kernels (`processors.agents.vwap.native`), all else through the
general path. A symbol is in one of the two: it begins in the general path, and moves to the kernels
with the first trade of a run.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from processors.agents.vwap.general import General, forget_idle
from processors.agents.vwap.native import Native, Shape
from processors.agents.vwap.state import VwapState
from processors.agents.vwap.windows import SESSION, spans_of
from processors.kernels.columns import EncodedRows, TradeRun
from processors.kernels.compiled import AVAILABLE
from processors.kernels.numbered_pairs import NumberedPairs, one_by_one
from processors.model.begun_sessions import BegunSessions, SessionFinder
from processors.model.event_time import EventTime, Feeds
from processors.model.intervals import DAY
from processors.model.observation import BEGINNING
from processors.model.records import ControlRecord, Row, SourceRecord, StateChanges, Trade
from processors.model.trading_days import LONGEST_SESSION_MS


class Vwap:
    """The agent `vwap`: rows of `infoway.vwap.<window>`."""

    name = "vwap"

    def __init__(
        self,
        windows: Sequence[str],
        calendars: SessionFinder,
        event_time: EventTime,
        emit_ms: int | None = None,
        native: bool = AVAILABLE,
    ) -> None:
        """Take the names of the windows, lengths from '1s' to '24h' or 'session'; raises
        WindowsWrong.

        With `emit_ms` rows come only when a symbol's event time crosses a multiple of it: each
        window as it stood at the symbol's last trade before; late trades show in the rows after
        them, sessions that have passed are not shown again. `native`: runs go through kernels.
        """
        spans = spans_of(windows, emit_ms)
        self.takes_runs = native
        """Whether `apply` takes runs of trades beside single records."""
        self._windows = list(windows)
        self._spans = list(spans.values())
        self._session_topic = f"infoway.vwap.{SESSION}" if SESSION in windows else None
        self._general = General(
            tuple((window, f"infoway.vwap.{window}") for window in spans),
            self._session_topic,
            emit_ms,
        )
        self._shape = Shape(
            tuple(spans), tuple(self._spans), self._session_topic is not None, emit_ms, event_time
        )
        self._calendars = calendars
        self._event_time = event_time
        self._emit_ms = emit_ms

    def load(self, partition: int, entries: Mapping[bytes, bytes]) -> VwapState:
        """Return the state of a partition from the live entries of the state topic; raises
        WindowsChanged."""
        reach = max([*self._spans, LONGEST_SESSION_MS if self._session_topic else 0])
        feeds = Feeds(self._event_time, partition, reach, entries)
        sessions = BegunSessions(self._calendars, self.name, partition, entries)
        state = VwapState(partition, feeds, sessions, self._windows, self._spans, entries)
        state.native = Native(state, self._shape, self._general, self._forget_idle)
        state.native.restore(entries)
        if not self.takes_runs:
            state.native.give_up()
        return state

    def apply(self, state: VwapState, records: Sequence[SourceRecord | TradeRun]) -> list[Any]:
        """Fold records in log order; return the rows of each accepted trade, in the order of the
        windows, session last: rows, and EncodedRows."""
        rows: list[Row | EncodedRows] = []
        for record in records:
            if isinstance(record, TradeRun):
                if self.takes_runs:
                    state.native.fold(record, rows)
                    continue
                for trade in record.all_trades():
                    self._take(state, trade, rows)
            elif isinstance(record, Trade):
                if not state.native.fold_one(record, rows):
                    self._take(state, record, rows)
            elif isinstance(record, ControlRecord):
                names = list(state.feeds.control(record))
                for name in names:
                    if not state.native.known_at(name, record.control.ts_recv):
                        symbol = state.symbol(name)
                        symbol.ts_recv = max(symbol.ts_recv, record.control.ts_recv)
                state.native.refresh(names)
                if record.control.kind == "mark":
                    self._forget_idle(state, record.control.feed)
        return rows

    def _take(self, state: VwapState, trade: Trade, rows: list[Row | EncodedRows]) -> None:
        """Fold a trade of a general symbol."""
        if state.feeds.accept(trade):
            self._general.trade(state, trade, rows)
            if trade.ts_event >= state.sweep_at.get(trade.feed, BEGINNING):
                self._forget_idle(state, trade.feed)

    def _forget_idle(self, state: VwapState, feed: str) -> None:
        """Once a day of event time forget trades and sessions that no trade to come can reach."""
        event = state.feeds.feed(feed).latest_event_ms
        if event < state.sweep_at.get(feed, BEGINNING):
            return
        state.sweep_at[feed] = (event // DAY + 1) * DAY
        if self._emit_ms is not None:
            # the windows as of a symbol's last trade are shown with its next one, however late
            return
        longest, horizon_ms = max(self._spans, default=0), self._event_time.revision_horizon_ms
        forget_idle(state, feed, longest, horizon_ms)
        state.native.forget_idle(feed, longest, horizon_ms)

    def dirty(self, state: VwapState) -> StateChanges:
        """Return what changed since the last call, and forget it."""
        return one_by_one(state.changes())

    def changes(self, state: VwapState) -> Iterator[tuple[bytes, bytes | None] | NumberedPairs]:
        """Do the same, with the symbols of kernels as NumberedPairs."""
        return state.changes()
