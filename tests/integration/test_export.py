"""Derived topics in Parquet files, read by DuckDB: each record once over kills and new starts, or
the last one of each bar."""

import csv
import json
import subprocess
import sys
from decimal import Decimal

import confluent_kafka as ck
import drill
import duckdb
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from infra import topology
from infra.cli.commands.topics import export
from infra.cli.main import main
from infra.kafka import parquet
from processors.engine.outputs import Outputs
from schemas.clients.registry import Registry
from schemas.decimals import to_units
from schemas.topics import Topology, load_example, load_schema
from schemas.wire import compile_encoder

HUGE = "12345678901234567890.123456789012345678"
SMALLEST = "-0.000000000000000001"


@pytest.fixture
def bars(stack, namespace, monkeypatch):
    monkeypatch.setenv("INFOWAY_BOOTSTRAP", stack.bootstrap)
    monkeypatch.setenv("INFOWAY_REGISTRY", stack.registry_url)
    monkeypatch.setenv("INFOWAY_PREFIX", namespace)
    monkeypatch.setenv("INFOWAY_PARTITIONS", "2")
    return Bars(stack, namespace)


class Bars:
    """Publishes revisions of bars, in transactions as the processors do, one of them aborted."""

    def __init__(self, stack, namespace):
        self.bootstrap, self.registry_url, self.names = (
            stack.bootstrap,
            stack.registry_url,
            Topology(namespace, partitions=2),
        )
        self.topic = self.names.name("infoway.bars.1m")
        self.admin = AdminClient({"bootstrap.servers": stack.bootstrap})
        self.create()
        self.producer = ck.Producer(
            {"bootstrap.servers": stack.bootstrap, "transactional.id": namespace}
        )
        self.producer.init_transactions()

    def create(self):
        ids = topology.apply(self.bootstrap, Registry(self.registry_url), self.names, {})
        self.outputs = Outputs.of(self.names, ids)

    def delete(self):
        self.admin.delete_topics([self.topic])[self.topic].result(60)
        assert drill.wait_until(
            lambda: self.topic not in self.admin.list_topics(timeout=10).topics, 60
        )

    def delete_before(self, partition, offset):
        """What retention does once the records are old enough."""
        [deleted] = self.admin.delete_records(
            [TopicPartition(self.topic, partition, offset)]
        ).values()
        deleted.result(60)

    def publish(self, *revisions, abort=False, symbol=None):
        self.producer.begin_transaction()
        for partition, minute, close, revision in revisions:
            price = to_units(close)
            numbers = (
                price,
                price,
                price,
                price,
                to_units("600"),
                to_units("312120"),
                None,
                None,
                0,
                3,
            )
            symbol_ = symbol or f"S{partition}"
            fields = (
                symbol_,
                "1m",
                minute * 60_000,
                minute * 60_000 + 60_000,
                None,
                *numbers,
                60_100,
                None,
                revision,
                True,
            )
            origin = ("close", "complete", "trades", "simulated", 122_000_001, partition, 17)
            row = self.outputs.encode(
                "infoway.bars.1m", partition, symbol_, fields + origin, "infoway.raw.trade"
            )
            topic, place, key, value = row
            self.producer.produce(topic, value, key, place)
        if abort:
            self.producer.flush()
            self.producer.abort_transaction()
        else:
            self.producer.commit_transaction()


def run(folder, *more):
    with pytest.raises(SystemExit) as ended:
        main(["export", "--topics", "infoway.bars.1m", "--out", str(folder), *more])
    return ended.value.args[0]


def rows(folder, columns="kafka_partition, symbol, epoch_ms(ts_start), close, revision"):
    files = f"read_parquet('{folder}/*.parquet', union_by_name => true)"
    return duckdb.execute(
        f"select {columns} from {files} order by kafka_partition, kafka_offset"
    ).fetchall()


def test_every_committed_record_is_exported_once_with_exact_numbers(bars, tmp_path, capsys):
    folder = tmp_path / bars.topic
    bars.publish((0, 1, "520.2", 1), (1, 1, HUGE, 1), (0, 1, "520.3", 2))
    bars.publish((0, 2, "1", 1), abort=True)
    assert run(tmp_path) == 0
    wanted = [
        (0, "S0", 60_000, Decimal("520.2"), 1),
        (0, "S0", 60_000, Decimal("520.3"), 2),
        (1, "S1", 60_000, Decimal(HUGE), 1),
    ]
    assert rows(folder) == wanted
    assert run(tmp_path) == 0
    assert "0 records read" in capsys.readouterr().out
    bars.publish((0, 2, SMALLEST, 1))
    assert run(tmp_path) == 0
    assert rows(folder) == [*wanted[:2], (0, "S0", 120_000, Decimal(SMALLEST), 1), wanted[2]]
    assert rows(folder, "vwap, trade_count, epoch_us(ts_recv), typeof(close), typeof(ts_start)")[
        0
    ] == (
        None,
        3,
        122_000_001,
        "DECIMAL(38,18)",
        "TIMESTAMP WITH TIME ZONE",
    )


def test_the_last_record_of_each_bar_is_one_row(bars, tmp_path):
    folder = tmp_path / f"{bars.topic}-last"
    bars.publish((0, 1, "1", 1), (0, 2, "2", 1), (0, 1, "3", 2), (1, 1, "4", 1))
    assert run(tmp_path, "--last") == 0
    bars.publish((0, 2, "5", 2), (0, 3, "6", 1))
    assert run(tmp_path, "--last") == 0
    assert sorted(row[2:] for row in rows(folder) if row[0] == 0) == [
        (60_000, 3, 2),
        (120_000, 5, 2),
        (180_000, 6, 1),
    ]
    assert len(rows(folder)) == 4
    assert [path.name for path in sorted(folder.glob("*.parquet"))] == [
        "00000.parquet",
        "00001.parquet",
    ]


def test_a_long_run_is_folded_in_steps_and_written_once(bars, tmp_path, monkeypatch):
    written, write = [], parquet.write
    monkeypatch.setattr(export, "ROWS", 3)
    monkeypatch.setattr(
        parquet, "write", lambda table, *more: (written.append(len(table)), write(table, *more))
    )
    bars.publish(
        *((0, minute, f"{revision}", revision) for revision in range(1, 6) for minute in range(4))
    )
    assert run(tmp_path, "--last") == 0
    assert written == [4]
    assert [row[2:] for row in rows(tmp_path / f"{bars.topic}-last")] == [
        (minute * 60_000, 5, 5) for minute in range(4)
    ]


def test_bars_whose_last_record_no_order_tells_are_refused(bars, tmp_path):
    """After the partitions' number was changed, a symbol's records lie in two of them."""
    folder = tmp_path / f"{bars.topic}-last"
    bars.publish((0, 1, "1", 1), (0, 2, "2", 1), symbol="MOVED")
    bars.publish((1, 3, "3", 1), symbol="MOVED")
    assert run(tmp_path, "--last") == 0
    assert [row[:4] for row in rows(folder)] == [
        (0, "MOVED", 60_000, 1),
        (0, "MOVED", 120_000, 2),
        (1, "MOVED", 180_000, 3),
    ]
    before = rows(folder)
    bars.publish((1, 2, "4", 1), symbol="MOVED")
    refused = run(tmp_path, "--last")
    assert (
        "records of symbol MOVED, interval 1m, ts_start 1970-01-01 00:02:00+00:00 in two partitions"
        in refused
    )
    assert "export without --last" in refused
    assert rows(folder) == before
    assert run(tmp_path) == 0


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("step", ["write", "rename", "renamed"])
def test_a_killed_export_goes_on_where_its_last_whole_file_ends(bars, tmp_path, step, last):
    revisions = [(partition, minute, str(minute), 1) for partition in (0, 1) for minute in range(5)]
    bars.publish(*revisions[:2])
    more = ["--last"] * last
    assert run(tmp_path, *more) == 0
    bars.publish(*revisions[2:])
    killed = subprocess.run(
        [
            sys.executable,
            "-c",
            KILLED,
            step,
            "export",
            "--topics",
            "infoway.bars.1m",
            "--out",
            str(tmp_path),
            *more,
        ],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert killed.returncode == 9, killed.stderr
    left = [row[:3] for row in rows(tmp_path / f"{bars.topic}{'-last' * last}")]
    assert len(left) == len(set(left)) >= 2, "a reader sees no bar twice, and none less than before"
    assert run(tmp_path, *more) == 0
    found = rows(tmp_path / f"{bars.topic}{'-last' * last}")
    assert sorted((row[0], row[2] // 60_000) for row in found) == sorted(
        (partition, minute) for partition, minute, _, _ in revisions
    )


KILLED = """
import os, sys
from pathlib import Path
from infra.cli.commands.topics import export
from infra.kafka import parquet
from infra.cli.main import main
step = sys.argv.pop(1)
export.ROWS = 2
count, write, rename = 0, parquet.pq.write_table, Path.replace

def torn(table, file, **options):
    global count
    count += 1
    if step == "write" and count == 2:
        file.write(b"PAR1 half a file")
        file.flush()
        os._exit(9)
    write(table, file, **options)

def renaming(path, target):
    if step == "rename" and count == 2:
        os._exit(9)
    rename(path, target)
    if step == "renamed" and count == 2:
        os._exit(9)

parquet.pq.write_table, Path.replace = torn, renaming
main(sys.argv[1:])
"""


def test_what_cannot_be_gone_on_with_is_said(bars, tmp_path):
    folder = tmp_path / bars.topic
    bars.publish((0, 1, "1", 1))
    assert run(tmp_path) == 0
    [path] = folder.glob("*.parquet")
    schema, metadata = load_schema("bar"), parquet.metadata(path)
    parquet.write(parquet.read(path, schema), path, metadata | {"infoway.next_offset": "99"})
    assert "goes on at offset 99" in run(tmp_path)
    parquet.write(parquet.read(path, schema), path, {})
    assert f"{path} is no file of an export" in run(tmp_path)
    path.write_bytes(b"")
    assert f"{path} is no file of an export" in run(tmp_path)
    (folder / "other.parquet").touch()
    assert "other.parquet is no file of an export" in run(tmp_path)
    assert "the topics with one row per bar are infoway.bars.1m" in run(
        tmp_path, "--last", "--topics", "infoway.vwap.1m"
    )
    assert "no topic other." in run(tmp_path, "--prefix", "other.")


@pytest.mark.parametrize("more", [[], ["--last"]])
def test_a_topic_that_was_created_anew_is_not_gone_on_with(bars, tmp_path, more):
    bars.publish((0, 1, "1", 1))
    assert run(tmp_path, *more) == 0
    bars.delete()
    bars.create()
    bars.publish((0, 1, "1", 1), (0, 2, "2", 1), (0, 3, "3", 1))
    refused = run(tmp_path, *more)
    assert (
        f"is of a topic {bars.topic} that was deleted since, and created anew: name another "
        "folder by --out" in refused
    )
    assert run(tmp_path / "another", *more) == 0
    assert len(rows(tmp_path / "another" / f"{bars.topic}{'-last' * bool(more)}")) == 3


@pytest.mark.parametrize("more", [[], ["--last"]])
def test_what_retention_deleted_unexported_is_said_and_the_rest_goes_on(
    bars, tmp_path, capsys, more
):
    folder = tmp_path / f"{bars.topic}{'-last' * bool(more)}"
    bars.publish((0, 1, "1", 1))
    bars.delete_before(0, 1)
    # nothing was exported yet that could lack something
    bars.publish((0, 2, "2", 1))
    assert run(tmp_path, *more) == 0
    assert "retention" not in capsys.readouterr().err
    bars.publish((0, 3, "3", 1), (0, 4, "4", 1))
    exported = rows(folder)
    bars.delete_before(0, 5)
    assert run(tmp_path, *more) == 0
    assert (
        "retention deleted offsets 3 to 4 of partition 0 before this export"
        in capsys.readouterr().err
    )
    assert [*exported, (0, "S0", 240_000, 4, 1)] == rows(folder)
    assert run(tmp_path, *more) == 0
    assert capsys.readouterr().err == ""


def test_the_last_rows_are_those_of_the_greatest_offsets():
    def table(*rows):
        return parquet.pa.table(
            {
                name: [row[place] for row in rows]
                for place, name in enumerate(("kafka_offset", "symbol", "v"))
            }
        )

    found = parquet.last_rows(
        [table((3, "B", 3), (4, "C", 4), (5, "B", 5)), table((0, "A", 1), (1, "B", 2))], ("symbol",)
    )
    assert sorted(zip(found["symbol"].to_pylist(), found["v"].to_pylist(), strict=True)) == [
        ("A", 1),
        ("B", 5),
        ("C", 4),
    ]


def test_a_field_newer_than_a_record_takes_its_default():
    fields = [
        {"name": "b", "type": ["null", "long"], "default": None},
        {"name": "c", "type": "string", "default": "none"},
        {
            "name": "d",
            "type": {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 18},
            "default": "\xff",
        },
        {"name": "e", "type": "bytes", "default": "\xff"},
    ]
    schema = {"fields": [{"name": "a", "type": "string"}, *fields]}
    defaults = {"b": None, "c": "none", "d": Decimal("-0.000000000000000001"), "e": b"\xff"}
    assert parquet.table_of(schema, 0, [(7, {"a": "x"})]).to_pylist() == [
        {"kafka_partition": 0, "kafka_offset": 7, "a": "x", **defaults}
    ]


@pytest.mark.parametrize("more", [[], ["--last"]])
def test_files_from_before_a_field_and_after_it_are_read_together(
    bars, tmp_path, monkeypatch, more
):
    bars.publish((0, 1, "1", 1))
    assert run(tmp_path, *more) == 0
    bar = load_schema("bar")
    newer = bar | {
        "fields": [*bar["fields"], {"name": "newer", "type": "string", "default": "none"}]
    }
    monkeypatch.setattr(export, "load_schema", lambda _: newer)
    bars.publish((0, 2, "2", 1))
    assert run(tmp_path, *more) == 0
    # what is rewritten is as a reader of the newer schema sees it
    before = "none" if more else None
    assert rows(tmp_path / f"{bars.topic}{'-last' * bool(more)}", "close, newer") == [
        (1, before),
        (2, "none"),
    ]


def test_files_hold_a_bounded_number_of_records(bars, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "ROWS", 2)
    bars.publish(*((0, minute, "1", 1) for minute in range(5)))
    assert run(tmp_path) == 0
    assert len(list((tmp_path / bars.topic).glob("*.parquet"))) == 3
    assert len(rows(tmp_path / bars.topic)) == 5


PERIOD = ("--from", "1970-01-01T00:02Z", "--to", "1970-01-01T00:04Z")


def test_a_period_has_its_records_alone_and_is_written_anew(bars, tmp_path, capsys):
    bars.publish((0, 1, "1", 1), (0, 2, "2", 1), (0, 2, "2.5", 2), (0, 3, "3", 1), (1, 4, "4", 1))
    folder = tmp_path / f"{bars.topic}-19700101T000200Z-19700101T000400Z"
    assert run(tmp_path, *PERIOD) == 0
    assert capsys.readouterr().out == f"{bars.topic}: 3 records of that time in {folder}\n"
    assert [row[2:4] for row in rows(folder)] == [
        (120_000, Decimal("2")), (120_000, Decimal("2.5")), (180_000, Decimal("3"))
    ]  # fmt: skip
    (folder / "00001.parquet").touch()
    bars.publish((0, 3, "3.5", 2), (0, 9, "9", 1))
    assert run(tmp_path, *PERIOD) == 0
    assert len(rows(folder)) == 4
    assert [path.name for path in folder.glob("*.parquet")] == ["00000.parquet"]
    assert run(tmp_path, "--last", *PERIOD) == 0
    last = tmp_path / f"{bars.topic}-last-19700101T000200Z-19700101T000400Z"
    assert [row[2:] for row in rows(last)] == [
        (120_000, Decimal("2.5"), 2), (180_000, Decimal("3.5"), 2)
    ]  # fmt: skip
    # the export of everything does not go on from there
    assert run(tmp_path) == 0
    assert len(rows(tmp_path / bars.topic)) == 7


def test_a_period_that_ends_before_it_begins_is_refused(bars, tmp_path, capsys):
    run(tmp_path, "--from", "2026-01-02T00:00Z", "--to", "2026-01-01T00:00Z")
    assert "--from: expected a time before --to" in capsys.readouterr().err
    run(tmp_path, "--to", "export")
    assert "--to 'export': expected a time such as" in capsys.readouterr().err


def test_csv_has_every_digit_and_comes_after_the_fact_too(bars, tmp_path):
    folder = tmp_path / bars.topic
    bars.publish((0, 1, HUGE, 1), (0, 2, SMALLEST, 1), symbol='A "B",\nC')
    assert run(tmp_path) == 0
    assert not list(folder.glob("*.csv"))
    assert run(tmp_path, "--csv") == 0
    [path] = folder.glob("*.csv")
    with path.open(newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["close"], second["close"]) == (HUGE, SMALLEST)
    assert first["ts_start"] == "1970-01-01T00:01:00.000Z"
    assert (first["symbol"], first["vwap"], first["is_closed"]) == ('A "B",\nC', "", "true")
    written = path.stat().st_mtime_ns
    bars.publish((0, 3, "3", 1))
    assert run(tmp_path, "--csv") == 0
    assert len(list(folder.glob("*.csv"))) == 2
    assert path.stat().st_mtime_ns == written


def test_raw_topics_are_exported_with_their_lists(bars, tmp_path):
    ids = topology.apply(bars.bootstrap, Registry(bars.registry_url), bars.names, {})
    schema, example = load_schema("raw_depth"), load_example("raw_depth")
    topic = bars.names.name("infoway.raw.depth")
    value = compile_encoder(schema, ids[topic])(
        *(example[each["name"]] for each in schema["fields"])
    )
    producer = ck.Producer({"bootstrap.servers": bars.bootstrap})
    producer.produce(topic, value, b"X", 0)
    # a control record
    producer.produce(topic, None, b"X", 0)
    assert producer.flush(20) == 0
    with pytest.raises(SystemExit) as ended:
        main(["export", "--topics", "infoway.raw.depth", "--csv", "--out", str(tmp_path)])
    assert ended.value.args[0] == 0
    [(prices,)] = rows(tmp_path / topic, "ask_prices")
    assert prices == example["ask_prices"]
    [path] = (tmp_path / topic).glob("*.csv")
    with path.open(newline="") as file:
        [row] = csv.DictReader(file)
    assert json.loads(row["bid_volumes"]) == example["bid_volumes"]
