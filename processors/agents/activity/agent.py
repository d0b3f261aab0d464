"""The activity agent: bars of so many trades, so much volume or turnover, in log order; no time
bars, no late topic.

Runs of plain trades go through the kernel, all else through the general path.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from processors.agents.activity.general import GeneralActivityBars
from processors.agents.activity.native import NativeActivityBars
from processors.agents.activity.state import ActivityState
from processors.kernels.activity.arrays import MOST_LEVELS
from processors.kernels.columns import TradeRun
from processors.model.begun_sessions import SessionFinder
from processors.model.event_time import EventTime
from processors.model.records import ControlRecord, Rows, SourceRecord, Trade


class ActivityBars:
    """The agent `activity`: rows of `infoway.bars.<name>`, `tick-1000`, `volume-0.5` or
    `turnover-1000000`."""

    name = "activity"

    def __init__(
        self,
        bars: Sequence[str],
        calendars: SessionFinder,
        event_time: EventTime,
        update_ms: int | None = None,
        native: bool = False,
    ) -> None:
        """Raise ValueError, for names ActivityBarsWrong.

        With `update_ms` open bars that changed are published whenever the feed's event time reaches
        a multiple of it. `native`: runs go through the kernel.
        """
        self._general = GeneralActivityBars(bars, calendars, event_time, update_ms)
        self.takes_runs = native and len(self._general.thresholds) <= MOST_LEVELS
        """Whether `apply` takes runs of trades beside single records."""

    def load(self, partition: int, entries: Mapping[bytes, bytes]) -> ActivityState:
        """Return the state that `dirty` yielded; raises BarSettingsChanged."""
        state = self._general.load(partition, entries)
        if self.takes_runs:
            state.native = NativeActivityBars(self._general, state)
        return state

    def apply(self, state: ActivityState, records: Sequence[SourceRecord | TradeRun]) -> list[Any]:
        """Fold records of the partition in log order; return the bars to publish, in order: rows,
        and EncodedRows. Raises SourcesMixed."""
        rows: list[Any] = []
        native, general = state.native, Rows(rows)
        for record in records:
            if native is None:
                for each in record.all_trades() if isinstance(record, TradeRun) else (record,):
                    self._general.take(state, general, each)
            elif isinstance(record, TradeRun):
                native.fold_run(rows, record)
            elif isinstance(record, Trade):
                native.fold_trade(rows, record)
            elif isinstance(record, ControlRecord):
                native.control(rows, record)
        return rows

    def dirty(self, state: ActivityState) -> Iterator[tuple[bytes, bytes | None]]:
        """Yield what changed since the last call, and forget it."""
        return state.dirty() if state.native is None else state.native.dirty()
