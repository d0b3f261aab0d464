"""A record at which an agent fails three times stops that agent there, and nothing else; `skip`
passes over it, on record."""

import drill
import pytest
from tally import HEAVY

from infra.cli.commands.repair.skip import NotStopped, pass_over
from processors.engine.transactions.exits import Exit
from schemas.topics import DEAD_LETTER

BOMB_AT = 120
EACH = 300
BOMBED = 1
"""The partition with the record at which the agent `slow` fails."""


def loaded(fleet, bomb):
    load = drill.Load(fleet)
    load.send(BOMB_AT * fleet.partitions)
    load.flush()
    load.producer.produce(fleet.pipeline.source, bomb, bomb, BOMBED)
    load.flush()
    load.send((EACH - BOMB_AT) * fleet.partitions)
    load.flush()


def skipped(fleet, offset, retry=False):
    slow = fleet.pipeline.agents[1]
    place = fleet.pipeline.source, BOMBED
    return pass_over(
        fleet.bootstrap,
        "slow",
        slow.state_topic,
        place,
        offset,
        fleet.pipeline.outputs,
        f"{fleet.group}-skip",
        "anna@ops",
        retry,
    )


def until(fleet, condition):
    """Start the worker again whenever it ends, until the condition is true."""

    def done():
        for slot in fleet.tend():
            fleet.start(slot)
        return condition()

    assert drill.wait_until(done, 180), fleet.logs()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("bomb", [b"bomb", HEAVY])
def test_an_agent_that_fails_three_times_at_a_record_stops_there_until_it_is_passed_over(
    make_fleet, bomb
):
    """At the record itself, and at writing the state that it gives."""
    fleet = make_fleet(batch=50, slow=0.01)
    loaded(fleet, bomb)
    with pytest.raises(NotStopped, match="is not stopped"):
        skipped(fleet, BOMB_AT)
    fleet.start("a")
    total = EACH * fleet.partitions + 1
    until(
        fleet,
        lambda: drill.applied(fleet, 0) == total and drill.applied(fleet, 1) == 2 * EACH + BOMB_AT,
    )
    assert fleet.events[f"exit {Exit.AGENT_FAILED}"] == 3
    assert Exit.AGENT_FAILED.restart
    assert drill.wait_until(lambda: "agent slow is stopped at" in fleet.log("a"), 60)
    assert f"--partition {BOMBED} --offset {BOMB_AT}`" in fleet.log("a")

    with pytest.raises(NotStopped, match=f"stopped at offset {BOMB_AT}"):
        skipped(fleet, BOMB_AT + 1)
    retried = bomb == b"bomb"
    if retried:
        assert "is tried again" in skipped(fleet, BOMB_AT, retry=True)
        until(fleet, lambda: fleet.events[f"exit {Exit.AGENT_FAILED}"] == 6)
        named = fleet.log("a").count("agent slow is stopped at")
        until(fleet, lambda: fleet.log("a").count("agent slow is stopped at") > named)
    assert "is a dead letter now" in skipped(fleet, BOMB_AT)
    assert "before: nothing was done" in skipped(fleet, BOMB_AT)
    until(fleet, lambda: drill.applied(fleet, 1) == total)
    # the worker ran: it ended to try the record again, and to go on behind it
    assert fleet.events[f"exit {Exit.GAP_FOUND}"] == 1 + retried

    log = drill.read(fleet.bootstrap, fleet.pipeline.source, "read_committed")
    without = {
        partition: [m for m in messages if m.key() != bomb] for partition, messages in log.items()
    }
    letters = f"{fleet.group}-{DEAD_LETTER}"
    wanted = {
        topic: rows
        for source, names in ((log, ("fast", "fast-late")), (without, ("slow", "slow-late")))
        for topic, rows in _expected(fleet, source, names).items()
    }
    for topic, rows in wanted.items():
        seen = drill.read(fleet.bootstrap, topic, "read_committed")
        assert {
            partition: [(m.key(), m.value()) for m in messages]
            for partition, messages in seen.items()
        } == rows, topic
    texts = [
        m.value()
        for messages in drill.read(fleet.bootstrap, letters, "read_committed").values()
        for m in messages
    ]
    [letter] = [text for text in texts if b"Skipped" in text]
    assert (
        b"agent slow failed 3 times (ArithmeticError: cannot %s); passed over by anna@ops"
        % (b"write heavy" if bomb == HEAVY else b"count bomb")
        in letter
    )
    assert f"{fleet.pipeline.source} {BOMBED} {BOMB_AT} {bomb.hex()}".encode() in letter


def _expected(fleet, log, names):
    """What a run without faults makes of the log, of the topics of these names."""
    whole = {}
    for agent in fleet.pipeline.agents:
        if agent.name not in names:
            continue
        for partition, messages in log.items():
            rows = agent.computation.apply(
                agent.computation.load(partition, {}), list(map(fleet.pipeline.decode, messages))
            )
            for name, key, fields in rows:
                topic, _, key_bytes, value = fleet.pipeline.outputs.encode(
                    name, partition, key, fields, fleet.pipeline.source
                )
                whole.setdefault(topic, {each: [] for each in log})[partition].append(
                    (key_bytes, value)
                )
    return whole
