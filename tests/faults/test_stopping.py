"""SIGTERM at any moment ends a worker in order: exit code 0, no traceback."""

import random
import signal

import drill
import pytest
from rules import LONG

MOMENTS = (
    "(Re-)joining group",
    "Joined group",
    "Setting newly assigned",
    "Revoking previously",
    "Executing _on_partitions_assigned",
)
TRIES = 60 if LONG else 6


@pytest.mark.timeout(900 if LONG else 400)
def test_a_worker_that_is_told_to_end_while_the_group_rebalances_ends_in_order(make_fleet):
    fleet, drawn = make_fleet(slow=0, session=10), random.Random(7)
    load = drill.Load(fleet)
    fleet.start("a")
    assert drill.wait_until(lambda: drill.sole_member(fleet), 60), fleet.logs()
    tries = 0
    while tries < TRIES:
        # each start and each end is a rebalance for the others
        slots = [f"w{tries + number}" for number in range(3)]
        tries += len(slots)
        for slot in slots:
            fleet.start(slot)
        load.send(60)
        for slot in slots:
            moment = drawn.choice(MOMENTS)
            assert drill.wait_until(lambda slot=slot: MOMENTS[0] in fleet.log(slot), 60), (
                fleet.logs()
            )
            # the last to join is perhaps the one from whom nothing is revoked
            drill.wait_until(lambda slot=slot, moment=moment: moment in fleet.log(slot), 5)
            drill.pause(drawn.uniform(0, 0.3))
            fleet.signal(slot, signal.SIGTERM)
        assert drill.wait_until(
            lambda: fleet.tend() is not None and list(fleet.workers) == ["a"], 120
        ), fleet.logs()
    assert {name: count for name, count in fleet.events.items() if name.startswith("exit")} == {
        "exit 0": tries
    }, fleet.logs()
    assert "Traceback" not in fleet.logs()
