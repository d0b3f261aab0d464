"""Credentials that are refused are no outage: a command ends with 1 and names the settings."""

import pytest
from confluent_kafka import KafkaError

from infra.cli import main as cli
from infra.runtime.exit_codes import Code
from schemas.clients.kafka import client
from schemas.clients.registry import Registry, RegistryError, RegistryRefused


def test_a_password_that_the_broker_refuses():
    refused = "SASL authentication error: invalid credentials (after 5ms in state AUTH_REQ)"
    client("b:1")["error_cb"](KafkaError(KafkaError._AUTHENTICATION, refused))
    with pytest.raises(SystemExit) as ended:
        cli._leave_away("late")
    assert ended.value.code == Code.FAILED
    assert "refuses the credentials: SASL authentication error: invalid" in str(ended.value)
    assert "check INFOWAY_SASL_USERNAME, INFOWAY_SASL_PASSWORD" in str(ended.value)
    with pytest.raises(SystemExit) as ended:
        cli._leave_away("late")
    assert ended.value.code == Code.CLUSTER_AWAY


@pytest.mark.parametrize("text", ["SASL handshake failed: Broker transport failure", "timed out"])
def test_an_authentication_that_breaks_off_is_an_outage(text):
    client("b:1")["error_cb"](KafkaError(KafkaError._AUTHENTICATION, text))
    with pytest.raises(SystemExit) as ended:
        cli._leave_away("late")
    assert ended.value.code == Code.CLUSTER_AWAY


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (401, RegistryRefused, Code.FAILED),
        (403, RegistryRefused, Code.FAILED),
        (500, RegistryError, Code.CLUSTER_AWAY),
    ],
)
def test_a_registry_that_refuses(monkeypatch, status, kind, code):
    monkeypatch.setattr(Registry, "_answer", lambda *_: (status, b"{}"))
    with pytest.raises(kind) as raised:
        Registry("http://127.0.0.1:1").id_of("x", {"type": "string"})
    assert type(raised.value) is kind

    def run(_):
        raise raised.value

    monkeypatch.setattr(cli, "check", run)
    with pytest.raises(SystemExit) as ended:
        cli.main(["topology", "plan"])
    assert ended.value.code == code
    if code == Code.FAILED:
        assert "check INFOWAY_REGISTRY_USERNAME" in str(ended.value)
