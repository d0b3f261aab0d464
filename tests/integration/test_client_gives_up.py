"""An idempotent client that cannot keep the order of its records any more gives up for good: what
was on its way waits on disk, and the next producer delivers it once."""

import time
from types import SimpleNamespace

import confluent_kafka as ck
import pytest
from confluent_kafka import KafkaError
from integration.test_broker_away import SYMBOLS, Run
from kafka_proxy import Api

from infra import topology
from infra.kafka import reader
from infra.kafka.reader import ValueReader, read_to_end
from infra.runtime.deployment import Deployment
from infra.runtime.exit_codes import Code, code_of, may_restart
from producers.delivery import client as delivery_client
from producers.delivery.errors import ClientFailed
from schemas.clients.registry import Registry
from schemas.topics import RAW_TRADE, Topology


@pytest.fixture
def deployment(stack, namespace, proxy, monkeypatch):
    for name, value in (("request.timeout.ms", 2_000), ("socket.timeout.ms", 2_000)):
        monkeypatch.setitem(delivery_client._DELIVERY, name, value)
    names = Topology(namespace, intervals=("1m",), windows=("1m",), partitions=1)
    ids = topology.apply(stack.bootstrap, Registry(stack.registry_url), names)
    return Deployment(proxy.address, stack.registry_url, names, ids, embedded=True)


def give_up(run, proxy):
    """Lose the answer to a request, and have more follow it than the broker remembers: what the
    client sends again then is out of order."""
    dropped = proxy.drop_answer(Api.PRODUCE, client="infoway-producer")
    until = time.monotonic() + 60
    with pytest.raises(ClientFailed) as failed:
        while time.monotonic() < until:
            run.receive(2)
            time.sleep(0.02)
    assert dropped.struck
    return failed.value


class OfABrokerThatComesUp(ck.Consumer):
    """Hears at first what a broker says of a partition whose leader it does not know yet."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.asked = False

    def offsets_for_times(self, *arguments, **named):
        if self.asked:
            return super().offsets_for_times(*arguments, **named)
        self.asked = True
        return [SimpleNamespace(offset=-1, error=KafkaError(KafkaError.UNKNOWN_LEADER_EPOCH))]


@pytest.mark.parametrize("consumer", [ck.Consumer, OfABrokerThatComesUp])
def test_what_was_on_its_way_is_delivered_once_by_the_next_producer(
    deployment, proxy, tmp_path, monkeypatch, consumer
):
    monkeypatch.setattr(reader.ck, "Consumer", consumer)
    run = Run(deployment, tmp_path / "spool")
    run.receive(10)
    run.deliver()
    failure = give_up(run, proxy)
    assert code_of(failure) == Code.CLUSTER_AWAY
    assert may_restart(code_of(failure))
    received = run.counters.received
    left = run.publisher.close(3.0)
    assert left
    assert run.backlog.whole
    assert run.counters.lost == 0

    run = Run(deployment, tmp_path / "spool", begin=3_600_000)
    run.receive(4)
    run.deliver()
    run.publisher.close(3.0)
    read = ValueReader(Registry(deployment.registry_url))
    topic = deployment.topology.name(RAW_TRADE)
    rows = [
        read(message.value())[1]
        for message in read_to_end(deployment.bootstrap, topic)
        if message.value() is not None
    ]
    numbers = {}
    for row in rows:
        numbers.setdefault(row["connection"], []).append(row["sequence"])
    first, second = numbers.values()
    assert first == list(range(1, received + 1))
    assert second == [1, 2, 3, 4]
    assert {row["symbol"] for row in rows} == set(SYMBOLS)
