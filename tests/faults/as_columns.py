"""A computation that takes runs and returns encoded rows, around one that knows neither: what the
engine does with them is seen without any kernel."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from processors.engine.batch import Piece, expanded
from processors.kernels.columns import HEADER, EncodedRows, Tables, TradeRun
from processors.model.records import Computation, Row, StateChanges
from schemas.wire import Encoder


class AsColumns:
    """Gives the inner computation's rows, encoded if they come of a run."""

    takes_runs = True

    def __init__(self, inner: Computation[Any], encoders: Mapping[str, Encoder]) -> None:
        self.name = inner.name
        self.inner = inner
        self._encoders = encoders
        self.runs = 0

    def load(self, partition: int, entries: Mapping[bytes, bytes]) -> Any:
        return self.inner.load(partition, entries)

    def dirty(self, state: Any) -> StateChanges:
        return self.inner.dirty(state)

    def apply(self, state: Any, pieces: Sequence[Piece]) -> list[Row | EncodedRows]:
        made: list[Row | EncodedRows] = []
        for piece in pieces:
            rows = self.inner.apply(state, expanded([piece]))
            if isinstance(piece, TradeRun):
                if not self.runs:
                    print("RUN", flush=True)
                self.runs += 1
                made += [self._packed(rows)] if rows else []
            else:
                made += rows
        return made

    def _packed(self, rows: Sequence[Row]) -> EncodedRows:
        tables, topics = Tables(), sorted({name for name, _, _ in rows})
        values = [bytes(HEADER) + self._encoders[name](*row)[HEADER:] for name, _, row in rows]
        symbols = np.array([tables.symbol(key) for _, key, _ in rows], np.int32)
        return EncodedRows(
            topics,
            np.array([topics.index(name) for name, _, _ in rows], np.int8),
            tables.symbols,
            tables.keys,
            symbols,
            np.cumsum([len(value) for value in values]),
            np.frombuffer(bytearray(b"".join(values)), np.uint8),
        )
