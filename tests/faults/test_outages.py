"""The project's own workers, all agents, through outages of broker, registry and workers at each
moment of their work.

The raw log has control records, several feeds and connections, late trades and poison. Afterwards
no byte differs from a run without faults, the lag is 0 within 60 s, and every worker that ended has
started again. DRILL_LONG=1 (`make drill`) runs all of them.
"""

import signal
import time
from itertools import product

import drill
import psutil
import pytest
from integration.test_determinism import compare, running
from integration.test_determinism import reference as reference
from outages import frozen, frozen_workers, stopped
from rules import LONG

from infra.embedded.stack import Stack
from processors.engine.transactions.exits import Exit

WITHIN_S = 60.0
KINDS = (
    ("kafka", "freeze"),
    ("kafka", "stop"),
    ("registry", "freeze"),
    ("registry", "stop"),
    ("workers", "freeze"),
)
MOMENTS = ("commit", "rebalance", "load")
EVERY = [
    (*kind, seconds, moment) for kind, seconds, moment in product(KINDS, (5, 14, 45, 120), MOMENTS)
]
SHORT = [
    ("kafka", "freeze", 5, "rebalance"),
    ("kafka", "stop", 5, "commit"),
    ("registry", "stop", 5, "load"),
]
STEPS = ("begin", "before flush", "after flush", "after send offsets", "after commit")


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """A broker and a registry of this module's own: they are stopped here."""
    with Stack(tmp_path_factory.mktemp("outages")) as own:
        yield own


def struck(stack, run, what, how):
    if what == "workers":
        return frozen_workers(run.names.prefix)
    return (frozen if how == "freeze" else stopped)(stack, what)


def bring_about(run, moment):
    """Set off the moment at which the fault is to strike."""
    if moment == "commit":
        return
    workers = [
        child
        for child in psutil.Process().children()
        if child.environ().get("INFOWAY_PREFIX") == run.names.prefix
    ]
    joined = [run.joined(slot) for slot in ("0", "1")]
    for worker in workers[: 1 if moment == "rebalance" else 2]:
        worker.send_signal(signal.SIGTERM if moment == "rebalance" else signal.SIGKILL)
    if moment == "rebalance":
        assert drill.wait_until(lambda: [run.joined(slot) for slot in ("0", "1")] != joined, 60), (
            run.logs()
        )


@pytest.mark.heavy
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("what", "how", "seconds", "moment"), EVERY if LONG else SHORT)
def test_an_outage_changes_no_byte_and_ends_no_worker_for_good(
    stack, namespace, tmp_path, reference, what, how, seconds, moment
):
    with running(stack, namespace, tmp_path, 2, 20, "0") as run:
        run.await_shared()
        third = len(run.log) // 3
        run.publish(run.log[:third])
        bring_about(run, moment)
        run.publish(run.log[third : 2 * third])
        with struck(stack, run, what, how):
            drill.pause(seconds)
        run.publish(run.log[2 * third :])
        healed = time.monotonic()
        left = lambda: run.supervisor.check() or run.lag()  # noqa: E731
        assert drill.wait_until(lambda: left() == 0, WITHIN_S), (left(), run.logs())
        run.supervisor.check()
        run.await_shared()
        assert time.monotonic() - healed < 2 * WITHIN_S
        compare(run, reference)


@pytest.mark.heavy
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("step", "seconds"), list(product(STEPS, (5, 14, 45, 120))) if LONG else [("before flush", 5)]
)
@pytest.mark.parametrize("alone", [True, False] if LONG else [False])
def test_a_worker_frozen_at_a_step_of_a_commit_ends_restartably_or_goes_on(
    make_fleet, step, seconds, alone
):
    fleet = make_fleet(batch=50, slow=0.01, session=6)
    slots = ["a"] if alone else ["a", "b"]
    for slot in slots:
        fleet.start(slot)
    assert drill.wait_until(lambda: drill.holders(fleet) == len(slots), 60), fleet.logs()
    (fleet.directory / "stop-a").write_text(step)
    load = drill.Load(fleet)
    load.send(3000)
    load.flush()
    assert drill.wait_until(lambda: fleet.stopped("a"), 60), fleet.logs()
    drill.pause(seconds)
    fleet.signal("a", signal.SIGCONT)
    healed = time.monotonic()

    def done():
        for slot in fleet.tend():
            fleet.start(slot)
        return drill.applied(fleet, 0) == drill.applied(fleet, 1) == 3000

    assert drill.wait_until(done, WITHIN_S), fleet.logs()
    assert time.monotonic() - healed < WITHIN_S
    ended = {int(name.removeprefix("exit ")) for name in fleet.events if name.startswith("exit ")}
    assert all(Exit(code).restart for code in ended), (fleet.events, fleet.logs())
    assert drill.differences(fleet) == {}
