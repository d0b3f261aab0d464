"""The KafkaTopics against the schema that Strimzi's own generator makes of its classes, both
fetched as the embedded broker is."""

import subprocess
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from infra.embedded.artifacts import cache_folder
from infra.embedded.java import JavaMissing, find_java
from infra.embedded.maven import Unfetched, fetch

ROOT = Path(__file__).parents[2]
STRIMZI = "1.2.0"
TOPIC = "io.strimzi.api.kafka.model.topic.KafkaTopic"
TOPICS = list(
    yaml.safe_load_all((ROOT / "infra" / "deploy" / "k8s" / "topics" / "topics.yaml").read_text())
)


@pytest.fixture(scope="module")
def definition(tmp_path_factory):
    folder = cache_folder() / "maven"
    try:
        jars = [fetch(folder, f"io.strimzi:{name}:{STRIMZI}") for name in ("crd-generator", "api")]
        java = find_java()
    except (Unfetched, JavaMissing) as error:
        pytest.skip(f"no Strimzi {STRIMZI} to make the schema with: {error}")
    made = tmp_path_factory.mktemp("strimzi") / "kafkatopic.yaml"
    command = [
        java,
        "-cp",
        ":".join(map(str, jars)),
        "io.strimzi.crdgenerator.CrdGenerator",
        "--yaml",
        f"{TOPIC}={made}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(made.read_text())


def closed(schema):
    """What an API server does that validates strictly: fields that the schema does not name are
    refused."""
    found = {
        name: closed(value) if isinstance(value, dict) else value for name, value in schema.items()
    }
    if "properties" in found and not schema.get("x-kubernetes-preserve-unknown-fields"):
        found.setdefault("additionalProperties", False)
    return found


def mistakes(definition, topic):
    group, _, version = topic["apiVersion"].partition("/")
    assert (group, topic["kind"]) == (
        definition["spec"]["group"],
        definition["spec"]["names"]["kind"],
    )
    [schema] = [
        each["schema"]["openAPIV3Schema"]
        for each in definition["spec"]["versions"]
        if each["name"] == version and each["served"]
    ]
    return [error.message for error in Draft202012Validator(closed(schema)).iter_errors(topic)]


def test_every_topic_is_valid_by_strimzis_schema(definition):
    assert len(TOPICS) > 10
    assert {topic["metadata"]["name"]: mistakes(definition, topic) for topic in TOPICS} == {
        topic["metadata"]["name"]: [] for topic in TOPICS
    }


@pytest.mark.parametrize(
    "change", [{"partition": 6}, {"partitions": "6"}, {"replicas": 0}, {"config": []}]
)
def test_strimzis_schema_refuses_a_mistake(definition, change):
    topic = TOPICS[0]
    assert mistakes(definition, {**topic, "spec": {**topic["spec"], **change}})
