"""Each trade that the vendor made counts at most once, wherever its symbol is carried: hundreds of
worlds of stalls, cuts, moves and restarts. A vendor answers a subscription by its ack, and then by
the symbol's last trade."""

import pytest
from unit.vendor_model import Model, World

from producers.transport import feed_group

WORLDS = {
    "one feed": World(feeds=1),
    "two feeds": World(),
    "three feeds": World(feeds=3),
    "many changes": World(changes=0.1),
    "many stalls": World(stalls=0.06),
    "refusals": World(refused=0.1),
    "new processes": World(restarts=0.01),
    "only cuts and stalls": World(changes=0.0, cuts=0.03),
}
SEEDS = 60


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    # the model's time is its own
    monkeypatch.setattr(feed_group, "RELEASE", 0.0)


@pytest.mark.parametrize("name", WORLDS)
def test_no_trade_counts_twice_and_all_that_came_is_a_record_or_a_dead_letter(name):
    made = 0
    for seed in range(SEEDS):
        model = Model(seed, WORLDS[name])
        model.run(300)
        twice = [price for price, count in model.counted.items() if count > 1]
        assert not twice, f"seed {seed}: trades {twice} count twice"
        assert not model.wrong_repeats, f"seed {seed}: {model.wrong_repeats} came once"
        assert model.received == model.published + model.letters, f"seed {seed}"
        made += sum(model.counted.values())
    # the model is no idle one
    assert made > 40 * SEEDS
