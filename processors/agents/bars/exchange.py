"""Turns TimeBars into records of the kernels' arrays and back; no state."""

from collections.abc import Sequence
from typing import cast, get_args

import numpy as np

from processors.agents.bars.figures import EXTREME, Provenance, TimeBar
from processors.kernels.bars import chains
from processors.kernels.bars.arrays import BAR, NONE
from processors.kernels.columns import MOST_MANTISSA, Array, Record, shortest
from processors.model.observation import Completeness
from schemas.decimals import SCALE

PROVENANCES: tuple[Provenance, ...] = get_args(Provenance)
COMPLETENESSES = ("", "complete", "partial", "gap")
_NATIVE_EXTREME = int(chains.EXTREME)
_LIMB = (1 << 64) - 1
_MOST_VOLUME, _MOST_TURNOVER = 1 << 126, 1 << 190
"""As far below what the limbs hold that no trades can fill the rest."""


def code_of(completeness: Completeness) -> int:
    """Return the number of a completeness."""
    return COMPLETENESSES.index(completeness)


def rows_of(slot: int, bars: Sequence[TimeBar]) -> tuple[Array, int, int] | None:
    """Return the bars of a symbol as records of the least scales that hold them, and these scales;
    None if their numbers do not fit."""
    price_scale = volume_scale = 0
    for bar in bars:
        for price in (bar.open, bar.high, bar.low, bar.close):
            if abs(price) != EXTREME:
                price_scale = max(price_scale, shortest(price)[1])
        for volume in (bar.volume, bar.buy, bar.sell):
            volume_scale = max(volume_scale, shortest(volume)[1])
    # a kline's turnover may have more digits than price and volume together
    places = 2 * SCALE - price_scale - volume_scale
    while places and any(bar.turnover % 10**places for bar in bars):
        places -= 1
    more = 2 * SCALE - places - price_scale - volume_scale
    price_scale += max(0, more - (SCALE - volume_scale))
    volume_scale = min(SCALE, volume_scale + more)
    rows = np.zeros(len(bars), BAR)
    for row, bar in zip(rows, bars, strict=True):
        if not _fill(row, slot, bar, price_scale, volume_scale):
            return None
    return rows, price_scale, volume_scale


def time_bar_of(
    row: Record, symbol: str, price_scale: int, volume_scale: int, dated: bool
) -> TimeBar:
    """Return the bar of a record with these scales; only sessions are `dated`."""
    price, volume = 10 ** (SCALE - price_scale), 10 ** (SCALE - volume_scale)
    fields = dict(zip(BAR.names or (), row.item(), strict=True))
    bar = TimeBar(
        fields["level"],
        symbol,
        fields["start"],
        fields["end"],
        fields["trade_date"] if dated else None,
        bool(fields["closed"]),
        bool(fields["folded"]),
        fields["revision"],
        fields["published"],
        COMPLETENESSES[fields["completeness"]],
        PROVENANCES[fields["provenance"]],
        fields["ts_recv"],
    )
    if fields["high"] >= fields["low"]:
        bar.ts_first, bar.ts_last = fields["ts_first"], fields["ts_last"]
        bar.high, bar.low = fields["high"] * price, fields["low"] * price
        bar.open, bar.close = fields["open"] * price, fields["close"] * price
    bar.volume = (fields["volume_0"] | fields["volume_1"] << 64) * volume
    bar.buy = (fields["buy_0"] | fields["buy_1"] << 64) * volume
    bar.sell = (fields["sell_0"] | fields["sell_1"] << 64) * volume
    turnover = fields["turnover_0"] | fields["turnover_1"] << 64 | fields["turnover_2"] << 128
    if turnover >> 191:
        turnover -= 1 << 192
    bar.turnover = turnover * price * volume
    bar.count = fields["count"]
    return bar


def _fill(row: Record, slot: int, bar: TimeBar, price_scale: int, volume_scale: int) -> bool:
    price, volume = 10 ** (SCALE - price_scale), 10 ** (SCALE - volume_scale)
    turnover = bar.turnover // (price * volume)
    sums = (bar.volume // volume, bar.buy // volume, bar.sell // volume)
    prices = [bar.open // price, bar.close // price]
    if bar.high != -EXTREME:
        prices += [bar.high // price, bar.low // price]
        row["ts_first"], row["ts_last"] = bar.ts_first, bar.ts_last
    else:
        row["ts_first"], row["ts_last"] = _NATIVE_EXTREME, -_NATIVE_EXTREME
    if (
        max(map(abs, prices)) > MOST_MANTISSA
        or not all(abs(each) < _MOST_VOLUME for each in sums)
        or min(sums) < 0
        or abs(turnover) >= _MOST_TURNOVER
    ):
        return False
    row["open"], row["close"] = prices[:2]
    row["high"], row["low"] = prices[2:] or (-_NATIVE_EXTREME, _NATIVE_EXTREME)
    for name, number in zip(("volume", "buy", "sell"), sums, strict=True):
        row[f"{name}_0"], row[f"{name}_1"] = number & _LIMB, number >> 64
    for limb in range(3):
        row[f"turnover_{limb}"] = turnover >> 64 * limb & _LIMB
    row["start"], row["end"], row["level"], row["slot"] = bar.start, bar.end, bar.level, slot
    row["trade_date"] = NONE if bar.trade_date is None else bar.trade_date
    row["closed"], row["folded"], row["count"] = bar.closed, bar.folded, bar.count
    row["published"], row["revision"], row["ts_recv"] = bar.published, bar.revision, bar.ts_recv
    row["completeness"] = code_of(cast(Completeness, bar.completeness))
    row["provenance"] = PROVENANCES.index(bar.provenance)
    return True
