"""The topology as Strimzi's KafkaTopics, from the settings that the pods get; it writes no file and
asks no cluster."""

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from infra.topology.wanted import wanted
from processors.settings import Settings

API_VERSION = "kafka.strimzi.io/v1"

_LABEL = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"
_RESOURCE_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_LONGEST_NAME = 253


def read_settings(text: str) -> dict[str, str]:
    """Return the variables of a file as kustomize's `envs` takes it: NAME=VALUE lines, `#` before a
    comment."""
    lines = (line.strip() for line in text.splitlines())
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def kafka_topics(settings: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return a KafkaTopic for every topic that `topology apply` would want with these settings;
    raises SettingsError, WantedWrong."""
    wants = wanted(Settings.from_environment(settings).topology, settings)
    return [
        {
            "apiVersion": API_VERSION,
            "kind": "KafkaTopic",
            "metadata": {"name": resource_name(topic.name)},
            "spec": {
                "topicName": topic.name,
                "partitions": topic.partitions,
                # without one Strimzi takes the cluster's default, as `topology apply` does
                **({} if wants.replication is None else {"replicas": wants.replication}),
                "config": dict(topic.config),
            },
        }
        for topic in wants.topics
    ]


def resource_name(topic: str) -> str:
    """Return a topic's name as Kubernetes takes it: unchanged where it can be, else made fit and
    unlike any other's."""
    if _RESOURCE_NAME.fullmatch(topic) and len(topic) <= _LONGEST_NAME:
        return topic
    parts = (re.sub(r"[^a-z0-9]+", "-", part).strip("-") for part in topic.lower().split("."))
    fit = ".".join(part for part in parts if part)
    return f"{fit}-{sha256(topic.encode()).hexdigest()[:8]}"
