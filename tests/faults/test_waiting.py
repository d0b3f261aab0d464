"""A worker makes progress, or waits for something that it names, or ends with a code that is
restarted: never none of them."""

import drill
import pytest
from broker import away
from confluent_kafka.admin import NewTopic
from rules import whole_and_without

from processors.engine.plane.fetch import Fetch
from processors.engine.transactions.exits import Exit

TOTAL = 1500
MAX_POLL_S = 6
"""Less than each of the faults lasts, and less than the watch's patience: only the marks of life
keep the worker in its group."""


def loaded(fleet):
    load = drill.Load(fleet)
    load.send(TOTAL)
    load.flush()


def verdict(fleet, rule):
    """With the rule in force everything is applied and no worker ends; without it nothing goes
    on."""
    done = drill.wait_until(
        lambda: drill.applied(fleet, 0) == drill.applied(fleet, 1) == TOTAL, 15 if rule else 90
    )
    fleet.tend()
    ended = {name: count for name, count in fleet.events.items() if name.startswith("exit")}
    if rule:
        assert not done, f"the drill does not notice that the rule {rule!r} is missing"
        return
    assert done, fleet.logs()
    assert ended == {}, fleet.logs()
    assert drill.differences(fleet) == {}


@pytest.mark.timeout(240)
@pytest.mark.parametrize("rule", whole_and_without("life"))
def test_a_worker_whose_agent_was_held_up_at_a_rejoin_goes_on(make_fleet, rule):
    fleet = make_fleet(max_poll=MAX_POLL_S, session=6, patience=60, slow=0, **{"break": rule})
    fleet.start("a", stick=2, stuck_s=MAX_POLL_S + 4)
    assert drill.wait_until(lambda: drill.sole_member(fleet), 60), fleet.log("a")
    loaded(fleet)
    assert drill.wait_until(lambda: "STUCK" in fleet.log("a"), 60), fleet.log("a")
    verdict(fleet, rule)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("rule", whole_and_without("life"))
def test_a_worker_whose_states_took_longer_to_load_than_it_may_be_idle_goes_on(make_fleet, rule):
    fleet = make_fleet(max_poll=MAX_POLL_S, session=6, slow=0, **{"break": rule})
    loaded(fleet)
    fleet.start("a", load_s=MAX_POLL_S + 4)
    verdict(fleet, rule)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("rule", whole_and_without("life"))
def test_a_worker_whose_broker_stopped_while_the_group_waited_goes_on(stack, make_fleet, rule):
    fleet = make_fleet(max_poll=MAX_POLL_S, session=6, slow=0, **{"break": rule})
    fleet.start("a")
    assert drill.wait_until(lambda: drill.sole_member(fleet), 60), fleet.log("a")
    fleet.start("b")
    assert drill.wait_until(lambda: "(Re-)joining group" in fleet.log("b"), 60), fleet.log("b")
    with away(stack):
        drill.pause(14)
    # a rebalance into a commit ends a worker, restartably: that is not what is looked for
    assert rule or drill.wait_until(lambda: drill.holders(fleet) == 2, 60), fleet.logs()
    loaded(fleet)
    verdict(fleet, rule)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("rule", whole_and_without("offsets"))
def test_a_worker_waits_for_no_committed_offsets(make_fleet, rule):
    # the question of a rebalance that another overtakes is never answered
    fleet = make_fleet(session=6, patience=60, slow=0, offsets_unanswered=1, **{"break": rule})
    loaded(fleet)
    fleet.start("a")
    verdict(fleet, rule)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("rule", whole_and_without("watch"))
def test_a_stuck_agent_ends_its_worker_restartably_and_another_takes_its_place(make_fleet, rule):
    fleet = make_fleet(patience=9, batch=50, slow=0.01, **{"break": rule})
    loaded(fleet)
    fleet.start("a", stick=3)
    assert drill.wait_until(lambda: "STUCK" in fleet.log("a"), 60), fleet.log("a")
    fleet.start("b")
    done = drill.wait_until(lambda: drill.applied(fleet, 1) == TOTAL, 40 if rule else 90)
    fleet.tend()
    assert done == (fleet.events[f"exit {Exit.STUCK}"] == 1) == (not rule), fleet.log("a")
    assert Exit.STUCK.restart
    if not rule:
        assert "slow did not come back from a batch" in fleet.log("a")
        assert drill.differences(fleet) == {}


def test_a_broker_that_stopped_answering_has_no_ends(stack, namespace):
    """librdkafka gives -1001 for an offset that it was not answered: no error, and less than any
    offset."""
    drill.create_topics(stack.bootstrap, [NewTopic(f"{namespace}in", 1, 1)])
    fetch, places = Fetch(stack.bootstrap, 1), [(f"{namespace}in", 0)]
    assert drill.wait_until(lambda: fetch.ends(places) == {places[0]: 0}, 60)
    with away(stack):
        assert [fetch.ends(places) for _ in range(2)] == [None, None]
    assert drill.wait_until(lambda: fetch.ends(places) == {places[0]: 0}, 60)


def test_a_broker_that_is_gone_has_no_ends_and_a_partition_that_is_gone_is_named_once(
    stack, proxy, namespace, caplog
):
    there, gone = (f"{namespace}there", 0), (f"{namespace}gone", 0)
    drill.create_topics(stack.bootstrap, [NewTopic(there[0], 1, 1)])
    fetch = Fetch(proxy.address, 10)
    assert drill.wait_until(lambda: fetch.ends([there]) == {there: 0}, 60)
    for _ in range(2):
        assert drill.wait_until(lambda: fetch.ends([there, gone]) == {there: 0}, 30)
    assert (
        caplog.text.count("the ends of partitions are not known")
        == caplog.text.count(f"{gone[0]}[0]: ")
        == 1
    )
    # connections are refused, as after a kill: librdkafka then knows no leader of any partition
    proxy.refuse()
    caplog.clear()
    for _ in range(3):
        assert fetch.ends([there]) is None
    assert "ends of partitions" not in caplog.text
