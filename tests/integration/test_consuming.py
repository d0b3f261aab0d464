"""Reading a topic to its end, as replay does once the processors have no lag."""

from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet

import confluent_kafka as ck
import drill
import pytest

from infra.kafka.reader import read_to_end
from processors.engine.transactions.transactions import transactional_conf


def test_the_end_lies_behind_what_is_still_being_committed(stack, namespace):
    """The broker writes a commit's markers one partition after the other: the group's offsets may
    show before its records do."""
    topic = f"{namespace}derived"
    drill.create_topics(stack.bootstrap, [drill.NewTopic(topic, 1, 1)])
    producer = ck.Producer(
        # not aborted by the broker while the test looks
        {**transactional_conf(stack.bootstrap, namespace), "transaction.timeout.ms": 60_000}
    )
    producer.init_transactions(60)
    producer.begin_transaction()
    producer.produce(topic, b"value", b"key")
    assert producer.flush(30) == 0
    with ThreadPoolExecutor(1) as threads:
        reading = threads.submit(
            lambda: [message.value() for message in read_to_end(stack.bootstrap, topic)]
        )
        with pytest.raises(NotYet):
            reading.result(1)
        producer.commit_transaction(30)
        assert reading.result(60) == [b"value"]
