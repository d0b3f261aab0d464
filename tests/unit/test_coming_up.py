"""A broker that comes up, or did not answer for longer than its session lasts, names no brokers for
a moment and calls topics unknown: that is waited for, and does not last for ever."""

from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException

from processors.engine import state
from schemas.clients import cluster


@pytest.fixture
def clock(monkeypatch):
    """Time that only sleep moves."""
    now = SimpleNamespace(s=100.0)
    for module in (state, cluster):
        monkeypatch.setattr(module.time, "monotonic", lambda: now.s)
        monkeypatch.setattr(
            module.time, "sleep", lambda seconds: setattr(now, "s", now.s + seconds)
        )
    return now


class ComingUp:
    """Names its broker at the third time."""

    def __init__(self, needed=3):
        self.needed, self.asked = needed, 0

    def list_topics(self, topic=None, timeout=-1):
        self.asked += 1
        there = self.asked >= self.needed
        return SimpleNamespace(brokers={1: "b"} if there else {}, topics={"t": 1} if there else {})


@pytest.mark.parametrize("topic", [None, "t"])
def test_a_cluster_that_names_no_broker_is_asked_again(clock, topic):
    asking = ComingUp()
    assert cluster.metadata_of(asking, topic).topics == {"t": 1}
    assert asking.asked == 3


def test_a_cluster_that_goes_on_naming_no_broker_is_away(clock):
    with pytest.raises(KafkaException, match="names no broker") as raised:
        cluster.metadata_of(ComingUp(10**9), timeout=5)
    assert 105 <= clock.s < 106
    assert state.is_away(raised.value.args[0])


UNNAMED = [
    KafkaError._NOENT,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
]


@pytest.mark.parametrize("code", UNNAMED)
def test_what_a_broker_that_is_just_back_calls_unknown_is_asked_for_again(clock, code):
    errors = [KafkaException(KafkaError(code))] * 3

    def call():
        if errors:
            raise errors.pop()
        return 7

    assert state.until_answered(call) == 7


@pytest.mark.parametrize("code", UNNAMED)
def test_what_stays_unknown_is_an_error_in_the_end(clock, code):
    def call():
        raise KafkaException(KafkaError(code))

    with pytest.raises(KafkaException):
        state.until_answered(call)
    assert state.NAMED_WITHIN_S <= clock.s - 100 < state.NAMED_WITHIN_S + 1


def test_an_outage_longer_than_the_patience_with_names_is_waited_for(clock):
    def call():
        if clock.s < 100 + 10 * state.NAMED_WITHIN_S:
            away = int(clock.s) % 3 == 0
            raise KafkaException(KafkaError(KafkaError._TRANSPORT if away else KafkaError._NOENT))
        return 7

    assert state.until_answered(call) == 7
