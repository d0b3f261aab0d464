"""The contract's documents: every field says what it means, topics stand in one list, and the
checked-in pages are those of today."""

import importlib
import re
import sys
from pathlib import Path
from typing import get_args

import pytest
import yaml

from processors.agents.bars.figures import Provenance
from processors.agents.reconciliation.figures import Reason, Status
from processors.model.observation import Completeness
from processors.settings import VARIABLES
from producers.healing.past_klines import heals
from producers.vendor.answers import RestKline
from producers.vendor.codes import (
    HEARTBEAT,
    HEARTBEAT_REPLY,
    INTERVALS,
    UNSUBSCRIBED,
    WELCOME,
    Channel,
)
from producers.vendor.frames import MAX_FRAME
from producers.vendor.symbols import BUSINESSES
from schemas.control import HEADERS, KINDS, Control
from schemas.docs.__main__ import documents
from schemas.docs.asyncapi import document
from schemas.docs.fields import fields_of
from schemas.topics import Topology, contract, load_schema

ROOT = Path(__file__).parents[2]
SCHEMAS = sorted(path.stem for path in (ROOT / "schemas").glob("*.avsc"))
NESTED = {
    "type": "record",
    "name": "Outer",
    "doc": "Outer.",
    "fields": [
        {
            "name": "levels",
            "doc": "Levels.",
            "type": [
                "null",
                {
                    "type": "array",
                    "items": {
                        "type": "record",
                        "name": "L",
                        "fields": [{"name": "size", "type": "long"}],
                    },
                },
            ],
        }
    ],
}


def undocumented(schema):
    found = [] if schema.get("doc") else [f"{schema['name']}: no doc"]
    for field in fields_of(schema):
        found += [f"{field.path}: no doc"] * (not field.meaning)
        found += [f"{field.path}: a number or a time, and no `Unit:`"] * (
            field.measured and not field.unit
        )
        found += [f"{field.path}: may be null, and no `Null:`"] * (
            field.nullable and not field.null
        )
        found += [f"{field.path}: is never null, and says when"] * (
            not field.nullable and bool(field.null)
        )
    return found


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_field_says_its_meaning_its_unit_and_when_it_is_null(name):
    assert undocumented(load_schema(name)) == []


def test_a_field_of_a_nested_record_that_says_nothing_is_found():
    assert undocumented(NESTED) == [
        "levels: may be null, and no `Null:`",
        "levels[].size: no doc",
        "levels[].size: a number or a time, and no `Unit:`",
    ]


@pytest.mark.parametrize("name", SCHEMAS)
def test_times_and_dates_have_logical_types_and_units_that_agree(name):
    units = {
        "timestamp-millis": "ms since 1970-01-01 UTC",
        "timestamp-micros": "us since 1970-01-01 UTC",
    }
    for field in fields_of(load_schema(name)):
        if field.path.rpartition(".")[2].startswith("ts_"):
            assert field.unit == units[field.type.split()[0]], field.path
        if field.path.endswith("_date"):
            assert field.type.startswith("date "), field.path


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_nullable_field_defaults_to_null_and_so_may_go_one_day(name):
    for field in load_schema(name)["fields"]:
        if isinstance(field["type"], list):
            assert field["type"][0] == "null", field["name"]
            assert field.get("default", "none") is None, field["name"]


VALUES = {
    ("bar", "completeness"): get_args(Completeness),
    ("activity_bar", "completeness"): get_args(Completeness),
    ("vwap", "completeness"): get_args(Completeness),
    ("bar", "provenance"): get_args(Provenance),
    ("bar", "cause"): ("update", "close", "late", "gap", "healed"),
    ("activity_bar", "cause"): ("close", "session_end", "update"),
    ("activity_bar", "kind"): ("tick", "volume", "turnover"),
    ("reconciliation", "status"): get_args(Status),
    ("reconciliation", "reason"): get_args(Reason),
    ("depth_imbalance", "book_state"): ("normal", "one_sided", "locked", "crossed", "empty"),
    ("feed_status", "state"): ("connecting", "healthy", "degraded", "down", "ended"),
    ("raw_kline", "interval"): tuple(INTERVALS.values()),
    ("raw_trade", "business"): BUSINESSES,
    ("dead_letter", "value"): (f"{MAX_FRAME // 1024} KiB",),
}


@pytest.mark.parametrize(("schema", "name"), VALUES)
def test_a_field_says_which_values_the_programs_write(schema, name):
    [doc] = [field["doc"] for field in load_schema(schema)["fields"] if field["name"] == name]
    assert [value for value in VALUES[schema, name] if not re.search(rf"\b{value}\b", doc)] == []


def test_every_schema_is_that_of_a_topic_and_has_an_example():
    assert {topic.schema for topic in contract()} - {None} == set(SCHEMAS)
    assert {path.stem for path in (ROOT / "schemas" / "examples").glob("*.json")} == set(SCHEMAS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_control_record_bears_the_headers_that_are_documented(kind):
    bare = Control(
        kind, "stock-1", "stock", "c", "live", 5, 5000, kline="{}" if kind == "heal" else None
    )
    assert [name for name, _ in bare.headers()] == [
        header.name for header in HEADERS if kind in header.always
    ]
    full = Control(kind, "stock-1", "stock", "c", "live", 5, 5000, 1, "why", "{}")
    assert [name for name, _ in full.headers()] == [header.name for header in HEADERS]


def test_heals_stand_where_the_trades_are_alone():
    kline = RestKline("00700.HK", "1m", 1752826080000, *("1" * 6), None, None)
    [heal] = heals([kline], "stock-1", "stock", "rest-1", 1752826180731000)
    bearing = {
        channel["address"]
        for channel in document()["channels"].values()
        if "HealControl" in channel["messages"]
    }
    assert bearing == {heal.topic}
    assert {name for name, text in documents().items() if "| `heal` |" in text} == {
        f"topics/{heal.topic}.md"
    }


def test_no_file_names_a_topic_that_topics_yaml_does_not_list():
    names = [topic.name for topic in contract()]
    patterns = [re.compile(re.sub(r"\\{\w+\\}", r"[\\w-]+", re.escape(name))) for name in names]
    families = "|".join({name.split(".")[1] for name in names})
    named = re.compile(rf"\binfoway\.(?:{families})\b(?:[.-](?:{{[^}}]*}}|<\w+>|[\w-]+))*\.?")
    sources = [
        path
        for part in ("schemas", "producers", "processors", "infra")
        for path in (ROOT / part).rglob("*.py")
    ]
    sources += [
        *ROOT.glob("*.md"),
        *ROOT.glob("*.yml"),
        *(ROOT / "infra").rglob("*.y*ml"),
        *(ROOT / "schemas").glob("*.avsc"),
    ]
    found = {
        (path.name, match[0]) for path in sources for match in named.finditer(path.read_text())
    }

    def listed(name):
        plain = re.sub(r"{[^}]*}|<\w+>", "x", name)
        begins = plain.endswith(".") and any(known.startswith(plain) for known in names)
        return begins or any(pattern.fullmatch(plain.rstrip(".")) for pattern in patterns)

    assert len(found) > 30
    assert {(file, name) for file, name in found if not listed(name)} == set()


def test_the_agents_read_what_topics_yaml_says(monkeypatch, tmp_path):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("INFOWAY_WORK_DIR", str(tmp_path))
    monkeypatch.setenv("INFOWAY_BOOTSTRAP", "127.0.0.1:1")
    monkeypatch.setenv("INFOWAY_REGISTRY", "http://127.0.0.1:1")
    monkeypatch.setenv("INFOWAY_ACTIVITY", "tick-1000")
    monkeypatch.setattr(
        "schemas.clients.cluster.require",
        lambda admin, registry, writes, reads: {topic.name: 1 for topic in writes},
    )
    agents = importlib.import_module("processors.app").app.engine.agents
    del sys.modules["processors.app"]  # it is of this test's settings
    topics = Topology(activity=("tick-1000",)).topics()
    for agent in agents:
        name = agent.computation.name
        assert set(agent.sources) == {topic.name for topic in topics if name in topic.consumers}, (
            name
        )
    assert {name for topic in topics for name in topic.consumers} - {
        agent.computation.name for agent in agents
    } == {
        "producers",
        "live view",
        "the agent",
    }


def test_the_checked_in_documents_are_those_of_today():
    folder = ROOT / "docs"
    checked_in = {
        path.relative_to(folder).as_posix()
        for path in (*folder.glob("*.yaml"), *(folder / "topics").glob("*.md"))
    }
    wanted = documents()
    stale = {
        name
        for name in checked_in | wanted.keys()
        if name not in checked_in or (folder / name).read_text() != wanted.get(name)
    }
    assert stale == set(), (
        "the schemas say something else than docs/: run `make docs` and commit what it changes"
    )


def test_the_page_of_the_protocol_names_every_code_of_a_frame_and_modules_that_exist():
    page = (ROOT / "docs" / "protocol.md").read_text()
    modules = set(re.findall(r"`((?:producers|processors|infra)/[^`]*)`", page))
    assert len(modules) > 20
    assert [module for module in modules if not (ROOT / module).exists()] == []
    codes = {number for channel in Channel for number in channel.value[1:]} | {
        HEARTBEAT,
        HEARTBEAT_REPLY,
        UNSUBSCRIBED,
        WELCOME,
    }
    assert [code for code in sorted(codes) if not re.search(rf"\b{code}\b", page)] == []


def test_every_reference_of_the_asyncapi_document_leads_somewhere():
    whole = yaml.safe_load(documents()["asyncapi.yaml"])
    assert whole == document()
    references = list(_references(whole))
    assert len(references) > 100
    for reference in references:
        node = whole
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]


def _references(node):
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)
