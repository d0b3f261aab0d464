"""A worker waits at its start for broker and registry, names them, and passes on what no waiting
mends."""

import pytest
from confluent_kafka import KafkaError, KafkaException

from processors import starting
from schemas.clients.kafka import client
from schemas.clients.registry import RegistryError


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (
            RegistryError("no answer from the schema registry at http://x"),
            "the schema registry for 0 s: no answer from the schema registry",
        ),
        (KafkaException(KafkaError(KafkaError._TRANSPORT, "gone")), "the broker for 0 s: gone"),
        (KafkaException(KafkaError(KafkaError._TIMED_OUT, "late")), "the broker for 0 s: late"),
    ],
)
def test_what_is_away_is_waited_for_and_named(monkeypatch, error, named):
    errors, seen = [error, error], []
    monkeypatch.setattr(starting.time, "sleep", lambda seconds: seen.append(starting.waiting_for))

    def build():
        if errors:
            raise errors.pop()
        return "built"

    assert starting.once_answered(build) == "built"
    assert [text.startswith(named) for text in seen] == [True, True]
    assert starting.waiting_for is None


def test_what_no_waiting_mends_is_passed_on():
    def build():
        raise KafkaException(KafkaError(KafkaError._AUTHENTICATION, "wrong password"))

    with pytest.raises(KafkaException):
        starting.once_answered(build)


def test_credentials_that_a_broker_refuses_are_named_in_the_wait(monkeypatch):
    """The call itself only times out; a secret may be rotated, so the worker waits."""
    seen, errors = [], ["invalid credentials", "transport failure", None]
    monkeypatch.setattr(starting.time, "sleep", lambda seconds: seen.append(starting.waiting_for))

    def build():
        if errors:
            said = errors.pop(0)
            if said:
                refused = KafkaError(KafkaError._AUTHENTICATION, f"SASL: {said} (after 4ms)")
                client("127.0.0.1:1")["error_cb"](refused)
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "late"))
        return "built"

    assert starting.once_answered(build) == "built"
    assert "refuses the credentials: SASL: invalid credentials: check INFOWAY_SASL_USER" in seen[0]
    assert [text.endswith(": late") for text in seen[1:]] == [True, True]
