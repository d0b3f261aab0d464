"""A broker that comes up answers a question for offsets as a whole, and says of single partitions
that it does not know: that is no answer, and not "nothing there"."""

from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from infra.kafka.offsets import LEADER_COMING_UP, committed_offsets, offsets_since

ASKED = [TopicPartition("t", 0, 1000), TopicPartition("t", 1, 1000)]


def answer(*pairs):
    return [
        SimpleNamespace(
            topic="t",
            partition=partition,
            offset=offset,
            error=None if code is None else KafkaError(code),
        )
        for partition, (offset, code) in enumerate(pairs)
    ]


class Broker:
    def __init__(self, *answers):
        self.answers = list(answers)

    def offsets_for_times(self, asked, timeout):
        assert asked == ASKED
        return self.answers.pop(0)

    committed = offsets_for_times


@pytest.mark.parametrize("code", sorted(LEADER_COMING_UP))
def test_it_is_asked_again_until_it_knows_of_each_partition(code):
    broker = Broker(
        answer((7, None), (-1, code)), answer((-1, code), (-1, None)), answer((7, None), (-1, None))
    )
    assert [each.offset for each in offsets_since(broker, ASKED)] == [7, -1]
    assert broker.answers == []


def test_a_refusal_is_not_asked_again():
    broker = Broker(answer((7, None), (-1, KafkaError.TOPIC_AUTHORIZATION_FAILED)))
    with pytest.raises(KafkaException) as raised:
        offsets_since(broker, ASKED)
    assert raised.value.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED


def test_it_is_not_asked_without_an_end():
    broker = Broker(answer((7, None), (-1, KafkaError.UNKNOWN_LEADER_EPOCH)))
    with pytest.raises(KafkaException):
        offsets_since(broker, ASKED, timeout=0)


def test_what_a_group_has_committed_is_not_guessed():
    broker = Broker(
        answer((7, None), (-1, None)), answer((7, None), (-1001, KafkaError._WAIT_COORD))
    )
    assert [each.offset for each in committed_offsets(broker, ASKED, 1)] == [7, -1]
    with pytest.raises(KafkaException):
        committed_offsets(broker, ASKED, 1)
