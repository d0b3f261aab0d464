"""The agent `bars`: time bars, the progress of feeds and late trades, by the kernels or by the
general path."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from processors.agents.bars.arrays import time_bars_of
from processors.agents.bars.forgotten import ForgottenBars
from processors.agents.bars.general import GeneralBars
from processors.agents.bars.native import NativePath
from processors.agents.bars.state import BarsState
from processors.kernels.columns import TradeRun
from processors.kernels.numbered_pairs import NumberedPairs, one_by_one
from processors.model.begun_sessions import SessionFinder
from processors.model.event_time import EventTime
from processors.model.records import ControlRecord, Heal, Rows, SourceRecord, Trade


class Bars:
    """Time bars of every interval, the progress of feeds, and the trades that came too late."""

    name = "bars"

    def __init__(
        self,
        intervals: Sequence[str],
        calendars: SessionFinder,
        event_time: EventTime,
        update_ms: int | None = None,
        forgotten: ForgottenBars | None = None,
        native: bool = False,
    ) -> None:
        """Raise ValueError for wrong intervals; heals and gaps that come too late for a bar are
        counted in `forgotten`.

        With `update_ms` open bars that changed are published whenever the feed's event time reaches
        a multiple of it; then every interval takes each trade, since a coarse bar must be whole
        while it is open. `native`: runs go through kernels.
        """
        self._general = GeneralBars(intervals, calendars, event_time, update_ms, forgotten)
        self.takes_runs = native
        """Whether it takes runs of columns beside records, and returns encoded rows."""
        self.forgotten = self._general.forgotten

    def load(self, partition: int, entries: Mapping[bytes, bytes]) -> BarsState:
        """Return the state that `dirty` yielded; raises BarSettingsChanged and StateTooNew."""
        state = self._general.load(partition, entries)
        if self.takes_runs:
            state.native = NativePath(self._general, state, entries)
        else:
            state.take_entries(time_bars_of(entries, self._general.ladder))
            self._general.set_due(state)
        return state

    def apply(self, state: BarsState, records: Sequence[SourceRecord | TradeRun]) -> list[Any]:
        """Fold records of the partition in log order; return bars, progress and late trades, in
        order: rows, or EncodedRows. Raises SourcesMixed."""
        native = state.native
        if native is None:
            rows = Rows()
            for record in records:
                if isinstance(record, TradeRun):
                    for trade in record.all_trades():
                        self._general.take(state, rows, trade)
                else:
                    self._general.take(state, rows, record)
            return rows.rows
        native.begin()
        for record in records:
            if isinstance(record, TradeRun):
                native.fold_run(record)
            elif isinstance(record, Trade):
                native.fold_trade(record)
            elif isinstance(record, ControlRecord):
                native.control(record)
            elif isinstance(record, Heal):
                native.heal(record)
        return native.end()

    def dirty(self, state: BarsState) -> Iterator[tuple[bytes, bytes | None]]:
        """Yield what changed since the last call, and forget it."""
        return one_by_one(self.changes(state))

    def changes(self, state: BarsState) -> Iterator[tuple[bytes, bytes | None] | NumberedPairs]:
        """Do the same, with the bars of kernels as NumberedPairs."""
        return state.dirty() if state.native is None else state.native.changes()
