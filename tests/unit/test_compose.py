"""The Compose file against the Compose specification's schema, and against what the programs that
it starts understand."""

import json
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
import yaml
from jsonschema import validators

from infra.cli.main import parser
from infra.embedded.artifacts import KAFKA_VERSION, REGISTRY_VERSION
from infra.embedded.kafka import _properties
from infra.topology.wanted import VARIABLES as DURABILITY
from processors.settings import VARIABLES, Settings

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
_ABORTS = "KAFKA_TRANSACTION_ABORT_TIMED_OUT_TRANSACTION_CLEANUP_INTERVAL_MS"
PROCESSORS = {name: service for name, service in SERVICES.items() if "processors" in name}
COMMANDS = [
    name
    for name, service in SERVICES.items()
    if service.get("command", [""])[0] == "infoway-streams"
]
# the specification's own file, as check-jsonschema ships it
SCHEMA = json.loads(
    Path(
        distribution("check-jsonschema").locate_file(
            "check_jsonschema/builtin_schemas/vendor/compose-spec.json"
        )
    ).read_text()
)


def mistakes(document):
    return [
        error.message
        for error in validators.validator_for(SCHEMA, validators.Draft202012Validator)(
            SCHEMA
        ).iter_errors(document)
    ]


def test_the_file_is_valid_by_the_specification():
    assert mistakes(COMPOSE) == []


@pytest.mark.parametrize(
    "change",
    [
        {"portz": []},
        {"ports": ["1:1", "1:1"]},
        {"healthcheck": {"retrys": 1}},
        {"depends_on": {"registry": {"condition": "bogus"}}},
        {"environment": {"A": {"b": 1}}},
    ],
)
def test_the_specification_refuses_a_mistake(change):
    assert mistakes({**COMPOSE, "services": {**SERVICES, "kafka": {**SERVICES["kafka"], **change}}})


def test_a_broker_that_was_killed_is_fenced_before_it_looks_for_transactions_to_abort():
    # docs/reliability.md, finding 8; the session's default is 9 s, and nothing ends a killed
    # broker's registration before that here
    assert "KAFKA_BROKER_SESSION_TIMEOUT_MS" not in SERVICES["kafka"]["environment"]
    assert SERVICES["kafka"]["environment"][_ABORTS] > 9_000


def test_versions_are_those_of_the_embedded_stack_and_of_the_package():
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{KAFKA_VERSION}"
    assert SERVICES["registry"]["image"] == f"apicurio/apicurio-registry:{REGISTRY_VERSION}"
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert {service["image"] for service in SERVICES.values() if "build" in service} == {
        f"infoway-streams:{version}"
    }


def test_the_broker_has_the_settings_of_the_embedded_one():
    embedded = {
        f"KAFKA_{name.upper().replace('.', '_')}": str(value)
        for name, value in _properties(0, 0).items()
    }
    places = {
        "KAFKA_CONTROLLER_QUORUM_VOTERS",
        "KAFKA_LISTENERS",
        "KAFKA_ADVERTISED_LISTENERS",
        "KAFKA_LOG_DIRS",
    }
    places |= {"KAFKA_LISTENER_SECURITY_PROTOCOL_MAP", "KAFKA_INTER_BROKER_LISTENER_NAME"}
    composed = {
        name: str(value)
        for name, value in SERVICES["kafka"]["environment"].items()
        if name not in {*places, _ABORTS}
    }
    assert composed.items() <= embedded.items()
    # short sessions are the tests', no topic is made without a count of partitions, and nobody
    # shares groups
    left_out = {"KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS", "KAFKA_NUM_PARTITIONS"}
    left_out |= {name for name in embedded if name.startswith("KAFKA_SHARE_")}
    # where no controller declares the broker dead before it starts, its own end has to
    left_out |= {"KAFKA_CONTROLLED_SHUTDOWN_ENABLE"}
    # nothing ends the registration of a broker that was killed but its session
    left_out |= {_ABORTS, "KAFKA_BROKER_SESSION_TIMEOUT_MS"}
    assert embedded.keys() - composed.keys() - places == left_out


def test_ports_are_published_on_loopback_only():
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert not any("network_mode" in service for service in SERVICES.values())


@pytest.mark.parametrize("name", PROCESSORS)
def test_processors_get_settings_that_they_know_and_a_slot_of_their_own(name):
    environment = PROCESSORS[name]["environment"]
    assert set(environment) <= {*VARIABLES, "INFOWAY_HTTP"}
    settings = Settings.from_environment(environment)
    others = [
        Settings.from_environment(service["environment"])
        for other, service in PROCESSORS.items()
        if other != name
    ]
    assert settings.transactional_id not in [other.transactional_id for other in others]
    assert settings.slot == name.rpartition("-")[2]


def test_both_profiles_have_the_same_slots():
    live, simulated = (
        [
            service["environment"]["INFOWAY_SLOT"]
            for service in PROCESSORS.values()
            if profile in service["profiles"]
        ]
        for profile in ("live", "simulated")
    )
    assert live == simulated == ["0", "1"]


def test_simulated_and_live_never_share_a_prefix():
    for service in SERVICES.values():
        environment = service.get("environment", {})
        if "INFOWAY_BOOTSTRAP" in environment:
            prefix = environment.get("INFOWAY_PREFIX", "")
            assert {"live": "", "simulated": "simulated."}[service["profiles"][0]] == prefix
            assert len(service["profiles"]) == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_are_understood(name):
    assert parser().parse_args(SERVICES[name]["command"][1:]).run


def test_only_the_simulated_producer_reads_the_simulator():
    urls = {
        name: parser().parse_args(SERVICES[name]["command"][1:]).url
        for name in COMMANDS
        if name.endswith("producer")
    }
    simulate = parser().parse_args(SERVICES["simulator"]["command"][1:])
    assert urls == {"producer": None, "simulated-producer": f"ws://simulator:{simulate.port}/ws"}


def test_the_key_comes_as_a_secret_and_to_the_live_producer_alone():
    assert [name for name, service in SERVICES.items() if "secrets" in service] == ["producer"]
    (secret,) = SERVICES["producer"]["secrets"]
    assert COMPOSE["secrets"][secret["source"]] == {"environment": "INFOWAY_API_KEY"}
    assert (
        SERVICES["producer"]["environment"]["INFOWAY_API_KEY_FILE"]
        == f"/run/secrets/{secret['source']}"
    )
    assert f"USER {secret['uid']}:{secret['gid']}" in (ROOT / "Dockerfile").read_text()
    assert secret["mode"] == 0o400
    assert not any(
        "INFOWAY_API_KEY" in service.get("environment", {}) for service in SERVICES.values()
    )


def test_conditions_can_be_met_within_the_profile():
    for service in SERVICES.values():
        for name, wanted in service.get("depends_on", {}).items():
            needed = SERVICES[name]
            assert set(service["profiles"]) <= set(needed["profiles"])
            assert (wanted["condition"] == "service_healthy") == ("healthcheck" in needed)
            if wanted["condition"] == "service_completed_successfully":
                assert needed["command"] == ["infoway-streams", "topology", "apply"]


@pytest.mark.parametrize("name", [*PROCESSORS, "producer", "simulated-producer"])
def test_nothing_starts_before_the_topology_of_its_namespace_is_applied(name):
    [topology] = [other for other in SERVICES[name]["depends_on"] if "topology" in other]
    assert SERVICES[name]["depends_on"][topology] == {"condition": "service_completed_successfully"}
    prefix = "INFOWAY_PREFIX"
    assert SERVICES[topology]["environment"].get(prefix) == SERVICES[name]["environment"].get(
        prefix
    )
    assert set(SERVICES[topology]["environment"]) <= {*VARIABLES, *DURABILITY}


def test_named_volumes_are_declared_and_mounted_files_are_there():
    used = {
        volume.partition(":")[0]
        for service in SERVICES.values()
        for volume in service.get("volumes", [])
    }
    files = {name for name in used if name.startswith("./")}
    assert used - files == set(COMPOSE["volumes"])
    assert all((ROOT / name).exists() for name in files)


def test_core_is_broker_and_registry_which_every_source_needs_and_monitoring_watches():
    assert {name for name, service in SERVICES.items() if "core" in service["profiles"]} == {
        "kafka",
        "registry",
    }
    assert {profile for service in SERVICES.values() for profile in service["profiles"]} == {
        "core",
        "live",
        "simulated",
        "monitoring",
    }


@pytest.mark.parametrize("name", ["producer", "simulated-producer"])
def test_what_waits_for_the_broker_outlives_the_container_and_is_one_producers(name):
    [mounted] = SERVICES[name]["volumes"]
    folder = mounted.partition(":")[2]
    assert SERVICES[name]["environment"]["INFOWAY_SPOOL"].startswith(f"{folder}/")
    assert [
        other for other, service in SERVICES.items() if mounted in service.get("volumes", [])
    ] == [name]
    assert f"install -d -o infoway -g infoway {folder}" in (ROOT / "Dockerfile").read_text()


def test_our_services_have_as_long_to_end_as_their_pods_and_no_more_rights():
    periods = {
        document["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        for name in ("base/processors.yaml", "producer/producer.yaml")
        for document in yaml.safe_load_all((ROOT / "infra" / "deploy" / "k8s" / name).read_text())
        if document["kind"] in ("StatefulSet", "Deployment")
    }
    ours = [service for service in SERVICES.values() if "build" in service]
    assert {f"{period}s" for period in periods} == {
        service["stop_grace_period"] for service in ours
    }
    assert all(service["init"] and service["cap_drop"] == ["ALL"] for service in ours)
    # Compose refuses a secret from the environment for a service that is read-only
    assert all(service["read_only"] != ("secrets" in service) for service in ours)
