"""What retention, a topic made again and a transaction's markers do to the offsets in the state."""

import signal

import confluent_kafka as ck
import drill
import pytest
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec
from rules import whole_and_without

from processors.engine.state import load_states
from processors.engine.transactions.exits import Exit

EACH = 30


def write(fleet, outcomes):
    """Write transactions into every partition of the source, each to be committed or aborted."""
    producer = ck.Producer(
        {"bootstrap.servers": fleet.bootstrap, "transactional.id": f"{fleet.group}-source"}
    )
    producer.init_transactions(30)
    for outcome in outcomes:
        producer.begin_transaction()
        for partition in range(fleet.partitions):
            for number in range(EACH):
                producer.produce(fleet.pipeline.source, b"trade", b"k%d" % (number % 3), partition)
        producer.flush(30)
        (producer.commit_transaction if outcome == "commit" else producer.abort_transaction)(30)


def ends(fleet):
    admin = AdminClient({"bootstrap.servers": fleet.bootstrap})
    places = [
        ck.TopicPartition(fleet.pipeline.source, partition) for partition in range(fleet.partitions)
    ]
    return {
        place.partition: future.result(60).offset
        for place, future in admin.list_offsets(dict.fromkeys(places, OffsetSpec.latest())).items()
    }


def delete_up_to(fleet, offsets):
    """What retention does, at once."""
    admin = AdminClient({"bootstrap.servers": fleet.bootstrap})
    places = [
        ck.TopicPartition(fleet.pipeline.source, partition, offset)
        for partition, offset in offsets.items()
    ]
    for future in admin.delete_records(places).values():
        future.result(60)


def end(fleet, slot="a"):
    fleet.signal(slot, signal.SIGTERM)
    assert drill.wait_until(lambda: slot in fleet.tend(), 60), fleet.logs()


@pytest.mark.parametrize("outcomes", [("commit",), ("commit", "abort")], ids=" ".join)
@pytest.mark.parametrize("rule", whole_and_without("marker"))
def test_a_partition_read_to_its_end_and_emptied_by_retention_has_lost_nothing(
    make_fleet, rule, outcomes
):
    fleet = make_fleet(slow=0, **{"break": rule})
    write(fleet, outcomes)
    fleet.start("a")
    read = EACH * fleet.partitions
    assert drill.wait_until(
        lambda: drill.applied(fleet, 1) >= (read if rule else sum(ends(fleet).values())), 60
    ), fleet.logs()
    end(fleet)
    assert fleet.events["exit 0"] == 1, fleet.logs()
    delete_up_to(fleet, ends(fleet))
    fleet.start("a")
    if rule:
        assert drill.wait_until(fleet.tend, 60), fleet.logs()
        assert fleet.events[f"exit {Exit.SETUP_WRONG}"] == 1
        return
    write(fleet, ("commit",))
    assert drill.wait_until(lambda: drill.applied(fleet, 1) >= sum(ends(fleet).values()), 60), (
        fleet.logs()
    )
    assert not fleet.tend()
    counted = drill.read(fleet.bootstrap, f"{fleet.group}-slow", "read_committed")
    assert {partition: len(rows) for partition, rows in counted.items()} == dict.fromkeys(
        range(fleet.partitions), 2 * EACH
    )


def test_records_that_retention_deletes_unread_end_the_worker_for_good(make_fleet):
    fleet = make_fleet(slow=0)
    write(fleet, ("commit",))
    fleet.start("a")
    assert drill.wait_until(lambda: drill.applied(fleet, 1) >= sum(ends(fleet).values()), 60), (
        fleet.logs()
    )
    end(fleet)
    write(fleet, ("commit",))
    delete_up_to(fleet, {0: ends(fleet)[0] - 3})
    fleet.start("a")
    assert drill.wait_until(fleet.tend, 60), fleet.logs()
    assert fleet.events[f"exit {Exit.SETUP_WRONG}"] == 1
    assert "were deleted by retention" in fleet.log("a")


@pytest.mark.parametrize("rule", whole_and_without("log"))
def test_a_source_that_was_deleted_and_made_again_is_not_taken_for_the_one_before(make_fleet, rule):
    fleet = make_fleet(slow=0, **{"break": rule})
    write(fleet, ("commit",))
    fleet.start("a")
    assert drill.wait_until(lambda: drill.applied(fleet, 1) >= sum(ends(fleet).values()), 60), (
        fleet.logs()
    )
    end(fleet)
    before = drill.applied(fleet, 1)
    admin = AdminClient({"bootstrap.servers": fleet.bootstrap})
    admin.delete_topics([fleet.pipeline.source])[fleet.pipeline.source].result(60)
    assert drill.wait_until(
        lambda: fleet.pipeline.source not in admin.list_topics(timeout=10).topics, 60
    )
    drill.create_topics(fleet.bootstrap, [NewTopic(fleet.pipeline.source, fleet.partitions, 1)])
    write(fleet, ("commit", "commit"))
    fleet.start("a")
    if rule:
        assert drill.wait_until(lambda: drill.applied(fleet, 1) > before, 60), fleet.logs()
        return  # the first records of the new topic were passed over, and nobody was told
    assert drill.wait_until(fleet.tend, 60), fleet.logs()
    assert fleet.events[f"exit {Exit.SETUP_WRONG}"] == 1
    assert "was deleted and made again" in fleet.log("a")
    assert drill.applied(fleet, 1) == before


@pytest.mark.parametrize("rule", whole_and_without("loader"))
def test_a_revocation_does_not_wait_for_states_that_are_being_loaded(make_fleet, rule):
    fleet = make_fleet(slow=0, session=6, **{"break": rule})
    drill_load = drill.Load(fleet)
    fleet.start("a", load_s=60, deaf=1)
    assert drill.wait_until(lambda: "Joined group" in fleet.log("a"), 60), fleet.logs()
    drill_load.send(300)
    drill_load.flush()
    fleet.start("b")
    assert drill.wait_until(lambda: "Discovered coordinator" in fleet.log("b"), 40), fleet.logs()
    # a rebalance goes on without a member that does not come back for 20 s
    joined = drill.wait_until(lambda: "Joined group" in fleet.log("b"), 7 if rule else 15)
    assert joined != bool(rule), fleet.logs()


def test_a_state_whose_log_loses_its_start_while_it_is_loaded_is_read_from_the_new_start(
    stack, namespace, monkeypatch
):
    topic, count, kept = f"{namespace}state", 4000, 3990
    drill.create_topics(
        stack.bootstrap, [NewTopic(topic, 1, 1, config={"segment.bytes": "1048576"})]
    )
    producer = ck.Producer(
        {
            "bootstrap.servers": stack.bootstrap,
            "linger.ms": 0,
            "batch.num.messages": 1,
            "queue.buffering.max.messages": count,
        }
    )
    for number in range(count):
        producer.produce(topic, b"x" * 1000, b"k%d" % number)
    assert producer.flush(60) == 0
    make = ck.Consumer
    # as little ahead as possible: what is deleted has not been fetched
    monkeypatch.setattr(
        ck,
        "Consumer",
        lambda conf: make(
            {
                **conf,
                "queued.min.messages": 1,
                "fetch.message.max.bytes": 1000,
                "fetch.max.bytes": 1_000_000,
            }
        ),
    )
    deleted = []

    def moved():
        if not deleted:
            deleted.append(True)
            admin = AdminClient({"bootstrap.servers": stack.bootstrap})
            admin.delete_records([ck.TopicPartition(topic, 0, kept)])[
                ck.TopicPartition(topic, 0, kept)
            ].result(60)

    entries = load_states(stack.bootstrap, [(topic, 0)], 60, moved=moved)[topic, 0]
    assert deleted
    assert sorted(entries) == sorted(b"k%d" % number for number in range(kept, count))
