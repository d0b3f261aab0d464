"""What producers and workers look up: topics and schemas that are missing are named at once, and
nothing is made."""

import importlib
import sys
from concurrent.futures import Future
from types import SimpleNamespace

import httpx
import pytest
from confluent_kafka import KafkaError, KafkaException

from processors import starting
from schemas.clients.cluster import NotApplied, TopicHidden, require
from schemas.clients.registry import Registry, RegistryError
from schemas.topics import Topology, load_schema

TOPICS = {topic.name: topic for topic in Topology().topics()}
WRITES = [TOPICS["infoway.late"], TOPICS["infoway.progress"], TOPICS["infoway.state.bars"]]


class Broker:
    """An admin client of a broker with these topics; a topic's count of partitions may be an
    error's code instead."""

    def __init__(self, **partitions):
        self.partitions = {name.replace("_", "."): count for name, count in partitions.items()}

    def list_topics(self, timeout):
        return SimpleNamespace(brokers={1: "it"}, topics={})

    def describe_topics(self, names, request_timeout):
        found = {}
        for name in names.topic_names:
            found[name] = Future()
            count = self.partitions.get(name, KafkaError.UNKNOWN_TOPIC_OR_PART)
            if isinstance(count, range):
                found[name].set_result(SimpleNamespace(partitions=list(count)))
            else:
                found[name].set_exception(KafkaException(KafkaError(count)))
        return found


def registry(answer):
    client = Registry("http://registry.invalid")
    client._http = httpx.Client(
        base_url="http://registry.invalid", transport=httpx.MockTransport(answer)
    )
    return client


def knows(*subjects):
    def answer(request):
        assert request.method == "POST"
        subject = request.url.path.removeprefix("/subjects/")
        if subject in subjects:
            return httpx.Response(200, json={"id": 5})
        return httpx.Response(
            404, json={"error_code": 40401, "message": f"Subject '{subject}' not found."}
        )

    return registry(answer)


def test_ids_are_those_of_the_topics_that_are_written():
    there = Broker(
        infoway_late=range(6),
        infoway_progress=range(6),
        infoway_state_bars=range(6),
        infoway_raw_trade=range(6),
    )
    ids = require(
        there,
        knows("infoway.late-value", "infoway.progress-value"),
        WRITES,
        [TOPICS["infoway.raw.trade"]],
    )
    assert ids == {"infoway.late": 5, "infoway.progress": 5}


def test_everything_that_is_missing_is_named_in_one_line_with_the_command():
    with pytest.raises(NotApplied) as raised:
        require(
            Broker(infoway_late=range(2)),
            knows("infoway.late-value"),
            WRITES,
            [TOPICS["infoway.raw.trade"]],
        )
    assert raised.value.absent == ("infoway.progress", "infoway.state.bars", "infoway.raw.trade")
    assert raised.value.differing == ("infoway.late has 2 partitions, not 6",)
    assert raised.value.unregistered == ("infoway.progress-value",)
    assert str(raised.value) == (
        "no topic infoway.progress, infoway.state.bars, infoway.raw.trade; infoway.late has 2 "
        "partitions, not 6; the registry lacks this "
        "version's schema of infoway.progress-value: run `infoway-streams topology apply` "
        "first, with the same settings as here"
    )


def test_a_topic_that_may_not_be_seen_is_not_called_missing():
    with pytest.raises(TopicHidden, match=r"see infoway\.late: allow its principal to DESCRIBE"):
        require(Broker(infoway_late=KafkaError.TOPIC_AUTHORIZATION_FAILED), knows(), WRITES[:1])


def test_a_broker_that_does_not_answer_is_not_an_empty_one():
    with pytest.raises(KafkaException):
        require(Broker(infoway_late=KafkaError._TIMED_OUT), knows(), WRITES[:1])


def test_a_wrong_address_is_not_a_registry_without_schemas():
    with pytest.raises(
        RegistryError,
        match=r"no schema registry's API at http://registry.invalid .*: give its whole address",
    ):
        require(
            Broker(infoway_late=range(6)),
            registry(lambda request: httpx.Response(404, text="no such page")),
            WRITES[:1],
        )


def test_where_the_subject_has_another_version_only_the_schema_is_missing():
    other = registry(
        lambda request: httpx.Response(404, json={"error_code": 40403, "message": "no match"})
    )
    with pytest.raises(NotApplied, match=r"lacks this version's schema of infoway\.late-value"):
        require(Broker(infoway_late=range(6)), other, WRITES[:1])


def test_a_worker_whose_broker_is_away_waits_and_one_without_its_topics_ends_to_be_restarted(
    monkeypatch,
):
    answers = [
        KafkaException(KafkaError(KafkaError._TIMED_OUT)),
        NotApplied(["infoway.late"], [], []),
    ]

    def require_later(*_, **__):
        raise answers.pop(0)

    monkeypatch.setattr("schemas.clients.cluster.require", require_later)
    monkeypatch.setattr(starting, "AGAIN_S", 0)
    monkeypatch.setenv("INFOWAY_BOOTSTRAP", "127.0.0.1:1")
    monkeypatch.setenv("INFOWAY_REGISTRY", "http://127.0.0.1:1")
    monkeypatch.delitem(sys.modules, "processors.app", raising=False)
    with pytest.raises(SystemExit) as ended:
        importlib.import_module("processors.app")
    assert not answers
    # a text: Python prints it, and ends with 1
    assert ended.value.code.startswith("processors: no topic infoway.late")


def raced(level, found):
    """A registry on which another has just done what is asked: it refuses to write, and shows this
    level and this schema."""

    def answer(request):
        if request.method == "GET":
            return httpx.Response(200, json={"compatibilityLevel": level})
        if request.method == "POST" and not request.url.path.endswith("/versions"):
            return found
        return httpx.Response(
            409, json={"error_code": 0, "message": "A rule named 'COMPATIBILITY' already exists."}
        )

    return registry(answer)


def test_what_another_has_registered_at_the_same_time_is_no_error():
    assert (
        raced("FULL_TRANSITIVE", httpx.Response(200, json={"id": 7})).register(
            "infoway.late-value", load_schema("late_trade")
        )
        == 7
    )


@pytest.mark.parametrize(
    ("level", "found"),
    [
        ("NONE", httpx.Response(200, json={"id": 7})),
        ("FULL_TRANSITIVE", httpx.Response(404, json={"error_code": 40403, "message": "no match"})),
    ],
    ids=["a level", "a schema"],
)
def test_what_the_registry_refuses_and_nobody_else_has_done_is_an_error(level, found):
    with pytest.raises(RegistryError, match="the schema registry refused"):
        raced(level, found).register("infoway.late-value", load_schema("late_trade"))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            httpx.Response(200, text="<html>\nlog in\n</html>"),
            "no schema registry's API at http://registry.invalid (200 to POST",
        ),
        (
            httpx.Response(302, headers={"location": "/login"}),
            "no schema registry's API at http://registry.invalid (302 to POST",
        ),
        (httpx.Response(502, text="<html>\nbad\n  gateway\n</html>"), "<html> bad gateway </html>"),
        (
            httpx.Response(401, text="{}"),
            "{}: check INFOWAY_REGISTRY_USERNAME and _PASSWORD, or INFOWAY_REGISTRY_TOKEN",
        ),
        (
            httpx.Response(403, text="{}"),
            "{}: check INFOWAY_REGISTRY_USERNAME and _PASSWORD, or INFOWAY_REGISTRY_TOKEN",
        ),
    ],
)
def test_an_answer_that_is_no_registrys_is_one_line_that_says_what_to_do(answer, message):
    with pytest.raises(RegistryError) as raised:
        registry(lambda request: answer).refusal("infoway.late-value", load_schema("late_trade"))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
