"""The Flink SQL of the contract's page, as it stands there, in Flink's own mini cluster."""

import shutil
from pathlib import Path

import pytest
from documentation import ROOT, blocks
from interop.test_consumers import environment, golden, run, tool, typed

from schemas.topics import load_schema

__all__ = ["environment"]

FLINK = Path(__file__).parent / "flink"
STATEMENTS = blocks((ROOT / "docs" / "contract.md").read_text(), "sql")
OPENS = tuple(
    f"--add-opens=java.base/{package}=ALL-UNNAMED"
    for package in ("java.lang", "java.util", "java.net", "java.io", "java.nio", "java.time")
)


def of(beginning):
    [found] = [each for each in STATEMENTS if each.startswith(beginning)]
    return found


@pytest.fixture(scope="module")
def flink(tmp_path_factory):
    """A folder with the program and its class path, from Maven."""
    for name in ("mvn", "java"):
        tool(name, "Flink SQL")
    folder = tmp_path_factory.mktemp("flink")
    for file in FLINK.iterdir():
        shutil.copy(file, folder)
    try:
        typed(
            "mvn -q -B dependency:build-classpath -Dmdep.outputFile=classpath",
            folder, None, timeout=500,
        )  # fmt: skip
    except AssertionError as error:
        if "Could not find artifact" in str(error) or "Could not transfer" in str(error):
            pytest.skip(f"Maven does not serve Flink 2.3.0 and its Kafka connector: {error}"[:300])
        raise
    return folder


def rows(flink, environment, query):
    """What the last statement of the page's table and a query prints."""
    bootstrap = environment["INFOWAY_BOOTSTRAP"].partition(",")[0]
    table = of("CREATE TABLE bars")
    for shown, here in (
        ("'infoway.bars.1m'", f"'{environment['INFOWAY_PREFIX']}infoway.bars.1m'"),
        ("127.0.0.1:19092", bootstrap),
        ("http://127.0.0.1:18081/apis/ccompat/v7", environment["INFOWAY_REGISTRY"]),
    ):
        assert table.count(shown) == 1
        table = table.replace(shown, here)
    # up to the end that the topic has now: without, a query goes on for ever
    bounded = query.replace("bars", "bars /*+ OPTIONS('scan.bounded.mode'='latest-offset') */")
    command = ["java", *OPENS, "-cp", (flink / "classpath").read_text(), "Query.java"]
    printed = run(command, flink, environment, f"{table}{bounded}", 280)
    return [line.split("\t") for line in printed.splitlines()]


@pytest.mark.heavy
@pytest.mark.timeout(900)
def test_the_table_of_the_page_reads_every_bar_to_the_last_digit(flink, environment):
    fields = [field["name"] for field in load_schema("bar")["fields"]]
    found = rows(flink, environment, "SELECT * FROM bars;\n")
    assert all(row[0] == "+I" and len(row) == len(fields) + 1 for row in found)
    bars = [dict(zip(fields, row[1:], strict=True)) for row in found]
    wanted = [each for each in golden() if each["topic"] == "infoway.bars.1m"]
    assert len(bars) == len(wanted)
    numbers = ("open", "high", "low", "close", "volume", "turnover", "vwap", "buy_volume")
    for name in ("symbol", "interval", "revision", "cause", "ts_recv", "source_offset", *numbers):
        assert sorted(bar[name] for bar in bars) == sorted(
            "null" if each[name] is None else str(each[name]) for each in wanted
        ), name
    assert {bar["is_closed"] for bar in bars} <= {"true", "false"}
    assert all(bar["ts_start"].startswith("20") for bar in bars)


@pytest.mark.heavy
@pytest.mark.timeout(900)
def test_the_query_of_the_page_gives_one_row_a_bar(flink, environment):
    wanted = [each for each in golden() if each["topic"] == "infoway.bars.1m"]
    bars = {(each["symbol"], each["ts_start"]) for each in wanted}
    assert len(bars) < len(wanted), "revisions"
    left = {}
    for kind, symbol, start, *values in rows(flink, environment, of("SELECT symbol, ts_start")):
        if kind in ("+I", "+U"):
            left[symbol, start] = values
        else:
            left.pop((symbol, start), None)
    assert len(left) == len(bars)
