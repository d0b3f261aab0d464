"""The Compose file against the Compose specification's schema, and against what the programs that it starts understand."""

from pathlib import Path

import pytest
import yaml
from compose_pydantic import ComposeSpecification
from pydantic import ValidationError

from infra.cli import _parser
from infra.embedded.artifacts import KAFKA_VERSION, REGISTRY_VERSION
from processors.settings import VARIABLES, Settings

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
PROCESSORS = {name: service for name, service in SERVICES.items() if "processors" in name}


def test_the_file_is_valid_by_the_specification():
    # the models are generated from the specification's JSON schema and forbid what it does not know; they lost its pattern for x-
    document = {name: part for name, part in COMPOSE.items() if not name.startswith("x-")}
    ComposeSpecification.model_validate(document)
    with pytest.raises(ValidationError):
        ComposeSpecification.model_validate({**document, "services": {**SERVICES, "kafka": {**SERVICES["kafka"], "portz": []}}})


def test_versions_are_those_of_the_embedded_stack():
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{KAFKA_VERSION}"
    assert SERVICES["registry"]["image"] == f"apicurio/apicurio-registry:{REGISTRY_VERSION}"


def test_ports_are_published_on_loopback_only():
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


@pytest.mark.parametrize("name", PROCESSORS)
def test_processors_get_settings_that_they_know_and_a_slot_of_their_own(name):
    environment = PROCESSORS[name]["environment"]
    assert set(environment) <= set(VARIABLES)
    settings = Settings.from_environment(environment)
    others = [Settings.from_environment(service["environment"]) for other, service in PROCESSORS.items() if other != name]
    assert settings.transactional_id not in [other.transactional_id for other in others]
    assert settings.topology.prefix == ("simulated." if "simulated" in PROCESSORS[name]["profiles"] else "")


@pytest.mark.parametrize("name", [name for name, service in SERVICES.items() if service.get("command", [""])[0] == "infoway-streams"])
def test_commands_are_understood(name):
    assert _parser().parse_args(SERVICES[name]["command"][1:]).run


def test_simulated_and_live_never_share_a_prefix():
    for service in SERVICES.values():
        environment = service.get("environment", {})
        if "INFOWAY_BOOTSTRAP" in environment:
            assert (environment.get("INFOWAY_PREFIX") == "simulated.") == ("simulated" in service["profiles"])


def test_the_image_has_what_the_package_needs():
    copied = (ROOT / "Dockerfile").read_text()
    kept = (ROOT / ".dockerignore").read_text()
    for part in ("pyproject.toml", "constraints.txt", "schemas", "producers", "processors", "infra"):
        assert part in copied
        assert f"!{part}" in kept
