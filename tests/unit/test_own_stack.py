"""The embedded stack that a command starts for itself."""

from contextlib import contextmanager
from types import SimpleNamespace

from infra.runtime import deployment
from schemas.topics import Topology


def test_a_registry_that_has_just_begun_has_a_minute_for_an_answer(monkeypatch, tmp_path):
    """On a busy machine its first answers took more than the ten seconds that others get."""
    given = []

    @contextmanager
    def stack(*_):
        yield SimpleNamespace(
            bootstrap="127.0.0.1:1", registry_url="http://127.0.0.1:1", look_after=None
        )

    monkeypatch.delenv("INFOWAY_BOOTSTRAP", raising=False)
    monkeypatch.delenv("INFOWAY_REGISTRY", raising=False)
    monkeypatch.setattr(deployment, "Stack", stack)
    monkeypatch.setattr(deployment, "Registry", lambda _, timeout: given.append(timeout))
    monkeypatch.setattr(deployment.topology, "apply", lambda *_: {})
    with deployment.deployed(Topology(), tmp_path):
        assert given == [60]
