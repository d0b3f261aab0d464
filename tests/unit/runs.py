"""Runs of plain trades, made of single ones."""

import numpy as np

from processors.kernels.columns import TradeRun
from processors.model.records import Trade


def runs_of(records, tables):
    """Return records with runs in the place of the trades that columns can hold."""
    found = []
    for record in records:
        run = TradeRun.of(tables, record) if isinstance(record, Trade) else None
        if run is None:
            found.append(record)
        elif found and isinstance(found[-1], list):
            found[-1].append(run.trades)
        else:
            found.append([run.trades])
    return [
        TradeRun(np.concatenate(each), tables) if isinstance(each, list) else each for each in found
    ]
