"""The engine's guarantee under faults, and each of its rules seen to matter: the same fault with
the rule taken out shows."""

import signal
import time

import drill
import pytest
from pipelines import market
from rules import LONG, whole_and_without

TOTAL = 3000
STORM_S, KILLS = (40, 13) if LONG else (20, 6)


@pytest.mark.heavy
@pytest.mark.timeout(600)
def test_workers_killed_at_random_and_at_the_steps_of_a_commit_lose_and_double_nothing(make_fleet):
    fleet = make_fleet(market, seed=31, kill=0.012, stop=0.008, session=6)
    slots = ["a", "b", "c"]
    load = drill.storm(fleet, slots, seconds=STORM_S, rate=1000, seed=31, kills=KILLS)
    killed = fleet.events["exit -9"]
    drill.settle(fleet, slots, load.sent)
    assert killed >= KILLS
    expected = fleet.pipeline.expected(
        drill.read(fleet.bootstrap, fleet.pipeline.source, "read_uncommitted")
    )
    for name in (
        "late",
        "dead-letter",
        "bars.1m",
        "bars.5m",
        "vwap.1m",
        "vwap.session",
        "progress",
    ):
        assert any(expected[f"{fleet.group}.infoway.{name}"].values()), (
            f"{name} was to be part of it"
        )
    assert drill.differences(fleet) == {}
    assert "RUN" in fleet.logs_of_all(), "trades were to be read in columns"


def verdict(fleet, rule):
    found = drill.differences(fleet)
    if rule:
        assert found, f"the drill does not notice that the rule {rule!r} is missing"
    else:
        assert found == {}


@pytest.mark.parametrize("rule", whole_and_without("applied"))
def test_an_agent_ahead_of_the_other_does_not_repeat_itself_after_a_kill(make_fleet, rule):
    fleet = make_fleet(batch=100, slow=1, **{"break": rule})
    load = drill.Load(fleet)
    load.send(TOTAL)
    load.flush()
    fleet.start("a")
    assert drill.wait_until(lambda: drill.applied(fleet, 0) > drill.applied(fleet, 1) > 0, 60)
    fleet.signal("a", signal.SIGKILL)
    drill.settle(fleet, ["a"], TOTAL)
    verdict(fleet, rule)


def stop_one_of_two(fleet, step):
    """Load two workers and stop the first at a step of a commit; return the load once the second
    holds every partition.

    Both run before the fault strikes: the transaction of the stopped one lives for 10 s, and its
    session for 3.
    """
    for slot in ("a", "b"):
        fleet.start(slot)
    assert drill.wait_until(lambda: drill.holders(fleet) == 2, 60), fleet.logs()
    (fleet.directory / "stop-a").write_text(step)
    load = drill.Load(fleet)

    def struck():
        # bit by bit: where the group is dealt out anew just now, the second could have it all
        # before the first has anything to commit
        load.send(min(3, TOTAL - load.sent))
        return fleet.stopped("a")

    assert drill.wait_until(struck, 60), fleet.log("a")
    load.send(TOTAL - load.sent)
    load.flush()
    assert drill.wait_until(lambda: drill.holders(fleet) == 1, 60), fleet.logs()
    return load


def attempts(rule):
    """How often a fault is placed: without the rule it has to show once, and on a busy machine the
    broker may have aborted the stopped worker's transaction, which lives for 10 s, before the
    worker is back."""
    return 3 if rule else 1


def come_back(fleet):
    """Let the stopped worker go on, until it has ended or joined the group anew."""
    joined = fleet.log("a").count("Joined group")
    fleet.signal("a", signal.SIGCONT)
    assert drill.wait_until(
        lambda: "a" in fleet.tend() or fleet.log("a").count("Joined group") > joined, 60
    ), fleet.log("a")


@pytest.mark.parametrize(
    ("rule", "linger"),
    [("", 2), ("", 5000), *([("stable", 2), ("order", 5000)] if LONG else [])],
)
def test_a_worker_that_comes_back_between_send_offsets_and_commit_does_not_double_its_batch(
    make_fleet, rule, linger
):
    for _ in range(attempts(rule)):
        fleet = make_fleet(batch=50, slow=0, linger=linger, **{"break": rule})
        stop_one_of_two(fleet, "after send offsets")
        # with the rules in force the successor waits for the transaction; without, it has read the
        # old state by now
        drill.wait_until(lambda fleet=fleet: drill.applied(fleet, 0) == TOTAL, 3)
        come_back(fleet)
        drill.settle(fleet, ["a", "b"], TOTAL)
        if drill.differences(fleet):
            break
    verdict(fleet, rule)


@pytest.mark.parametrize("rule", whole_and_without("generation"))
def test_a_worker_that_comes_back_with_a_batch_of_an_old_generation_is_refused(make_fleet, rule):
    fleet = make_fleet(batch=50, slow=0.01, **{"break": rule})
    # after it has found itself a member, before its transaction begins: the batch is of a
    # generation that is over by then
    stop_one_of_two(fleet, "begin")
    assert drill.wait_until(lambda: drill.applied(fleet, 1) == TOTAL, 60)
    come_back(fleet)
    if not rule:
        assert fleet.events["exit 70"] == 1, fleet.log("a")
    drill.settle(fleet, ["a", "b"], TOTAL)
    verdict(fleet, rule)


@pytest.mark.parametrize("rule", whole_and_without("gap"))
def test_a_batch_that_never_reaches_its_agent_is_noticed_and_read_again(make_fleet, rule):
    # a member that a stall costs its session reads the lost batch again by itself
    fleet = make_fleet(batch=50, slow=0, session=6, **{"break": rule})
    load = drill.Load(fleet)
    load.send(TOTAL)
    load.flush()
    fleet.start("a", lose=5)
    assert drill.wait_until(lambda: "a" in fleet.tend() or drill.applied(fleet, 1) == TOTAL, 60)
    assert fleet.events["exit 72"] == (0 if rule else 1)
    drill.settle(fleet, ["a"], TOTAL)
    verdict(fleet, rule)


@pytest.mark.timeout(300)
def test_a_worker_stays_in_its_group_under_load_and_idle(make_fleet):
    """aiokafka counts only its own fetches as life: without the plane's marks both would leave
    after 20 s, silently.

    A session that a stall of the machine ends would make them join anew, too: it is longer than
    what is looked for.
    """
    fleets = [make_fleet(max_poll=20, session=30, slow=0) for _ in range(2)]
    busy = fleets[1]
    for fleet in fleets:
        fleet.start("a")

    def sole_members():
        return [drill.sole_member(fleet) for fleet in fleets]

    def joined():
        return [fleet.log("a").count("Joined group") for fleet in fleets]

    members = []

    def settled():
        members[:] = sole_members()
        return all(members)

    assert drill.wait_until(settled, 60), fleets[0].logs() + fleets[1].logs()
    before = joined()
    load, until = drill.Load(busy), time.monotonic() + 45
    while time.monotonic() < until:
        load.send(50)
        load.producer.poll(0.2)
    load.flush()
    # asked again where the broker gave no answer: who has left comes back as another member
    assert drill.wait_until(lambda: sole_members() == members, 30), fleets[1].logs()
    assert joined() == before
    assert drill.wait_until(lambda: drill.applied(busy, 1) == load.sent, 60)
