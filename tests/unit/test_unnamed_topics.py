"""A broker that comes up names no topics: the group shares out nothing, and asks again soon."""

import asyncio
from types import SimpleNamespace

from processors.engine.plane.overrides import Consumer


class Cluster:
    def __init__(self):
        self.known = {"a": {0, 1}}

    def partitions_for_topic(self, name):
        return self.known.get(name)


def looked(turns, valid=True):
    """Let a consumer of topics a and b look so often; `turns` are called before each look. Return
    what it said that it waits for, and how often it had the metadata asked for."""
    asked, waits, cluster = [], [], Cluster()
    left = list(turns)
    client = SimpleNamespace(
        cluster=cluster,
        force_metadata_update="ask",
        _loop=SimpleNamespace(call_soon_threadsafe=asked.append),
    )

    async def sleep(seconds):
        left.pop(0)(cluster)

    class Fake:
        should_stop = property(lambda self: not left)
        aiokafka = SimpleNamespace(_client=client)
        app = SimpleNamespace(decoders={"a": None, "b": None})
        engine = SimpleNamespace(wait_for=lambda what, text: waits.append(text))

        def member(self):
            return SimpleNamespace(valid=valid)

    fake = Fake()
    fake.sleep = sleep
    asyncio.run(Consumer._look_for_topics(fake))
    return waits, asked


def test_topics_that_the_broker_did_not_name_are_asked_for_until_it_does():
    nothing = lambda cluster: None  # noqa: E731
    waits, asked = looked([nothing, nothing, lambda cluster: cluster.known.update(b={0})])
    assert waits == ["the broker to name the partitions of b"] * 2 + [None]
    assert asked == ["ask", "ask"]


def test_out_of_the_group_nothing_is_asked_for():
    assert looked([lambda cluster: None], valid=False) == ([], [])
