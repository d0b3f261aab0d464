"""A client that a broker does not answer is not asked twice."""

from concurrent.futures import Future
from types import SimpleNamespace

from processors.engine.plane import fetch as module
from processors.engine.plane.fetch import Fetch


class Silent(Future):
    def result(self, timeout=None):
        raise TimeoutError


def answered(offset):
    future = Future()
    future.set_result(SimpleNamespace(offset=offset))
    return future


def test_a_client_without_an_answer_is_replaced(monkeypatch):
    made = []

    class Client:
        def __init__(self, conf, logger):
            made.append(self)

        def list_offsets(self, asked, **_):
            # the first one never has an answer again, whatever the broker does
            return {each: Silent() if self is made[0] else answered(7) for each in asked}

    monkeypatch.setattr(module, "AdminClient", Client)
    fetch = Fetch("127.0.0.1:1", 1)
    assert fetch.ends([("a", 0)]) is None
    assert fetch.ends([("a", 0)]) == {("a", 0): 7}
    assert len(made) == 2
