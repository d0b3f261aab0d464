"""The Kubernetes manifests, rendered by kustomize: against Kubernetes' schemas, and against what
the programs in the pods understand."""

import re
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from infra.cli.main import parser
from infra.cli.options import topology_of
from infra.deploy.k8s.__main__ import document
from infra.deploy.k8s.topics import kafka_topics, read_settings, resource_name
from infra.ingest.planning import chosen_feeds
from infra.ingest.symbols_file import read_symbols
from processors.settings import Settings
from schemas.clients.kafka import VARIABLES
from schemas.topics import Topology

ROOT = Path(__file__).parents[2]
K8S = ROOT / "infra" / "deploy" / "k8s"
SETTINGS = K8S / "base" / "settings.env"
OLDEST, NEWEST = "1.31", "1.37"


def rendered(folder):
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl: its kustomize renders the manifests")
    done = subprocess.run(
        [kubectl, "kustomize", K8S / folder],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.fixture(scope="module")
def resources():
    return rendered("overlays/production")


@pytest.fixture(scope="module")
def workloads(resources):
    return [
        resource
        for resource in resources
        if resource["kind"] in ("Deployment", "StatefulSet", "Job")
    ]


def named(resources, kind, name):
    [found] = [
        resource
        for resource in resources
        if (resource["kind"], resource["metadata"]["name"]) == (kind, name)
    ]
    return found


def pod(workload):
    return workload["spec"]["template"]["spec"]


def container(workload):
    [only] = pod(workload)["containers"]
    return only


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("folder", ["base", "producer", "overlays/production"])
def test_every_resource_is_valid_by_kubernetes_schemas(folder, version):
    found = rendered(folder)
    assert found
    for resource in found:
        kubernetes_validate.validate(resource, version, strict=True)


@pytest.mark.parametrize(
    "change",
    [
        {"replica": 1},
        {"replicas": "one"},
        {"template": {"spec": {}}},
        {"strategy": {"kind": "Recreate"}},
    ],
)
def test_the_schemas_refuse_a_mistake(resources, change):
    deployment = named(resources, "Deployment", "infoway-producer-stock")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(
            {**deployment, "spec": {**deployment["spec"], **change}}, NEWEST, strict=True
        )


def test_the_topics_in_the_repository_are_those_of_the_contract():
    assert (K8S / "topics" / "topics.yaml").read_text() == document(SETTINGS.read_text()), (
        "stale: run `make k8s`"
    )


def test_every_topic_of_the_contract_is_one_of_strimzis_cluster():
    topics = rendered("topics")
    assert {topic["spec"]["topicName"] for topic in topics} == {
        topic.name for topic in Topology().topics()
    }
    assert {topic["metadata"]["labels"]["strimzi.io/cluster"] for topic in topics} == {"infoway"}
    assert all(
        topic["spec"]["replicas"] > int(topic["spec"]["config"]["min.insync.replicas"])
        for topic in topics
    )


def test_topics_follow_the_settings_of_the_pods():
    settings = {
        "INFOWAY_BOOTSTRAP": "b:1",
        "INFOWAY_REGISTRY": "http://r",
        "INFOWAY_PREFIX": "Dev_",
        "INFOWAY_INTERVALS": "1s",
        "INFOWAY_PARTITIONS": "12",
        "INFOWAY_RETENTION": "infoway.raw.trade=1d",
    }
    topics = {topic["spec"]["topicName"]: topic for topic in kafka_topics(settings)}
    assert "Dev_infoway.bars.1s" in topics
    assert "Dev_infoway.bars.1m" not in topics
    raw = topics["Dev_infoway.raw.trade"]
    assert raw["metadata"]["name"].startswith("dev-infoway.raw.trade-")
    assert raw["spec"]["partitions"] == 12
    assert raw["spec"]["config"]["retention.ms"] == "86400000"
    assert "replicas" not in raw["spec"]


def test_names_are_kubernetes_names_and_no_two_topics_share_one():
    topics = ["infoway.raw.trade", "A.b", "a.b", "a_b", "a-b", "_a..b_", "a.-b", "x" * 249]
    names = [resource_name(topic) for topic in topics]
    assert len(set(names)) == len(topics)
    for name in names:
        assert re.fullmatch(
            r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", name
        )
        assert len(name) <= 253
    assert names[0] == topics[0]


def test_settings_are_those_that_the_code_reads(resources, workloads):
    sources = [
        path
        for part in ("schemas", "producers", "processors", "infra")
        for path in (ROOT / part).rglob("*.py")
    ]
    known = {
        name for path in sources for name in re.findall(r"\bINFOWAY_[A-Z_]+\b", path.read_text())
    }
    known |= {f"{name}_FILE" for name in VARIABLES if "PASSWORD" in name or "TOKEN" in name}
    for workload in workloads:
        names = {variable["name"] for variable in container(workload)["env"]}
        for source in container(workload)["envFrom"]:
            names |= named(resources, "ConfigMap", source["configMapRef"]["name"])["data"].keys()
        assert {"INFOWAY_BOOTSTRAP", "INFOWAY_REGISTRY", "INFOWAY_SASL_USERNAME"} <= names <= known
        assert "INFOWAY_SLOT" not in names or workload["kind"] == "StatefulSet"


def test_each_pod_of_the_processors_has_a_transactional_id_of_its_own(resources):
    processors = named(resources, "StatefulSet", "infoway-processors")
    [slot] = [
        variable for variable in container(processors)["env"] if variable["name"] == "INFOWAY_SLOT"
    ]
    assert (
        slot["valueFrom"]["fieldRef"]["fieldPath"]
        == "metadata.labels['apps.kubernetes.io/pod-index']"
    )
    settings = read_settings(SETTINGS.read_text())
    ids = {
        Settings.from_environment({**settings, "INFOWAY_SLOT": str(ordinal)}).transactional_id
        for ordinal in range(2)
    }
    assert ids == {"infoway-processors-0", "infoway-processors-1"}
    assert processors["spec"]["podManagementPolicy"] == "Parallel"
    assert processors["spec"]["replicas"] <= min(
        topic.partitions for topic in Topology().topics() if topic.name.startswith("infoway.raw.")
    )


def test_commands_are_understood(workloads):
    for workload in workloads:
        command = container(workload)["command"]
        assert command[0] == "infoway-streams"
        assert parser().parse_args(command[1:]).run


def test_never_two_producers_of_a_feed(workloads):
    producers = [workload for workload in workloads if workload["kind"] == "Deployment"]
    assert len(producers) == 2
    for producer in producers:
        assert producer["spec"]["replicas"] == 1
        assert producer["spec"]["strategy"] == {"type": "Recreate"}
    claims = [
        volume["persistentVolumeClaim"]["claimName"]
        for producer in producers
        for volume in pod(producer)["volumes"]
        if volume["name"] == "spool"
    ]
    assert len(set(claims)) == 2
    lists = (K8S / "overlays" / "production").glob("*/symbols.txt")
    feeds = [{feed.name for feed in chosen_feeds(read_symbols(path), live=True)} for path in lists]
    assert len(feeds) == 2
    assert not set.intersection(*feeds)


def test_a_changed_list_of_symbols_reaches_the_running_producer(resources, workloads):
    for producer in (workload for workload in workloads if workload["kind"] == "Deployment"):
        [name] = [
            volume["configMap"]["name"]
            for volume in pod(producer)["volumes"]
            if "configMap" in volume
        ]
        [mount] = [
            mount for mount in container(producer)["volumeMounts"] if mount["name"] == "symbols"
        ]
        assert "subPath" not in mount
        [file] = named(resources, "ConfigMap", name)["data"]
        assert container(producer)["command"][-2:] == [
            "--symbols-file",
            f"{mount['mountPath']}/{file}",
        ]


def test_files_that_settings_name_are_mounted(resources, workloads):
    for workload in workloads:
        values = {
            variable["name"]: variable.get("value", "") for variable in container(workload)["env"]
        }
        for source in container(workload)["envFrom"]:
            values |= named(resources, "ConfigMap", source["configMapRef"]["name"])["data"]
        folders = {
            mount["name"]: mount["mountPath"] for mount in container(workload)["volumeMounts"]
        }
        assert set(folders) == {volume["name"] for volume in pod(workload)["volumes"]}
        [secrets] = [
            volume["projected"]["sources"]
            for volume in pod(workload)["volumes"]
            if volume["name"] == "secrets"
        ]
        mounted = {
            f"{folders['secrets']}/{item['path']}"
            for source in secrets
            for item in source["secret"]["items"]
        }
        wanted = {
            value
            for name, value in values.items()
            if name.endswith("_FILE") or name == "INFOWAY_TLS_CA"
        }
        assert wanted == mounted
        if "INFOWAY_SPOOL" in values:
            assert values["INFOWAY_SPOOL"].startswith(folders["spool"] + "/")


def test_secrets_come_by_reference_and_the_key_to_producers_alone(resources, workloads):
    assert not [resource for resource in resources if resource["kind"] == "Secret"]
    for workload in workloads:
        assert not {variable["name"] for variable in container(workload)["env"]} & {
            "INFOWAY_API_KEY",
            "INFOWAY_SASL_PASSWORD",
        }
        assert ("infoway-api-key" in str(workload)) == (workload["kind"] == "Deployment")


def test_pods_meet_the_restricted_pod_security_standard(workloads):
    for workload in workloads:
        security = pod(workload)["securityContext"]
        assert security["runAsNonRoot"]
        assert security["runAsUser"] > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container(workload)["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert pod(workload)["automountServiceAccountToken"] is False
        assert {"cpu", "memory"} <= container(workload)["resources"]["requests"].keys()
        assert "memory" in container(workload)["resources"]["limits"]


def test_what_goes_on_running_is_probed_where_it_listens(resources, workloads):
    for workload in workloads:
        if workload["kind"] == "Job":
            continue
        [port] = container(workload)["ports"]
        [settings] = [
            resource["data"]
            for resource in resources
            if resource["metadata"]["name"].startswith("infoway-settings")
        ]
        assert settings["INFOWAY_HTTP"] == f"0.0.0.0:{port['containerPort']}"
        paths = {
            kind: container(workload)[f"{kind}Probe"]["httpGet"]
            for kind in ("startup", "liveness", "readiness")
        }
        assert {kind: probe["path"] for kind, probe in paths.items()} == {
            "startup": "/livez",
            "liveness": "/livez",
            "readiness": "/readyz",
        }
        assert {probe["port"] for probe in paths.values()} == {port["name"]}


def test_a_producer_has_time_to_take_up_a_full_spool(workloads):
    for producer in (workload for workload in workloads if workload["kind"] == "Deployment"):
        [spool] = [
            int(variable["value"])
            for variable in container(producer)["env"]
            if variable["name"] == "INFOWAY_SPOOL_MIB"
        ]
        probe = container(producer)["startupProbe"]
        # two MiB a second at least: it is read thrice, and so are the topics since its oldest
        # record
        assert probe["periodSeconds"] * probe["failureThreshold"] >= spool / 2


def test_selectors_find_their_own_pods_alone(resources, workloads):
    selectors = [
        (
            resource["metadata"]["name"],
            resource["spec"]["selector"].get("matchLabels", resource["spec"]["selector"]),
        )
        for resource in resources
        if "selector" in resource.get("spec", {})
    ]
    assert len(selectors) == 5
    for name, selector in selectors:
        matched = [
            workload["metadata"]["name"]
            for workload in workloads
            if selector.items() <= workload["spec"]["template"]["metadata"]["labels"].items()
        ]
        assert matched == [name]


def test_producers_and_processors_take_the_same_topology_from_the_settings(monkeypatch):
    settings = {
        "INFOWAY_BOOTSTRAP": "b:1",
        "INFOWAY_REGISTRY": "http://r",
        "INFOWAY_PREFIX": "x.",
        "INFOWAY_PARTITIONS": "12",
    }
    settings |= {
        "INFOWAY_INTERVALS": "1s,1m",
        "INFOWAY_WINDOWS": "30s",
        "INFOWAY_ACTIVITY": "tick-10",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert (
        topology_of(parser().parse_args(["produce"]))
        == Settings.from_environment(settings).topology
    )
