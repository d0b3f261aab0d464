"""The topology: `topics.yaml` and the settings that its placeholders stand for, made into the
topics to create."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, cast

import yaml

from schemas.wire import Schema

RAW_TRADE = "infoway.raw.trade"
RAW_DEPTH = "infoway.raw.depth"
RAW_KLINE = "infoway.raw.kline"
RAW = (RAW_TRADE, RAW_DEPTH, RAW_KLINE)
DEPTH_IMBALANCE = "infoway.depth.imbalance"
RECONCILIATION = "infoway.reconciliation"
PROGRESS = "infoway.progress"
LATE_TRADES = "infoway.late"
DEAD_LETTER = "infoway.dead-letter"
FEED_STATUS = "infoway.feed.status"
"""Names of the contract that code refers to; a namespace's prefix comes before them."""

DEFAULT_INTERVALS = ("1m", "5m", "15m", "1h", "1d")
DEFAULT_WINDOWS = ("1m", "5m", "session")

AGENTS = ("vwap", "bars", "imbalance", "reconciliation")
ACTIVITY_AGENT = "activity"
"""Runs where activity bars are asked for."""


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic: its full name, and what `topics.yaml` says of it."""

    name: str
    schema: str | None
    key: str
    partitions: int
    config: Mapping[str, str]
    owner: str
    description: str
    consumers: tuple[str, ...]
    """The project's own readers."""

    @property
    def subject(self) -> str:
        """The registry's subject of the topic's values."""
        return f"{self.name}-value"


@dataclass(frozen=True, slots=True)
class Topology:
    """The names of a deployment: `prefix` comes before every topic, so that namespaces never
    meet."""

    prefix: str = ""
    intervals: tuple[str, ...] = DEFAULT_INTERVALS
    windows: tuple[str, ...] = DEFAULT_WINDOWS
    partitions: int | None = None
    activity: tuple[str, ...] = ()
    """Names of activity bars, `tick-1000`: what makes sense depends on the market, so there is no
    default."""

    @property
    def agents(self) -> tuple[str, ...]:
        """Names of the agents that run."""
        return (*AGENTS, ACTIVITY_AGENT) if self.activity else AGENTS

    def name(self, contract_name: str) -> str:
        """Return the full name of a topic of the contract, `infoway.raw.trade`."""
        return f"{self.prefix}{contract_name}"

    def contract_name(self, name: str) -> str:
        """Return a full name without the prefix."""
        return name.removeprefix(self.prefix)

    def topics(self) -> list[Topic]:
        """Return every topic of the deployment, in the order of `topics.yaml`."""
        values = {
            "{interval}": self.intervals,
            "{activity}": self.activity,
            "{window}": self.windows,
            "{agent}": self.agents,
        }
        found: list[Topic] = []
        for entry in _document()["topics"]:
            placeholder = next((mark for mark in values if mark in entry["name"]), None)
            names = (
                [entry["name"].replace(placeholder, value) for value in values[placeholder]]
                if placeholder
                else [entry["name"]]
            )
            found += [_topic(entry, self.name(name), self.partitions) for name in names]
        return found

    def derived(self) -> list[Topic]:
        """Return the topics that the processors write for others: all of theirs that have a
        schema."""
        return [
            topic
            for topic in self.topics()
            if "processors" in topic.owner and topic.schema is not None
        ]


def contract() -> list[Topic]:
    """Return the topics as `topics.yaml` lists them: a family, `infoway.bars.{interval}`, is
    one."""
    return [_topic(entry, entry["name"], None) for entry in _document()["topics"]]


def partitions_fixed() -> frozenset[str]:
    """Return the topics whose number of partitions no deployment chooses."""
    return frozenset(entry["name"] for entry in _document()["topics"] if "partitions" in entry)


def placeholders() -> dict[str, str]:
    """Return what each placeholder of a family's name stands for."""
    return cast(dict[str, str], _document()["placeholders"])


@cache
def load_schema(name: str) -> Schema:
    """Return the Avro schema `<name>.avsc`."""
    return cast(
        Schema, json.loads(files("schemas").joinpath(f"{name}.avsc").read_text(encoding="utf-8"))
    )


@cache
def load_example(name: str) -> dict[str, Any]:
    """Return the example payload of a schema, as JSON shows it."""
    return cast(
        dict[str, Any],
        json.loads(
            files("schemas").joinpath("examples", f"{name}.json").read_text(encoding="utf-8")
        ),
    )


def _topic(entry: dict[str, Any], name: str, partitions: int | None) -> Topic:
    defaults = _document()["defaults"]
    config = {key: str(value) for key, value in {**defaults["config"], **entry["config"]}.items()}
    return Topic(
        name=name,
        schema=entry.get("schema"),
        key=entry["key"],
        partitions=entry.get("partitions") or partitions or defaults["partitions"],
        config=config,
        owner=entry["owner"],
        description=entry["description"],
        consumers=tuple(entry["consumers"]),
    )


@cache
def _document() -> dict[str, Any]:
    return cast(
        dict[str, Any],
        yaml.safe_load(files("schemas").joinpath("topics.yaml").read_text(encoding="utf-8")),
    )
