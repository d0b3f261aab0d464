"""Workers and brokers that stand still for longer than a transaction may: ended workers are
restarted, unless another has the slot."""

import signal
import time

import broker
import drill
import pytest
from pipelines import tally
from rules import whole_and_without

from infra.embedded.ports import free_ports
from infra.embedded.stack import Stack
from processors.engine.transactions.exits import Exit

TOTAL = 3000


@pytest.fixture
def make_fleet(stack, namespace, tmp_path):
    made = []

    def make(**settings):
        directory = tmp_path / str(len(made))
        directory.mkdir()
        made.append(
            drill.Fleet(stack.bootstrap, f"{namespace}{len(made)}", directory, 3, tally, **settings)
        )
        return made[-1]

    yield make
    for fleet in made:
        fleet.close()


def left_open(fleet):
    """Return the partitions of the state topics in which a transaction is open: the broker aborts
    those of workers that stand still."""
    found = []
    for agent in fleet.pipeline.agents:
        stable = drill.ends(fleet.bootstrap, agent.state_topic, "read_committed")
        ends = drill.ends(fleet.bootstrap, agent.state_topic, "read_uncommitted")
        found += [(agent.name, each) for each in ends if stable[each] < ends[each]]
    return found


def never_committed(fleet):
    """Return the partitions in whose state topics records are not committed. Where no transaction
    is open either, the broker has aborted them, and the log shows it for good: nobody has to have
    looked while they were open."""
    found = set()
    for agent in fleet.pipeline.agents:
        written = drill.read(fleet.bootstrap, agent.state_topic, "read_uncommitted")
        committed = drill.read(fleet.bootstrap, agent.state_topic, "read_committed")
        found.update(each for each in written if len(committed[each]) < len(written[each]))
    return found


@pytest.mark.timeout(400)
@pytest.mark.parametrize("rule", whole_and_without("slot"))
def test_a_worker_frozen_at_any_step_of_a_commit_is_restarted(make_fleet, rule):
    steps = {"a": "after flush", "b": "after send offsets", "c": "before flush"}
    fleet = make_fleet(batch=50, slow=0, session=6, **{"break": rule})
    for slot in steps:
        fleet.start(slot)
    assert drill.wait_until(lambda: drill.holders(fleet) == 3, 60), fleet.logs()
    for slot, step in steps.items():
        (fleet.directory / f"stop-{slot}").write_text(step)
    load = drill.Load(fleet)
    load.send(TOTAL)
    load.flush()
    assert drill.wait_until(lambda: all(fleet.stopped(slot) for slot in steps), 60), fleet.logs()
    assert drill.wait_until(lambda: not left_open(fleet), 60), (
        "the broker has not aborted what the frozen workers left open"
    )
    # two of them have sent their states; what the third has of them may still be its client's
    assert len(never_committed(fleet)) >= 2, fleet.logs()
    for slot in steps:
        fleet.signal(slot, signal.SIGCONT)
    # of those whose transaction the broker has aborted each ends; the others find their generation
    # gone, or rejoin
    ended = []
    assert drill.wait_until(lambda: ended.extend(fleet.tend()) or len(ended) >= 2, 60), fleet.log(
        "a"
    )
    if rule:
        assert fleet.events["exit 76"], fleet.events
        return
    drill.settle(fleet, list(steps), TOTAL)
    assert fleet.events["exit 76"] == 0, fleet.log("a")
    assert fleet.events["exit 70"] >= 2, fleet.events
    assert drill.differences(fleet) == {}


@pytest.mark.timeout(400)
def test_workers_of_a_broker_that_stood_still_are_restarted(make_fleet, stack):
    fleet = make_fleet(batch=50, slow=0.2, session=6)
    slots = ["a", "b"]
    for slot in slots:
        fleet.start(slot)
    assert drill.wait_until(lambda: drill.holders(fleet) == 2, 60), fleet.logs()
    load = drill.Load(fleet)
    load.send(TOTAL)
    load.flush()
    with broker.away(stack):
        time.sleep(13)  # the fault itself: longer than a transaction may be open

    def done():
        for slot in fleet.tend():
            fleet.start(slot)
        return drill.applied(fleet, 1) == TOTAL

    assert drill.wait_until(done, 90), fleet.log("a")
    assert set(fleet.events) <= {f"exit {code.value}" for code in Exit if code.restart}, fleet.log(
        "a"
    )
    assert drill.differences(fleet) == {}


@pytest.mark.heavy
@pytest.mark.timeout(500)
def test_a_broker_that_is_stopped_in_order_leaves_no_worker_that_repeats_itself(
    tmp_path, namespace
):
    ports = free_ports(0, 0)
    with Stack(tmp_path / "stack", *ports) as first:
        fleet = drill.Fleet(
            first.bootstrap, namespace, tmp_path, 3, tally, batch=50, slow=0.2, session=6
        )
        fleet.start("a")
        assert drill.wait_until(lambda: drill.holders(fleet) == 1, 60), fleet.log("a")
        (fleet.directory / "stop-a").write_text("after flush")
        load = drill.Load(fleet)
        load.send(TOTAL)
        load.flush()
        assert drill.wait_until(lambda: fleet.stopped("a"), 60)
    try:
        fleet.signal("a", signal.SIGCONT)
        assert drill.wait_until(fleet.tend, 60), fleet.log("a")
        assert fleet.events["exit 70"] == 1, fleet.log("a")
        # the call that is repeated says so, or, if it never returns, the watch over the transaction
        assert "the next worker begins where the last one committed" in fleet.log("a")
        with Stack(tmp_path / "stack", *ports):
            drill.settle(fleet, ["a"], TOTAL)
            assert drill.differences(fleet) == {}
    finally:
        fleet.close()


@pytest.mark.timeout(400)
def test_of_two_live_workers_in_one_slot_one_ends_for_good_and_names_the_other(make_fleet):
    fleet = make_fleet(batch=50, slow=0.01, session=6)
    load = drill.Load(fleet)
    fleet.start("a")
    assert drill.wait_until(lambda: drill.holders(fleet) == 1, 60), fleet.log("a")
    fleet.start("a'")
    ended = []

    def one_ended():
        load.send(50)
        ended.extend(fleet.tend())
        return ended

    assert drill.wait_until(one_ended, 60), fleet.log("a") + fleet.log("a'")
    load.flush()
    assert fleet.events["exit 76"] == 1, fleet.log(ended[0])
    assert (
        f"the transactional id '{fleet.group}-a' was taken over by {fleet.group}-a@"
        in fleet.log(ended[0])
    )
    assert drill.wait_until(lambda: drill.applied(fleet, 1) == load.sent, 60)
    assert fleet.tend() == []
    assert drill.differences(fleet) == {}
