"""What the engine overrides of Faust is what it was written against: a change upstream must be
looked at, not slip in."""

import asyncio
import hashlib
import inspect
from types import SimpleNamespace

import aiokafka
import confluent_kafka
import faust
import pytest
from aiokafka.errors import KafkaConnectionError

from processors.engine.plane import overrides
from processors.engine.plane.overrides import OVERRIDDEN, Consumer, GroupThread, Producer
from processors.engine.transactions.group import Member, check_metadata_format, metadata_bytes

REVIEWED = {
    "faust.transport.drivers.aiokafka.Consumer.on_partitions_revoked": "d04b7ae72c6fc206",
    "faust.transport.drivers.aiokafka.Consumer.on_partitions_assigned": "29ce96596f05a18c",
    "faust.transport.drivers.aiokafka.Consumer._commit_offsets": "1a69799041188441",
    "faust.transport.drivers.aiokafka.Consumer._new_offset": "1d2c7ea89a7ad4f1",
    "faust.transport.drivers.aiokafka.Consumer._drain_messages": "44a2500309e83c63",
    "faust.transport.drivers.aiokafka.Consumer.on_buffer_drop": "4b57e8a418d5ad9c",
    "faust.transport.drivers.aiokafka.Consumer.verify_event_path": "a17e8f0610e1abcb",
    "faust.transport.drivers.aiokafka.Consumer.perform_seek": "0e8c130ff4b0afd8",
    "faust.transport.drivers.aiokafka.Consumer._new_consumer_thread": "0870ec53dea75083",
    "faust.transport.drivers.aiokafka.AIOKafkaConsumerThread.on_start": "38b4e8bd1e10723a",
    "faust.transport.drivers.aiokafka.Producer.on_start": "219c9a7a785d77b2",
    "faust.transport.drivers.aiokafka.Producer.flush": "36d0cb3615f65b01",
    "faust.topics.Topic._compile_decode": "6474178f8c211c05",
    "faust.app.base.App._new_transport": "42db531312dd776f",
    "faust.app.base.App._new_producer_transport": "eb3b4aa6a8961275",
}


def upstream():
    for owner, names in OVERRIDDEN:
        for name in names:
            yield f"{owner.__module__}.{owner.__name__}.{name}", getattr(owner, name)


@pytest.mark.parametrize(
    ("place", "function"),
    list(upstream()),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_upstream_has_not_changed_under_an_override(place, function):
    digest = hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:16]
    assert digest == REVIEWED[place], (
        f"{place} changed upstream: read it, adapt processors/engine/plane/overrides.py, then note "
        f"{digest}"
    )


def test_the_pinned_versions_are_installed():
    assert (faust.__version__, aiokafka.__version__, confluent_kafka.__version__) == (
        "0.15.3",
        "0.14.0",
        "2.16.0",
    )


def test_group_metadata_is_what_librdkafka_writes():
    check_metadata_format()
    assert metadata_bytes(Member("g", 7, "m")) == b"CGMDv2:\x07\x00\x00\x00g\x00m\x00\x01"


@pytest.mark.parametrize(("generation", "member"), [(-1, "m"), (3, "")])
def test_a_member_that_would_fence_nothing_is_not_valid(generation, member):
    assert not Member("g", generation, member).valid


@pytest.mark.parametrize("stopping", [True, False])
def test_the_fetcher_cancelled_at_the_end_of_the_worker_is_no_crash(stopping):
    class Cancelled:
        app = SimpleNamespace(should_stop=stopping)

        async def _drain(self, fetcher):
            raise asyncio.CancelledError

    async def drained():
        try:
            await Consumer._drain_messages(Cancelled(), None)
        except asyncio.CancelledError:
            return False
        return True

    assert asyncio.run(drained()) == stopping


def test_a_broker_that_goes_while_a_worker_starts_is_waited_for(monkeypatch):
    """It ended the worker with a traceback."""
    said, tries = [], []

    class AwayTwice:
        async def start(self):
            tries.append(self)
            if len(tries) < 3:
                raise KafkaConnectionError("Unable to bootstrap")

        async def stop(self):
            said.append("stopped")

    thread = object.__new__(GroupThread)
    thread._create_consumer = lambda loop: AwayTwice()
    thread.thread_loop = None
    engine = SimpleNamespace(wait_for=lambda part, what: said.append((part, what and what[:28])))
    thread.consumer = SimpleNamespace(app=SimpleNamespace(engine=engine))
    monkeypatch.setattr(overrides, "CONNECT_AGAIN_S", 0.01)
    asyncio.run(thread.on_start())
    waits = ["stopped", ("group", "the broker for 0 s: KafkaCon")]
    assert said == [*waits, *waits, ("group", None)]


def test_fausts_own_producer_connects_nothing():
    producer = object.__new__(Producer)
    producer._new_producer = None
    asyncio.run(producer.on_start())
