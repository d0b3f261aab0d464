"""What `topology plan` finds: comparisons of plain values, what the environment asks for, what is
printed, exit codes."""

import json
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import replace

import pytest
from confluent_kafka import KafkaError, KafkaException

from infra.cli import main as cli
from infra.cli.commands.topics import topology as command
from infra.cli.commands.topics.topology import as_json, lines
from infra.topology import Refused, TopologyError, applying, cluster
from infra.topology.difference import (
    Action,
    Allowed,
    Attribute,
    Snapshot,
    SubjectState,
    TopicState,
    TopologyPlan,
    compare,
)
from infra.topology.wanted import Wanted, WantedWrong, wanted
from schemas.topics import Topology

NAMES = Topology("x.", intervals=("1m",), windows=("1m",), partitions=4)
DAY = 86_400_000
BAR = "x.infoway.bars.1m"


def wish(**environment):
    return wanted(NAMES, environment)


def of(wants, *names):
    return replace(wants, topics=tuple(topic for topic in wants.topics if topic.name in names))


def as_wanted(wants):
    """A cluster on which nothing is to be done."""
    topics = {
        topic.name: TopicState(
            topic.partitions,
            wants.replication or 3,
            {"retention.ms": "-1", "max.message.bytes": "1", **topic.config},
        )
        for topic in wants.topics
    }
    subjects = {
        topic.subject: SubjectState(n, "FULL_TRANSITIVE")
        for n, topic in enumerate(wants.topics)
        if topic.schema
    }
    return Snapshot(topics, subjects)


def with_bar(snapshot, partitions=None, replication=None, **config):
    state = snapshot.topics[BAR]
    config = {name.replace("_", "."): value for name, value in config.items()}
    changed = TopicState(
        partitions or state.partitions, replication or state.replication, {**state.config, **config}
    )
    return replace(snapshot, topics={**snapshot.topics, BAR: changed})


def differences(wants, snapshot, **allowed):
    """Every difference as (name, action, attribute, old, new), and the reasons of what is
    refused."""
    planned = compare(wants, snapshot, Allowed(**allowed))
    return (
        [
            (c.name, c.action.value, a.name, a.old, a.new)
            for c in planned.changes
            for a in c.attributes
        ],
        [a.refused for c in planned.changes for a in c.attributes if a.refused],
    )


def test_on_an_empty_cluster_everything_is_to_be_created():
    planned = compare(wish(), Snapshot({}, {}), Allowed())
    topics = NAMES.topics()
    assert (
        planned.count(Action.CREATE)
        == len(planned.changes)
        == len(topics) + len([topic for topic in topics if topic.schema])
    )
    state = next(change for change in planned.changes if change.name == "x.infoway.state.bars")
    assert Attribute("partitions", None, "4") in state.attributes
    assert Attribute("cleanup.policy", None, "compact") in state.attributes


def test_where_all_is_as_wanted_nothing_is_to_be_done():
    for wants in (
        wish(),
        wish(INFOWAY_REPLICATION="3", INFOWAY_MIN_INSYNC_REPLICAS="2", INFOWAY_RETENTION="*=9d"),
    ):
        assert compare(wants, as_wanted(wants), Allowed()).changes == ()


@pytest.mark.parametrize(
    ("value", "cause"), [("false", "set it to true"), (None, "older than Kafka 3.6")]
)
def test_brokers_that_do_not_verify_transactions_are_refused_unless_they_are_allowed(value, cause):
    wants = wish()
    snapshot = replace(as_wanted(wants), verification={"1": "true", "2": value})
    found, reasons = differences(wants, snapshot)
    assert found == [("2", "refused", "transaction.partition.verification.enable", value, "true")]
    assert cause in reasons[0]
    assert "--allow-unverified-transactions" in reasons[0]
    assert differences(wants, snapshot, unverified_transactions=True) == ([], [])


def test_settings_that_are_not_ours_are_left_alone():
    wants = wish()
    assert differences(
        wants,
        with_bar(as_wanted(wants), max_message_bytes="77", min_insync_replicas="2", replication=5),
    ) == ([], [])


def test_a_config_changed_by_hand_is_set_back():
    wants = wish()
    snapshot = with_bar(as_wanted(wants), retention_ms="1000", compression_type="gzip")
    assert differences(wants, snapshot) == (
        [
            (BAR, "change", "compression.type", "gzip", "producer"),
            (BAR, "change", "retention.ms", "1000", str(30 * DAY)),
        ],
        [],
    )


@pytest.mark.parametrize("kept", ["-1", str(31 * DAY)])
def test_a_shorter_retention_is_refused_unless_it_is_allowed(kept):
    wants = wish()
    snapshot = with_bar(as_wanted(wants), retention_ms=kept)
    found, reasons = differences(wants, snapshot)
    assert found == [(BAR, "refused", "retention.ms", kept, str(30 * DAY))]
    assert ["--allow-shorter-retention" in reason for reason in reasons] == [True]
    assert differences(wants, snapshot, shorter_retention=True) == (
        [(BAR, "change", "retention.ms", kept, str(30 * DAY))],
        [],
    )


def test_a_topic_that_deletes_nothing_yet_is_not_made_to_delete():
    wants = wish()
    found, reasons = differences(wants, with_bar(as_wanted(wants), cleanup_policy="compact"))
    assert found == [(BAR, "refused", "cleanup.policy", "compact", "delete")]
    assert len(reasons) == 1


def test_state_that_was_let_expire_is_kept_again():
    wants = of(wish(), "x.infoway.state.bars")
    snapshot = as_wanted(wants)
    state = snapshot.topics["x.infoway.state.bars"]
    expiring = TopicState(
        state.partitions, 3, {**state.config, "cleanup.policy": "delete", "retention.ms": "5"}
    )
    found, reasons = differences(
        wants, replace(snapshot, topics={"x.infoway.state.bars": expiring})
    )
    assert (found, reasons) == (
        [("x.infoway.state.bars", "change", "cleanup.policy", "delete", "compact")],
        [],
    )


def test_more_partitions_are_refused_unless_they_are_allowed():
    wants = wish()
    snapshot = with_bar(as_wanted(wants), partitions=2)
    found, reasons = differences(wants, snapshot)
    assert found == [(BAR, "refused", "partitions", "2", "4")]
    assert "--allow-partition-change" in reasons[0]
    assert differences(wants, snapshot, partition_change=True) == (
        [(BAR, "change", "partitions", "2", "4")],
        [],
    )


def test_fewer_partitions_are_refused_whatever_is_allowed():
    wants = wish()
    found, reasons = differences(
        wants,
        with_bar(as_wanted(wants), partitions=9),
        partition_change=True,
        shorter_retention=True,
    )
    assert found == [(BAR, "refused", "partitions", "9", "4")]
    assert "takes no partitions away" in reasons[0]


def test_another_replication_factor_is_refused_with_the_way_to_it():
    wants = wish(INFOWAY_REPLICATION="3")
    found, reasons = differences(wants, with_bar(as_wanted(wants), replication=1))
    assert found == [(BAR, "refused", "replication factor", "1", "3")]
    assert "kafka-reassign-partitions.sh" in reasons[0]


def test_a_new_schema_version_and_a_wrong_level_are_changes_and_an_incompatible_one_is_refused():
    wants, subject = of(wish(), BAR), f"{BAR}-value"

    def found(state):
        return differences(wants, replace(as_wanted(wants), subjects={subject: state}))

    assert found(SubjectState(None, "NONE", 2)) == (
        [
            (subject, "change", "schema", "version 2", "bar.avsc"),
            (subject, "change", "compatibility", "NONE", "FULL_TRANSITIVE"),
        ],
        [],
    )
    assert found(SubjectState(7, None)) == (
        [(subject, "change", "compatibility", None, "FULL_TRANSITIVE")],
        [],
    )
    changed, reasons = found(SubjectState(None, "FULL_TRANSITIVE", 1, "field gone"))
    assert changed == [(subject, "refused", "schema", "version 1", "bar.avsc")]
    assert "not FULL_TRANSITIVE (field gone)" in reasons[0]


@pytest.mark.parametrize(
    ("environment", "blamed"),
    [({"INFOWAY_REPLICATION": "3"}, "replication factor"), ({}, "partitions")],
)
def test_what_the_cluster_would_not_create_is_refused_with_its_reason(environment, blamed):
    wants = of(wish(**environment), BAR, "x.infoway.late")
    planned = compare(
        wants,
        replace(as_wanted(wants), topics={}, refusals={BAR: "only 1 broker(s) are registered"}),
        Allowed(),
    )
    assert [(change.name, change.action) for change in planned.changes] == [
        (BAR, Action.REFUSED),
        ("x.infoway.late", Action.CREATE),
    ]
    [refused] = [attribute for attribute in planned.changes[0].attributes if attribute.refused]
    assert (refused.name, refused.refused) == (
        blamed,
        "the cluster says: only 1 broker(s) are registered",
    )
    assert f"{BAR}: {blamed} {refused.new}, the cluster says" in str(Refused(planned))


class Answering:
    """An admin client of a cluster that answers an error's code to the creation of each topic, or
    None."""

    def __init__(self, code):
        self.code = code

    def create_topics(self, topics, validate_only, request_timeout):
        assert validate_only
        found = {topic.topic: Future() for topic in topics}
        for future in found.values():
            future.set_exception(
                KafkaException(KafkaError(self.code, "so it is."))
            ) if self.code else future.set_result(None)
        return found


@pytest.mark.parametrize(
    ("code", "refusals"),
    [
        (None, {}),
        (KafkaError.INVALID_REPLICATION_FACTOR, {BAR: "so it is"}),
        (KafkaError.POLICY_VIOLATION, {BAR: "so it is"}),
        # who may look and not create sees the plan too, and so does who comes second
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, {}),
        (KafkaError.TOPIC_ALREADY_EXISTS, {}),
    ],
)
def test_the_cluster_is_asked_what_it_would_create(code, refusals):
    topics = [topic for topic in NAMES.topics() if topic.name == BAR]
    assert cluster._refusals(Answering(code), topics, 3) == refusals


def test_any_other_answer_is_an_error():
    with pytest.raises(TopologyError, match=r"topic x\.infoway\.bars\.1m: so it is"):
        cluster._refusals(
            Answering(KafkaError.REQUEST_TIMED_OUT),
            [topic for topic in NAMES.topics() if topic.name == BAR],
            3,
        )


def test_the_environment_says_replication_and_retention():
    wants = wish(
        INFOWAY_REPLICATION="3",
        INFOWAY_MIN_INSYNC_REPLICAS="2",
        INFOWAY_RETENTION="infoway.raw.*=36h, infoway.raw.depth=90m,infoway.bars.*=unlimited",
    )
    assert wants.replication == 3
    assert {topic.config["min.insync.replicas"] for topic in wants.topics} == {"2"}
    kept = {
        NAMES.contract_name(topic.name): topic.config.get("retention.ms") for topic in wants.topics
    }
    assert (kept["infoway.raw.trade"], kept["infoway.raw.depth"], kept["infoway.bars.1m"]) == (
        "129600000",
        "5400000",
        "-1",
    )
    assert (kept["infoway.late"], kept["infoway.state.bars"]) == (str(30 * DAY), None)


def test_an_empty_environment_leaves_replication_to_the_cluster():
    assert (
        wish()
        == wish(INFOWAY_REPLICATION="", INFOWAY_RETENTION="")
        == Wanted(tuple(NAMES.topics()), None)
    )


@pytest.mark.parametrize(
    ("environment", "parts"),
    [
        (
            {"INFOWAY_REPLICATION": "2", "INFOWAY_MIN_INSYNC_REPLICAS": "3"},
            ["INFOWAY_MIN_INSYNC_REPLICAS=3 is greater", "REPLICATION=2"],
        ),
        ({"INFOWAY_MIN_INSYNC_REPLICAS": "2"}, ["needs INFOWAY_REPLICATION"]),
        (
            {"INFOWAY_REPLICATION": "0", "INFOWAY_MIN_INSYNC_REPLICAS": "many"},
            ["INFOWAY_REPLICATION='0'", "REPLICAS='many'"],
        ),
        ({"INFOWAY_RETENTION": "infoway.raw.*=7"}, ["'infoway.raw.*=7'", "7d"]),
        (
            {"INFOWAY_RETENTION": "infoway.row.*=7d"},
            ["no topic with a retention is named 'infoway.row.*'"],
        ),
        ({"INFOWAY_RETENTION": "infoway.state.*=7d"}, ["no topic with a retention"]),
        (
            {"INFOWAY_RETENTION": "7d", "INFOWAY_REPLICATION": "x"},
            ["'7d'", "INFOWAY_REPLICATION='x'"],
        ),
    ],
)
def test_what_cannot_be_is_refused_with_every_other_mistake(environment, parts):
    with pytest.raises(WantedWrong) as raised:
        wish(**environment)
    assert [part for part in parts if part not in str(raised.value)] == []


def mixed():
    """One of each: a topic to create, one to change, one refused."""
    wants = of(wish(INFOWAY_REPLICATION="3"), BAR, "x.infoway.late", "x.infoway.progress")
    snapshot = with_bar(as_wanted(wants), partitions=2, retention_ms="1000")
    topics = {**snapshot.topics}
    del topics["x.infoway.late"]
    topics["x.infoway.progress"] = replace(
        topics["x.infoway.progress"],
        config={**topics["x.infoway.progress"].config, "retention.ms": "1"},
    )
    return compare(wants, replace(snapshot, topics=topics), Allowed())


def test_the_plan_reads_as_terraforms():
    shown = list(lines(mixed()))
    assert shown[0] == f"  ! topic {BAR}"
    assert shown[1].startswith("      partitions: 2 -> 4   refused: keys would move")
    assert shown[2] == "      retention.ms: 1000 -> 2592000000"
    assert shown[3:5] == ["  ~ topic x.infoway.progress", "      retention.ms: 1 -> 604800000"]
    assert shown[5:8] == [
        "  + topic x.infoway.late",
        "      partitions: 4",
        "      replication factor: 3",
    ]
    assert shown[-2:] == ["", "Plan: 1 to create, 1 to change, 1 refused."]
    assert list(lines(TopologyPlan((), {}))) == ["Plan: 0 to create, 0 to change, 0 refused."]


def test_machines_get_the_same():
    shown = json.loads(json.dumps(as_json(mixed())))
    assert {name: shown[name] for name in ("create", "change", "refused")} == {
        "create": 1,
        "change": 1,
        "refused": 1,
    }
    assert [(change["action"], change["kind"], change["name"]) for change in shown["changes"]] == [
        ("refused", "topic", BAR),
        ("change", "topic", "x.infoway.progress"),
        ("create", "topic", "x.infoway.late"),
    ]
    assert shown["changes"][1]["attributes"] == [
        {"name": "retention.ms", "old": "1", "new": "604800000", "refused": None}
    ]
    assert "keys would move" in shown["changes"][0]["attributes"][0]["refused"]


def test_a_refusal_names_each_reason_once():
    wants = wish()
    snapshot = as_wanted(wants)
    two = {name: replace(state, partitions=2) for name, state in snapshot.topics.items()}
    text = str(Refused(compare(wants, replace(snapshot, topics=two), Allowed())))
    assert text.count("keys would move") == 1
    assert f"{BAR}, " in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("planned", "arguments", "code"),
    [
        (TopologyPlan((), {}), ["plan"], 0),
        (TopologyPlan((), {}), ["plan", "--detailed-exitcode"], 0),
        (mixed(), ["plan"], 0),
        (mixed(), ["plan", "--detailed-exitcode"], 2),
        (mixed(), ["plan", "--detailed-exitcode", "--json"], 2),
        (mixed(), ["apply"], 1),
        (mixed(), ["apply", "--json"], 1),
    ],
)
def test_exit_codes(planned, arguments, code, monkeypatch, capsys):
    monkeypatch.setattr(command, "plan", lambda *_: planned)
    monkeypatch.setenv("INFOWAY_BOOTSTRAP", "127.0.0.1:1")
    monkeypatch.setenv("INFOWAY_REGISTRY", "http://127.0.0.1:1")
    with pytest.raises(SystemExit) as ended:
        cli.main(["topology", *arguments])
    assert ended.value.code == code
    assert str(ended.value).startswith(
        "infoway-streams: nothing was applied" if code == 1 else str(code)
    )
    shown = capsys.readouterr().out
    if "--json" in arguments:
        assert json.loads(shown).get("applied", False) is False
    else:
        assert "\nPlan: " in f"\n{shown}"


def test_apply_ends_once_the_broker_shows_what_was_changed(monkeypatch):
    wants = of(wish(), "x.infoway.state.bars", "x.infoway.state.vwap")
    there = as_wanted(wants).topics
    half = {name: state for name, state in there.items() if name.endswith("vwap")}
    seen = iter([{}, half, there, there])
    asked = []
    monkeypatch.setattr(applying, "asking", lambda bootstrap: nullcontext())
    monkeypatch.setattr(applying, "_create", lambda *_: None)
    monkeypatch.setattr(
        applying, "topics_of", lambda admin, topics: asked.append(len(topics)) or next(seen)
    )
    planned = compare(wants, Snapshot({}, {}), Allowed())
    applying.carry_out("127.0.0.1:1", None, wants, planned)
    assert asked == [2, 2, 1]

    monkeypatch.setattr(applying, "_SHOWN_WITHIN", 0.0)
    monkeypatch.setattr(applying, "topics_of", lambda admin, topics: half)
    with pytest.raises(
        TopologyError, match=r"does not show them after 0 s: x\.infoway\.state\.bars: see"
    ):
        applying.carry_out("127.0.0.1:1", None, wants, planned)


def test_a_late_answer_of_the_broker_is_asked_for_again_while_it_shows_what_was_changed(
    monkeypatch,
):
    wants = of(wish(), "x.infoway.state.bars")
    there = as_wanted(wants).topics
    answers = iter([{}, KafkaException(KafkaError(KafkaError._TIMED_OUT)), there])

    def answer(admin, topics):
        found = next(answers)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(applying, "asking", lambda bootstrap: nullcontext())
    monkeypatch.setattr(applying, "_create", lambda *_: None)
    monkeypatch.setattr(applying, "topics_of", answer)
    applying.carry_out("127.0.0.1:1", None, wants, compare(wants, Snapshot({}, {}), Allowed()))
    assert next(answers, None) is None
