"""Batches of runs and single records: cut by offsets, expanded once, spans and counts."""

import numpy as np
import pytest

from processors.engine.batch import Batch, before, count_of, expanded, parts_of, since, span_of
from processors.engine.failures import Failure
from processors.engine.transactions.group import Member
from processors.kernels.columns import TRADE, Lane, Tables, TradeRun
from processors.model.records import Unreadable

TABLES = Tables()
TABLES.symbol("A")
TABLES.lane(Lane("crypto", "crypto-1", "c", "live"))


def run(*offsets):
    trades = np.zeros(len(offsets), TRADE)
    trades["offset"] = offsets
    return TradeRun(trades, TABLES)


def odd(offset):
    return Unreadable(offset, None, b"", "", "")


PIECES = [run(10, 11, 14), odd(15), odd(16), run(20, 21)]
OFFSETS = [10, 11, 14, 15, 16, 20, 21]


def batch(pieces=PIECES):
    return Batch(("t", 0), Member("g", 1, "m"), 10, pieces, 23)


def offsets(pieces):
    return [record.offset for record in expanded(pieces)]


@pytest.mark.parametrize("at", range(9, 24))
def test_a_batch_is_cut_at_any_offset(at):
    assert offsets(since(PIECES, at)) == [each for each in OFFSETS if each >= at]
    assert offsets(before(PIECES, at)) == [each for each in OFFSETS if each < at]
    assert all(not isinstance(piece, TradeRun) or len(piece) for piece in since(PIECES, at))


def test_agents_that_take_no_runs_share_what_is_expanded_once():
    whole = batch()
    assert whole.one_by_one().pieces is whole.one_by_one().pieces
    assert offsets(whole.one_by_one().pieces) == OFFSETS
    assert count_of(whole.pieces) == 7


def test_spans_are_of_records():
    assert span_of(batch(), PIECES) == (10, 21)
    assert span_of(batch(), PIECES[1:3]) == (15, 16)
    assert span_of(batch([]), []) == (10, 22)


def test_a_batch_of_runs_that_failed_is_applied_one_record_at_a_time():
    parts = parts_of(batch(), Failure(11, 15, 1, ""))
    assert [(part.continues, offsets(part.pieces), part.next_offset) for part in parts] == [
        (10, [10], 11),
        (11, [11], 12),
        (12, [14], 15),
        (15, [15], 16),
        (16, [16, 20, 21], 23),
    ]
    [stopped] = parts_of(batch(), Failure(14, 14, 3, ""))
    assert (offsets(stopped.pieces), stopped.next_offset) == ([10, 11], 14)
    assert offsets(stopped.one_by_one().pieces) == [10, 11]
