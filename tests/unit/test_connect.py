"""The Kafka Connect examples: what they name as keys and columns is in the schemas."""

import json
import re
from pathlib import Path

import pytest

from schemas.topics import Topology, load_schema

CONNECT = Path(__file__).parents[2] / "infra/deploy/connect"
SCHEMAS = {"bars": "bar", "vwap": "vwap", "imbalance": "depth_imbalance"}


def fields(table):
    return {field["name"]: field["type"] for field in load_schema(SCHEMAS[table])["fields"]}


@pytest.mark.parametrize("table", SCHEMAS)
def test_the_jdbc_keys_are_fields_that_are_never_null(table):
    config = json.loads((CONNECT / f"jdbc-{table}.json").read_text())["config"]
    keys = config["pk.fields"].split(",")
    assert all(not isinstance(fields(table)[key], list) for key in keys)
    topics = [
        topic for topic in Topology().topics() if re.fullmatch(config["topics.regex"], topic.name)
    ]
    assert {topic.schema for topic in topics} == {SCHEMAS[table]}


@pytest.mark.parametrize("table", SCHEMAS)
def test_the_clickhouse_columns_are_the_fields_of_the_schema(table):
    sql = (CONNECT / "clickhouse.sql").read_text()
    columns, keys = re.search(
        rf"infoway\.{table} \(\n(.*?)\n\) ENGINE.*?ORDER BY \((.*?)\)", sql, re.DOTALL
    ).groups()
    assert [line.split()[0] for line in columns.splitlines()] == list(fields(table))
    jdbc = json.loads((CONNECT / f"jdbc-{table}.json").read_text())["config"]
    assert keys.split(", ") == jdbc["pk.fields"].split(",")


@pytest.mark.parametrize("path", sorted(CONNECT.glob("*.json")), ids=lambda path: path.stem)
def test_every_sink_reads_only_what_is_committed(path):
    assert (
        json.loads(path.read_text())["config"]["consumer.override.isolation.level"]
        == "read_committed"
    )
