"""Writes the KafkaTopics of the manifests, for `make k8s`: `python -m infra.deploy.k8s SETTINGS
TOPICS`, both files."""

import sys
from pathlib import Path

import yaml

from infra.deploy.k8s.topics import kafka_topics, read_settings

_NOTICE = "# made by `make k8s` from schemas/topics.yaml and base/settings.env: change it there\n"


def document(settings: str) -> str:
    """Return the text of the KafkaTopics' file, from that of the settings."""
    return _NOTICE + yaml.safe_dump_all(kafka_topics(read_settings(settings)), sort_keys=False)


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    target.write_text(document(source.read_text(encoding="utf-8")), encoding="utf-8")
