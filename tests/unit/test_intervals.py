"""Intervals: which are allowed, and which is folded from which."""

import pytest

from processors.model.intervals import IntervalsWrong, ladder


@pytest.mark.parametrize(
    "wrong", ["7m", "0s", "1w", "24h", "13h", "90", "m", "1M", "86400s", "-1m", "1.5m", ""]
)
def test_an_interval_that_does_not_divide_a_day_is_refused_with_what_is_allowed(wrong):
    with pytest.raises(IntervalsWrong, match="1s to 12h") as caught:
        ladder(("1m", wrong))
    assert repr(wrong) in str(caught.value)


def test_intervals_are_given_once_and_at_all():
    with pytest.raises(IntervalsWrong, match="the same as '1m'"):
        ladder(("1m", "60s"))
    with pytest.raises(IntervalsWrong, match="none"):
        ladder(())


def test_each_interval_is_folded_from_the_coarsest_that_divides_it():
    plan = ladder(("1d", "1h", "2s", "3s", "5m", "1m"))
    assert [interval.name for interval in plan.intervals] == ["2s", "3s", "1m", "5m", "1h", "1d"]
    assert plan.roots == (0, 1)
    assert plan.coarser == ((), (2,), (3, 5), (4,), (), ())
