"""The engine's guarantee under faults, and each of its rules seen to matter: the same fault with the rule taken out shows."""

import signal

import drill
import pytest
from pipelines import market, tally

TOTAL = 3000


@pytest.fixture
def make_fleet(stack, namespace, tmp_path):
    made = []

    def make(pipeline=tally, **settings):
        made.append(drill.Fleet(stack.bootstrap, namespace.rstrip("."), tmp_path, 3, pipeline, **{"session": 3, **settings}))
        return made[-1]

    yield make
    for fleet in made:
        fleet.close()


@pytest.mark.timeout(600)
def test_workers_killed_at_random_and_at_the_steps_of_a_commit_lose_and_double_nothing(make_fleet):
    fleet = make_fleet(market, seed=31, kill=0.012, stop=0.008, session=6)
    slots = ["a", "b", "c"]
    load = drill.storm(fleet, slots, seconds=60, rate=1000, seed=31, kills=20)
    killed = fleet.events["exit -9"]
    drill.settle(fleet, slots, load.sent)
    assert killed >= 20
    expected = fleet.pipeline.expected(drill.read(fleet.bootstrap, fleet.pipeline.source, "read_uncommitted"))
    for name in ("late", "dead-letter", "bars.1m", "bars.5m", "vwap.1m", "vwap.session", "progress"):
        assert any(expected[f"{fleet.group}.infoway.{name}"].values()), f"{name} was to be part of it"
    assert drill.differences(fleet) == {}


def verdict(fleet, rule):
    found = drill.differences(fleet)
    if rule:
        assert found, f"the drill does not notice that the rule {rule!r} is missing"
    else:
        assert found == {}


@pytest.mark.parametrize("rule", ["", "applied"])
def test_an_agent_ahead_of_the_other_does_not_repeat_itself_after_a_kill(make_fleet, rule):
    fleet = make_fleet(batch=100, slow=1, **{"break": rule})
    load = drill.Load(fleet)
    load.send(TOTAL)
    load.flush()
    fleet.start("a")
    assert drill.wait_until(lambda: drill.applied(fleet, 0) > drill.applied(fleet, 1) > 0, 30)
    fleet.signal("a", signal.SIGKILL)
    drill.settle(fleet, ["a"], TOTAL)
    verdict(fleet, rule)


@pytest.mark.parametrize(("rule", "linger"), [("", 2), ("stable", 2), ("", 5000), ("order", 5000)])
def test_a_worker_that_comes_back_between_send_offsets_and_commit_does_not_double_its_batch(make_fleet, tmp_path, rule, linger):
    fleet = make_fleet(batch=50, slow=0, linger=linger, **{"break": rule})
    load = drill.Load(fleet)
    load.send(TOTAL)
    load.flush()
    (tmp_path / "stop-a").write_text("after send offsets")
    fleet.start("a")
    assert drill.wait_until(lambda: fleet.stopped("a"), 30), fleet.log("a")
    fleet.start("b", linger=2)
    assert drill.wait_until(lambda: drill.sole_member(fleet), 15)
    # with the rules in force the successor waits for the transaction; without, it has read the old state by now
    drill.wait_until(lambda: drill.applied(fleet, 0) == TOTAL, 4)
    fleet.signal("a", signal.SIGCONT)
    assert drill.wait_until(lambda: "a" in fleet.tend() or fleet.log("a").count("Joined group") > 1, 20), fleet.log("a")
    drill.settle(fleet, ["a", "b"], TOTAL)
    verdict(fleet, rule)


@pytest.mark.parametrize("rule", ["", "generation"])
def test_a_worker_that_comes_back_with_a_batch_of_an_old_generation_is_refused(make_fleet, tmp_path, rule):
    fleet = make_fleet(batch=50, slow=0.01, **{"break": rule})
    load = drill.Load(fleet)
    load.send(TOTAL)
    load.flush()
    (tmp_path / "stop-a").write_text("after commit")
    fleet.start("a")
    assert drill.wait_until(lambda: fleet.stopped("a"), 30), fleet.log("a")
    fleet.start("b")
    assert drill.wait_until(lambda: drill.applied(fleet, 1) == TOTAL, 30)
    fleet.signal("a", signal.SIGCONT)
    assert drill.wait_until(lambda: "a" in fleet.tend() or fleet.log("a").count("Joined group") > 1, 20), fleet.log("a")
    if not rule:
        assert fleet.events["exit 70"] == 1, fleet.log("a")
    drill.settle(fleet, ["a", "b"], TOTAL)
    verdict(fleet, rule)


@pytest.mark.parametrize("rule", ["", "gap"])
def test_a_batch_that_never_reaches_its_agent_is_noticed_and_read_again(make_fleet, rule):
    fleet = make_fleet(batch=50, slow=0, **{"break": rule})
    load = drill.Load(fleet)
    load.send(TOTAL)
    load.flush()
    fleet.start("a", lose=5)
    assert drill.wait_until(lambda: "a" in fleet.tend() or drill.applied(fleet, 1) == TOTAL, 30)
    assert fleet.events["exit 72"] == (0 if rule else 1)
    drill.settle(fleet, ["a"], TOTAL)
    verdict(fleet, rule)
