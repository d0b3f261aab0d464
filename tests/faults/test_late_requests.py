"""A request of a transaction that the network delivers in the next one tears neither of them."""

import os
from itertools import product

import drill
import pytest
from confluent_kafka.admin import NewTopic
from kafka_proxy import Api
from small_worker import Left, Pipeline, Worker, keep_open, leave_by_exception

from processors.engine.transactions import transactions
from processors.engine.transactions.producer import TransactionalProducer

STEPS = ("after begin", "mid-produce", "after flush", "after send offsets", "after commit")
HELD = (
    Api.END_TXN,
    Api.ADD_PARTITIONS_TO_TXN,
    Api.ADD_OFFSETS_TO_TXN,
    Api.TXN_OFFSET_COMMIT,
    Api.PRODUCE,
    Api.INIT_PRODUCER_ID,
)
FEW = [
    *product([Api.END_TXN], STEPS),
    *((api, "after flush") for api in HELD[1:]),
    (Api.ADD_PARTITIONS_TO_TXN, "after begin"),
    (Api.PRODUCE, "after begin"),
    (Api.TXN_OFFSET_COMMIT, "after commit"),
]
CASES = list(product(HELD, STEPS)) if os.environ.get("DRILL_MATRIX") else FEW
"""All of them with DRILL_MATRIX=1."""
BATCHES = 5


@pytest.fixture(autouse=True)
def leaving(monkeypatch):
    leave_by_exception(monkeypatch)
    keep_open(monkeypatch)


def run(pipeline, proxy, api, step):
    """Hold a request of the second batch's transaction back and deliver it in the third's; returns
    how the workers ended.

    A held InitProducerId is one of the renewal after the second.
    """
    ends, held, delivered = [], [], []

    def at_step(at):
        if worker.applied == 2 and at == "after begin":
            if api == Api.INIT_PRODUCER_ID:
                proxy.hold(Api.END_TXN)
            held.append(proxy.hold(api))
        if worker.applied == 3:
            if at == step and not delivered:
                held[0].deliver()
                delivered.append(step)
            pipeline.check()

    worker = Worker(pipeline, proxy, at_step)
    while worker.applied < BATCHES:
        try:
            worker.batch()
        except Left as left:
            ends.append(left.args)
            worker.close()
            worker = Worker(pipeline, proxy, at_step)
    worker.close()
    assert delivered
    return ends


@pytest.mark.parametrize(("api", "step"), CASES, ids=lambda value: getattr(value, "name", value))
def test_a_late_request_tears_no_transaction(stack, proxy, namespace, api, step):
    pipeline = Pipeline(stack.bootstrap, namespace)
    try:
        ends = run(pipeline, proxy, api, step)
        assert pipeline.check() == BATCHES
        assert all(code.restart for code, _ in ends), ends
        if api != Api.INIT_PRODUCER_ID:
            assert ends == []
    finally:
        pipeline.consumer.close()


@pytest.mark.parametrize("step", STEPS[1:3])
def test_without_the_renewal_a_late_commit_tears_the_next_transaction(
    stack, proxy, namespace, monkeypatch, step
):
    monkeypatch.setattr(TransactionalProducer, "renew_if_suspect", lambda self: False)
    pipeline = Pipeline(stack.bootstrap, namespace)
    try:
        with pytest.raises(AssertionError, match="torn"):
            run(pipeline, proxy, Api.END_TXN, step)
    finally:
        pipeline.consumer.close()


def test_every_break_counts_where_librdkafka_logs_one_in_30_s(stack, proxy, namespace):
    drill.create_topics(stack.bootstrap, [NewTopic(f"{namespace}out", 1, 1)])
    producer = TransactionalProducer(transactions.transactional_conf(proxy.address, namespace))

    def transaction():
        producer.begin()
        producer.client.produce(f"{namespace}out", b"x")
        producer.client.commit_transaction(30)
        return producer.suspect

    assert not transaction()
    for _ in range(3):
        cut = proxy.cut_answer(Api.END_TXN)
        assert transaction()
        assert cut.struck
        assert not transaction()
    assert producer.renew_if_suspect() is False
    proxy.cut_answer(Api.PRODUCE)
    assert transaction()
    assert producer.renew_if_suspect() is True
    assert not transaction()
    producer.client.close()
