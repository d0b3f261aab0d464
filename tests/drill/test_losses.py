"""Checks G and D: each of their rules notices what it is for."""

from types import SimpleNamespace

import gaps
from evidence import RAW, VendorTrade
from gaps import HELD_BACK_MS, MARGIN_MS, Observed, Span, holes, too_long
from losses import LENGTHS, bars_have_gaps_of_nothing, bars_hide_a_loss

T = 1_700_000_000_000
SPAN = Span(T, T + 5_000, T, T)


def evidence(start, completeness):
    bar = {"symbol": "A", "ts_start": start, "ts_end": start + 1_000, "provenance": "trades"}
    rows = {f"infoway.bars.{interval}": [] for interval in LENGTHS}
    rows["infoway.bars.1s"] = [(None, {**bar, "completeness": completeness})]
    return SimpleNamespace(rows=rows, revision_horizon_ms=10_000)


def lost(at, late_ms=0):
    return [VendorTrade(at, "A", at - late_ms, "1", "2")]


def test_a_bar_that_is_complete_without_a_lost_trade_is_found():
    seen, spans = evidence(T + 2_000, "complete"), {"A": [SPAN]}
    assert "is complete without" in next(bars_hide_a_loss(seen, lost(T + 2_500), spans))
    assert not list(bars_hide_a_loss(evidence(T + 2_000, "gap"), lost(T + 2_500), spans))
    # nobody knows of a late one, and what the horizon has passed is not revised
    assert not list(bars_hide_a_loss(seen, lost(T + 4_500, late_ms=2_000), spans))
    forgotten = {"A": [SPAN._replace(alive=T + 20_000)]}
    assert not list(bars_hide_a_loss(seen, lost(T + 2_500), forgotten))


def test_a_bar_with_a_gap_that_nothing_is_near_of_is_found():
    spans = {"A": [SPAN]}
    assert not list(bars_have_gaps_of_nothing(evidence(T + 2_000, "gap"), spans))
    far = evidence(T + 30_000, "gap")
    assert "none is on record" in next(bars_have_gaps_of_nothing(far, spans))


def test_a_gap_that_begins_before_what_was_observed_is_found():
    within = {"A": [SPAN._replace(known=T + MARGIN_MS)]}
    assert not list(too_long(within))
    beyond = {"A": [SPAN._replace(known=T + MARGIN_MS + 1)]}
    assert "too early" in next(too_long(beyond))


def test_what_was_observed_ends_with_the_last_push_or_a_minute_before_the_last_sign_of_life():
    observed, connection = Observed(), ("f", "c")
    observed.push(connection, T + 10, T)
    observed.sign(connection, T + 9_000)
    assert (observed.until(connection), observed.alive(connection)) == (T, T + 9_000)
    observed.sign(connection, T + 600_000)
    assert observed.until(connection) == T + 600_000 - HELD_BACK_MS


def test_a_number_that_a_connection_lacks_is_excused_by_a_loss_near_it_and_by_no_later_begin(
    monkeypatch,
):
    def row(sequence, at_ms):
        names = {"symbol": "A", "feed": "f-1", "connection": "c"}
        return None, {**names, "sequence": sequence, "ts_recv": at_ms * 1000}

    rows = [row(1, T), row(3, T + 500)]
    seen = SimpleNamespace(raw_rows=dict.fromkeys(RAW, rows), controls=lambda topic: [])
    spans = {"A": [Span(T + 60_000, T + 61_000, T + 60_000, T + 60_000)]}
    monkeypatch.setattr(gaps, "unobserved", lambda seen: spans)
    assert "no record 2 to 2, and no gap" in next(holes(seen))
    spans["A"].append(Span(T + 400, T + 5_000, T, T))
    assert not list(holes(seen))
