"""The settings of TLS, SASL and the registry: what clients get of them, mistakes in one line, and
secrets nowhere in sight."""

import ast
from pathlib import Path

import httpx
import pytest
from faust.auth import SASLCredentials, SSLCredentials

from processors.engine.plane.app import _credentials
from schemas.clients import registry as registry_module
from schemas.clients.kafka import VARIABLES, Security, SecurityError, client, security_of, without
from schemas.clients.registry import Registry

ROOT = Path(__file__).parents[2]
SASL = {
    "INFOWAY_SECURITY_PROTOCOL": "SASL_SSL",
    "INFOWAY_SASL_USERNAME": "me",
    "INFOWAY_SASL_PASSWORD": "s3cret",
}


def test_librdkafka_and_aiokafka_get_the_same():
    security = Security.from_environment({**SASL, "INFOWAY_SASL_MECHANISM": "SCRAM-SHA-256"})
    assert security.kafka() == {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-256",
        "sasl.username": "me",
        "sasl.password": "s3cret",
    }
    found = _credentials(security)
    assert isinstance(found, SASLCredentials)
    assert (found.protocol.value, found.mechanism.value, found.username, found.password) == (
        "SASL_SSL",
        "SCRAM-SHA-256",
        "me",
        "s3cret",
    )
    assert found.ssl_context.check_hostname
    assert (
        _credentials(
            Security.from_environment({**SASL, "INFOWAY_SECURITY_PROTOCOL": "SASL_PLAINTEXT"})
        ).ssl_context
        is None
    )
    assert isinstance(_credentials(Security("SSL")), SSLCredentials)
    assert Security("SSL").kafka() == {"security.protocol": "SSL"}
    assert (_credentials(Security()), Security().kafka()) == (None, {})


def test_a_secret_comes_from_a_file_too(tmp_path):
    secret = tmp_path / "password"
    secret.write_text("s3cret \n")
    settings = {name: value for name, value in SASL.items() if name != "INFOWAY_SASL_PASSWORD"}
    assert (
        Security.from_environment({**settings, "INFOWAY_SASL_PASSWORD_FILE": str(secret)}).password
        == "s3cret "
    )


def test_every_mistake_is_told_at_once_and_no_secret(tmp_path):
    (tmp_path / "empty.pem").write_text("no certificate")
    settings = {
        "INFOWAY_SECURITY_PROTOCOL": "SASL-SSL",
        "INFOWAY_SASL_MECHANISM": "GSSAPI",
        "INFOWAY_SASL_PASSWORD": "s3cret",
        "INFOWAY_REGISTRY_TOKEN": "t0ken",
        "INFOWAY_REGISTRY_USERNAME": "me",
        "INFOWAY_REGISTRY_PASSWORD_FILE": str(tmp_path / "absent"),
        "INFOWAY_TLS_CA": str(tmp_path / "empty.pem"),
    }
    with pytest.raises(SecurityError) as refused:
        Security.from_environment(settings)
    said = str(refused.value)
    for name in (
        "SECURITY_PROTOCOL='SASL-SSL'",
        "SASL_MECHANISM='GSSAPI'",
        "both INFOWAY_REGISTRY_TOKEN",
        "PASSWORD_FILE=",
        "empty.pem",
    ):
        assert name in said
    assert "s3cret" not in said
    assert "t0ken" not in said
    with pytest.raises(
        SecurityError, match=r"INFOWAY_SASL_USERNAME is not set.*INFOWAY_SASL_PASSWORD is not set"
    ):
        Security.from_environment({"INFOWAY_SECURITY_PROTOCOL": "SASL_SSL"})
    with pytest.raises(SecurityError, match="would not use it"):
        Security.from_environment({"INFOWAY_SASL_PASSWORD": "s3cret"})


def test_secrets_are_in_no_repr():
    shown = repr(Security("SASL_SSL", "PLAIN", "me", "s3cret", "", "them", "s3cret", "s3cret"))
    assert "s3cret" not in shown
    assert "them" in shown


def test_an_embedded_broker_beside_the_named_one_gets_no_credentials(monkeypatch):
    environment = {**SASL, "INFOWAY_BOOTSTRAP": "kafka.example:9093"}
    assert security_of("kafka.example:9093", environment).username == "me"
    assert security_of("127.0.0.1:1", environment) == Security()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert client("127.0.0.1:1").keys() == {"bootstrap.servers", "error_cb"}
    assert client("kafka.example:9093")["sasl.username"] == "me"
    every = dict.fromkeys(VARIABLES, "x") | {
        "INFOWAY_SASL_PASSWORD_FILE": "x",
        "INFOWAY_PREFIX": "x",
    }
    assert without(every) == {"INFOWAY_PREFIX": "x"}


@pytest.mark.parametrize(
    ("settings", "header"),
    [
        (
            {"INFOWAY_REGISTRY_USERNAME": "me", "INFOWAY_REGISTRY_PASSWORD": "s3cret"},
            "Basic bWU6czNjcmV0",
        ),
        ({"INFOWAY_REGISTRY_TOKEN": "t0ken"}, "Bearer t0ken"),
        ({}, None),
    ],
)
def test_the_registry_is_shown_what_it_asks_for(monkeypatch, settings, header):
    for name, value in {
        **settings,
        "INFOWAY_REGISTRY": "http://registry.example/apis/ccompat/v7/",
    }.items():
        monkeypatch.setenv(name, value)
    seen = []

    def answer(request):
        seen.append(request.headers.get("Authorization"))
        return httpx.Response(200, json={"schema": "{}"})

    made = httpx.Client
    monkeypatch.setattr(
        registry_module.httpx,
        "Client",
        lambda **settings: made(**settings, transport=httpx.MockTransport(answer)),
    )
    Registry("http://registry.example/apis/ccompat/v7").schema(1)
    Registry("http://127.0.0.1:1/apis/ccompat/v7").schema(1)
    assert seen == [header, None]


def test_no_client_of_kafka_is_made_without_these_settings():
    exempt = {
        "processors/engine/transactions/group.py",
        "infra/embedded/stack.py",
        "schemas/clients/kafka.py",
    }
    for path in [
        path
        for package in ("schemas", "producers", "processors", "infra")
        for path in (ROOT / package).rglob("*.py")
    ]:
        name = path.relative_to(ROOT).as_posix()
        written = [
            node.value
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Constant)
        ]
        assert name in exempt or "bootstrap.servers" not in written, (
            f"{name}: begin with schemas.clients.kafka.client()"
        )
