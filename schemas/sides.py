"""Which of a book's two lists holds the asks, by the order of the levels within each list."""

from collections.abc import Sequence


def order_speaks(a: Sequence[int], b: Sequence[int]) -> int:
    """Return 1 if the order of the prices shows `a` as the asks, -1 if as the bids, 0 if neither.

    Asks run up from the best, bids down. A list of one level shows nothing. Nor do lists that
    contradict each other, or a book that only swapping would cross. How the lists lie to each other
    is no evidence of its own: a crossed book is crossed.
    """
    way_a, way_b = _way(a), -_way(b)
    if way_a * way_b < 0 or not (way := way_a or way_b):
        return 0
    if (len(a) > 1 and not way_a) or (len(b) > 1 and not way_b):
        return 0
    if way < 0 and a and b and min(a) > max(b):
        return 0
    return way


def _way(prices: Sequence[int]) -> int:
    """Return 1 for prices that run up, -1 for prices that run down, 0 for anything else."""
    if len(prices) < 2 or prices[0] == prices[-1]:
        return 0
    ordered = sorted(prices, reverse=prices[0] > prices[-1])
    return 0 if ordered != list(prices) else 1 if prices[0] < prices[-1] else -1
