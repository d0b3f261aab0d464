"""A feed's protocol goes from state to state as its table says, and the docs draw that table."""

import random
from itertools import product
from pathlib import Path

import pytest

from producers.feed.metrics import FeedCounters
from producers.feed.protocol import FeedProtocol
from producers.feed.settings import FeedSettings
from producers.feed.states import (
    TRANSITIONS,
    IllegalTransition,
    State,
    check_transition,
    diagram,
)
from producers.vendor.symbols import Feed

PAGE = Path(__file__).parents[2] / "docs" / "states-feed.md"
ILLEGAL = [
    pair for pair in product(State, State) if pair not in TRANSITIONS and pair[0] is not pair[1]
]


def test_the_docs_draw_the_table_of_transitions():
    page = PAGE.read_text(encoding="utf-8")
    _, _, rest = page.partition("<!-- states-feed:begin -->\n")
    drawn, end, _ = rest.partition("<!-- states-feed:end -->")
    assert end
    assert drawn == f"```mermaid\n{diagram()}```\n"


@pytest.mark.parametrize(("old", "new"), TRANSITIONS)
def test_a_transition_of_the_table_is_legal(old, new):
    check_transition("stock-1", old, new)


@pytest.mark.parametrize(("old", "new"), ILLEGAL)
def test_any_other_transition_is_a_bug(old, new):
    with pytest.raises(IllegalTransition, match=f"from {old.name} to {new.name}"):
        check_transition("stock-1", old, new)


def test_a_feed_that_has_ended_is_not_connected_again():
    core = FeedProtocol(
        Feed("stock-1", "stock", ("00700.HK",)),
        FeedSettings("live"),
        {"infoway.raw.trade": 1, "infoway.raw.depth": 1, "infoway.raw.kline": 1},
        FeedCounters("stock-1"),
        random.Random(1),
    )
    core.ended(1_000_000)
    with pytest.raises(IllegalTransition):
        core.connected(2_000_000)
    with pytest.raises(IllegalTransition):
        core.disconnected(2_000_000, "lost")
