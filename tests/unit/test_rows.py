"""Rows of a terminal: the fields of the schemas, as many as fit, and no number cut short."""

import pytest

from infra.dashboard.rows import FAMILIES, HEADING_PERIOD, RowPrinter, columns_of, number
from schemas.topics import Topology, load_example, load_schema

TOPICS = {
    topic.name: topic.schema
    for topic in Topology(activity=("tick-1000",)).topics()
    if topic.schema is not None
}


@pytest.mark.parametrize("topic", TOPICS)
def test_every_topic_has_columns_and_each_is_a_field(topic):
    fields = {field["name"] for field in load_schema(TOPICS[topic])["fields"]}
    kinds = [columns for beginning, columns in FAMILIES if topic.startswith(beginning)]
    assert len(kinds) == 1
    shown = {each.field for each in columns_of(topic, dict.fromkeys(fields))}
    assert shown <= fields
    assert len(shown) >= 3


def test_no_column_is_of_a_field_that_no_topic_has():
    for beginning, columns in FAMILIES:
        fields = {
            field["name"]
            for topic, schema in TOPICS.items()
            if topic.startswith(beginning)
            for field in load_schema(schema)["fields"]
        }
        assert {each.field for each in columns} <= fields


@pytest.mark.parametrize("width", [20, 80, 100, 200])
@pytest.mark.parametrize("topic", TOPICS)
def test_a_row_fits_its_terminal(topic, width):
    record = load_example(TOPICS[topic])
    lines = list(RowPrinter(lambda: width).lines(topic, record))
    assert len(lines) == 3
    assert all(len(line) <= max(width, 60) for line in lines[1:])
    assert all(line.isprintable() for line in lines)


def test_headings_come_with_a_new_topic_and_now_and_then():
    rows, record = RowPrinter(lambda: 100), load_example("vwap")
    first = list(rows.lines("infoway.vwap.1m", record))
    assert first[0] == "-- infoway.vwap.1m (UTC)"
    assert record["symbol"] in first[2]
    more = [len(list(rows.lines("infoway.vwap.1m", record))) for _ in range(HEADING_PERIOD)]
    assert more == [1] * (HEADING_PERIOD - 1) + [3]
    assert len(list(rows.lines("infoway.vwap.5m", record))) == 3


def test_numbers_keep_their_digits_before_the_point():
    assert number("99999999999999999999.999999999999999999") == "99999999999999999999.999999"
    assert number("-0.000000000000000001") == "-0"
    assert number("0.50") == "0.5"
    assert number("1200") == "1200"
    assert number("1E+3") == "1000"
    assert number(None) == "–"
    assert number("no\x1bnumber") == "no\\x1bnumber"
