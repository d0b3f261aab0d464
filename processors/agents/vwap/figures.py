"""The figures of a set of trades, from exact sums: VWAP, volume, turnover, count and standard
deviation; no windows, no state."""

from dataclasses import dataclass
from math import isqrt

from schemas.decimals import UNIT


@dataclass(slots=True)
class Sums:
    """Exact sums over trades: v in units of 10^-18, p x v of 10^-36, p x p x v of 10^-54, and how
    many trades."""

    volume: int = 0
    turnover: int = 0
    square: int = 0
    count: int = 0

    def add(self, volume: int, turnover: int, square: int, count: int) -> None:
        """Add sums."""
        self.volume += volume
        self.turnover += turnover
        self.square += square
        self.count += count


def figures(sums: Sums) -> tuple[int | None, int, int, int, int | None]:
    """Return vwap, volume, turnover, trade_count and stdev of exact sums, in units of 10^-18, each
    rounded half even once.

    stdev = sqrt((Sppv x Sv - Spv^2) / Sv^2). vwap and stdev are None where no volume is.
    """
    volume, turnover = sums.volume, sums.turnover
    if volume == 0:
        return None, 0, 0, sums.count, None
    # the roundings of divide_half_even, here: two calls less for every row
    vwap, rest = divmod(turnover, volume)
    if rest and ((twice := rest * 2) > volume or (twice == volume and vwap & 1)):
        vwap += 1
    rounded, rest = divmod(turnover, UNIT)
    if rest and ((twice := rest * 2) > UNIT or (twice == UNIT and rounded & 1)):
        rounded += 1
    spread = sums.square * volume - turnover * turnover
    if spread == 0:
        return vwap, volume, rounded, sums.count, 0
    squared_volume = volume * volume
    variance, rest = divmod(spread, squared_volume)
    stdev = isqrt(variance)
    over = variance - stdev * stdev
    # (stdev + 1/2)^2 lies a quarter above stdev^2 + stdev; the exact variance is rest /
    # squared_volume above the whole one
    if over > stdev or (
        over == stdev
        and ((quarters := 4 * rest) > squared_volume or (quarters == squared_volume and stdev & 1))
    ):
        stdev += 1
    return vwap, volume, rounded, sums.count, stdev
