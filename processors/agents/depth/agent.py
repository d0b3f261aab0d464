"""Depth imbalance: one row per order book, with the spread, the mids and the order-flow imbalance;
no trades, no time windows.

Runs of plain books go through the kernel of `native`. Everything else goes through `general`, which
is the reference for the kernel, and serves alone where there is no numba.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from processors.agents.depth.general import fold
from processors.agents.depth.native import NativeDepthState
from processors.agents.depth.state import DepthState
from processors.kernels.books.run import BookRun
from processors.kernels.columns import EncodedRows
from processors.kernels.compiled import AVAILABLE
from processors.model.event_time import EventTime, Feeds
from processors.model.records import Book, ControlRecord, Row, SourceRecord, StateChanges


class Imbalance:
    """The agent `imbalance`: rows of `infoway.depth.imbalance`."""

    name = "imbalance"

    def __init__(
        self, event_time: EventTime, swapped: Collection[str] = (), native: bool = AVAILABLE
    ) -> None:
        """`swapped` names the businesses whose list a holds the bids; `native`: runs go through the
        kernel."""
        self._event_time = event_time
        self._swapped = frozenset(swapped)
        self.takes_runs = native
        """Whether `apply` takes runs of books beside single records."""

    def load(self, partition: int, entries: Mapping[bytes, bytes]) -> DepthState | NativeDepthState:
        """Return the state of a partition from the live entries of the state topic."""
        feeds = Feeds(self._event_time, partition, 0, entries)
        if self.takes_runs:
            return NativeDepthState(feeds, self._event_time, partition, entries, self._swapped)
        return DepthState(feeds, partition, entries)

    def apply(
        self, state: DepthState | NativeDepthState, records: Sequence[SourceRecord | BookRun]
    ) -> list[Any]:
        """Fold records in log order; return a row per book: rows, or EncodedRows."""
        rows: list[Row | EncodedRows] = []
        for record in records:
            if isinstance(record, BookRun):
                if isinstance(state, NativeDepthState):
                    state.fold_run(record, rows)
                    continue
                rows += [fold(state, book, self._swapped) for book in record.all_books()]
            elif isinstance(record, Book):
                rows.append(fold(state, record, self._swapped))
            elif isinstance(record, ControlRecord):
                state.interrupted(state.feeds.control(record))
        return rows

    def dirty(self, state: DepthState | NativeDepthState) -> StateChanges:
        """Return what changed since the last call, and forget it."""
        return state.dirty()
