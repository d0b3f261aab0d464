"""No call of a transaction is repeated without end: the worker names what it waits for, and ends
once nothing can be saved."""

import asyncio
import threading
import time

import drill
import pytest
from kafka_proxy import Api
from small_worker import Left, Pipeline, Worker, leave_by_exception

from processors.engine import commits as commits_module
from processors.engine.engine import Engine
from processors.engine.outputs import Outputs
from processors.engine.transactions import producer, transactions
from processors.engine.transactions.exits import Exit
from processors.engine.transactions.transactions import RecordTooLarge, Transactions


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    """Ends are exceptions, and calls are repeated after a second."""
    leave_by_exception(monkeypatch)
    monkeypatch.setattr(transactions, "CALL_TIMEOUT", 1.0)
    monkeypatch.setattr(producer, "CALL_TIMEOUT", 1.0)


def end_soon(monkeypatch):
    """From now on an open transaction ends its worker after seconds: one without a fault may take
    as long on a busy machine."""
    monkeypatch.setattr(transactions, "TRANSACTION_LIMIT", 4.0)


@pytest.fixture
def pipeline(stack, namespace):
    made = Pipeline(stack.bootstrap, namespace)
    yield made
    made.consumer.close()


@pytest.mark.parametrize("fault", ["freeze", "refuse"])
@pytest.mark.parametrize(
    ("after", "call"),
    [("before flush", "flush"), ("after flush", "send offsets"), ("after send offsets", "commit")],
)
def test_a_broker_that_stays_away_ends_an_open_transaction(
    pipeline, proxy, monkeypatch, fault, after, call
):
    worker = Worker(pipeline, proxy, lambda step: None)
    worker.batch()
    end_soon(monkeypatch)
    worker.at_step = lambda step: getattr(proxy, fault)() if step == after else None
    with pytest.raises(Left) as left:
        worker.batch()
    code, why = left.value.args
    assert code == Exit.TRANSACTION_REFUSED
    assert why.startswith(f"{call}: ")
    assert "the broker aborts it after 10 s" in why
    proxy.restore()
    # an open transaction is aborted by the next worker of the slot
    assert Worker(pipeline, proxy, lambda step: None).applied in (1, 2)


def test_a_record_that_kafka_does_not_take_is_its_agents_failure(pipeline, proxy):
    """Of an output or a state: no end of the worker that every new start repeats."""
    worker = Worker(pipeline, proxy, lambda step: None)
    worker.transactions.begin(pipeline.member())
    with pytest.raises(RecordTooLarge, match=f"2000000 bytes for {pipeline.state}, key b'k'"):
        worker.transactions.produce(pipeline.state, 0, b"k", bytes(2_000_000))
    worker.close()
    after = Worker(pipeline, proxy, lambda step: None)
    after.batch()
    assert pipeline.check() == 1


def test_a_commit_that_waits_is_named_by_the_engine(pipeline, proxy):
    worker = Worker(pipeline, proxy, lambda step: None)
    engine = Engine(pipeline.bootstrap, "", (), Outputs({}), membership=pipeline.member)
    engine.commits.use(worker.transactions)
    named = []

    async def commit():
        worker.transactions.begin(pipeline.member())
        worker.transactions.produce(pipeline.out, 0, b"k", b"1")
        worker.transactions.offsets[pipeline.source, 0] = 1
        going = asyncio.create_task(engine.commit())
        while not going.done():
            await asyncio.sleep(0.1)
            named.append(engine.waiting_for)
            if named[-1]:
                proxy.restore()
        await going

    # one that a busy machine holds up is named, and rightly so: that is not what is looked for
    for _ in range(3):
        named.clear()
        began = time.monotonic()
        asyncio.run(commit())
        took_s = time.monotonic() - began
        if took_s < transactions.WAITING:
            break
    assert set(named) == {None}, took_s
    worker.at_step = lambda step: proxy.freeze() if step == "after flush" else None
    asyncio.run(commit())
    assert "the broker, with a transaction open: send offsets" in named
    assert engine.waiting_for is None
    worker.close()


def test_a_call_that_never_comes_back_ends_the_worker(pipeline, proxy, monkeypatch):
    worker = Worker(pipeline, proxy, lambda step: None)
    never, ends = threading.Event(), []
    worker.at_step = lambda step: never.wait() if step == "after send offsets" else None
    for module in (commits_module, transactions):
        monkeypatch.setattr(module, "OVERDUE", 5.0)
    monkeypatch.setattr(commits_module, "leave", lambda *why: ends.append(why) or never.set())
    engine = Engine(pipeline.bootstrap, "", (), Outputs({}), membership=pipeline.member)
    engine.commits.use(worker.transactions)
    worker.transactions.begin(pipeline.member())
    worker.transactions.offsets[pipeline.source, 0] = 1
    asyncio.run(engine.commit())
    [(code, why)] = ends
    assert code == Exit.TRANSACTION_REFUSED
    assert why.startswith("send offsets has not come back, and the transaction is ")
    worker.close()


def test_a_full_queue_ends_an_open_transaction(pipeline, proxy, monkeypatch):
    conf = transactions.transactional_conf
    monkeypatch.setattr(
        transactions,
        "transactional_conf",
        lambda *names: conf(*names) | {"queue.buffering.max.messages": 3},
    )
    worker = Worker(pipeline, proxy, lambda step: None)
    worker.batch()
    end_soon(monkeypatch)
    worker.at_step = lambda step: proxy.freeze() if step == "mid-produce" else None
    worker.transactions.begin(pipeline.member())
    proxy.freeze()
    with pytest.raises(Left, match="the producer's queue is full"):
        for _ in range(10):
            worker.transactions.produce(pipeline.out, 0, b"k", b"2")
    proxy.restore()


@pytest.mark.parametrize("fault", ["freeze", "refuse"])
def test_a_start_waits_for_a_broker_that_is_away_and_says_so(proxy, namespace, fault):
    waits, started = [], []
    getattr(proxy, fault)()
    start = threading.Thread(
        target=lambda: started.append(Transactions.start(proxy.address, namespace, waits.append))
    )
    start.start()
    assert drill.wait_until(lambda: waits, 60)
    assert waits[-1] == "the broker: it does not answer"
    assert not started
    proxy.restore()
    start.join(60)
    assert started
    assert waits[-1] is None
    started[0].producer.client.close()


def test_a_start_ends_where_the_broker_answers_and_its_coordinator_refuses_for_ever(
    proxy, namespace, monkeypatch
):
    monkeypatch.setattr(producer, "COORDINATOR_TIMEOUT", 3.0)
    held = [proxy.hold(Api.INIT_PRODUCER_ID) for _ in range(100)]
    waits = []
    with pytest.raises(Left) as left:
        Transactions.start(proxy.address, namespace, waits.append)
    assert held[0].struck
    code, why = left.value.args
    assert code == Exit.TRANSACTION_REFUSED
    assert f"the coordinator of the transactional id '{namespace}' has refused it for" in why
    assert any(wait and wait.startswith("the transaction coordinator") for wait in waits)


def test_a_renewal_waits_for_a_broker_that_is_away(pipeline, proxy):
    """Nothing is open then: what was committed is what the worker remembers."""
    waits = []
    worker = Worker(pipeline, proxy, lambda step: None)
    worker.transactions.producer._waiting = waits.append
    cut = proxy.cut_answer(Api.PRODUCE)
    worker.at_step = lambda step: proxy.refuse() if step == "after commit" else None
    going = threading.Thread(target=worker.batch)
    going.start()
    assert drill.wait_until(lambda: waits, 60)
    assert cut.struck
    worker.at_step = lambda step: None
    proxy.restore()
    going.join(60)
    worker.batch()
    assert worker.transactions.producer.renewals >= 1
    assert pipeline.check() == 2
    worker.close()
