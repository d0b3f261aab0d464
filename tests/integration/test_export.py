"""Derived topics in Parquet files, read by DuckDB: each record once over kills and new starts, or the last one of each bar."""

import subprocess
import sys
from decimal import Decimal

import confluent_kafka as ck
import duckdb
import pytest

from infra import export, parquet, topology
from infra.cli import main
from processors.engine.outputs import Outputs
from schemas.decimals import to_units
from schemas.registry import Registry
from schemas.topics import Topology

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
        names = Topology(namespace, partitions=2)
        self.topic = names.name("infoway.bars.1m")
        self.outputs = Outputs.of(names, topology.apply(stack.bootstrap, Registry(stack.registry_url), names, {}))
        self.producer = ck.Producer({"bootstrap.servers": stack.bootstrap, "transactional.id": namespace})
        self.producer.init_transactions()

    def publish(self, *revisions, abort=False):
        self.producer.begin_transaction()
        for partition, minute, close, revision in revisions:
            price = to_units(close)
            numbers = (price, price, price, price, to_units("600"), to_units("312120"), None, None, 0, 3)
            fields = (f"S{partition}", "1m", minute * 60_000, minute * 60_000 + 60_000, None, *numbers, 60_100, None, revision, True)
            origin = ("close", "complete", "trades", "simulated", 122_000_001, partition, 17)
            row = self.outputs.encode("infoway.bars.1m", partition, f"S{partition}", fields + origin, "infoway.raw.trade")
            topic, place, key, value = row
            self.producer.produce(topic, value, key, place)
        if abort:
            self.producer.flush()
            self.producer.abort_transaction()
        else:
            self.producer.commit_transaction()


def run(folder, *more):
    with pytest.raises(SystemExit) as ended:
        main(["export", "--topics", "infoway.bars.1m", "--to", str(folder), *more])
    return ended.value.code


def rows(folder, columns="kafka_partition, symbol, epoch_ms(ts_start), close, revision"):
    return duckdb.execute(f"select {columns} from read_parquet('{folder}/*.parquet') order by kafka_partition, kafka_offset").fetchall()


def test_every_committed_record_is_exported_once_with_exact_numbers(bars, tmp_path, capsys):
    folder = tmp_path / bars.topic
    bars.publish((0, 1, "520.2", 1), (1, 1, HUGE, 1), (0, 1, "520.3", 2))
    bars.publish((0, 2, "1", 1), abort=True)
    assert run(tmp_path) == 0
    wanted = [(0, "S0", 60_000, Decimal("520.2"), 1), (0, "S0", 60_000, Decimal("520.3"), 2), (1, "S1", 60_000, Decimal(HUGE), 1)]
    assert rows(folder) == wanted
    assert run(tmp_path) == 0
    assert "0 records read" in capsys.readouterr().out
    bars.publish((0, 2, SMALLEST, 1))
    assert run(tmp_path) == 0
    assert rows(folder) == [*wanted[:2], (0, "S0", 120_000, Decimal(SMALLEST), 1), wanted[2]]
    assert rows(folder, "vwap, trade_count, epoch_us(ts_recv), typeof(close), typeof(ts_start)")[0] == (
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
    assert sorted(row[2:] for row in rows(folder) if row[0] == 0) == [(60_000, 3, 2), (120_000, 5, 2), (180_000, 6, 1)]
    assert len(rows(folder)) == 4


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("step", ["write", "rename", "renamed"])
def test_a_killed_export_goes_on_where_its_last_whole_file_ends(bars, tmp_path, step, last):
    revisions = [(partition, minute, str(minute), 1) for partition in (0, 1) for minute in range(5)]
    bars.publish(*revisions[:2])
    more = ["--last"] * last
    assert run(tmp_path, *more) == 0
    bars.publish(*revisions[2:])
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, step, "export", "--topics", "infoway.bars.1m", "--to", str(tmp_path), *more],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert killed.returncode == 9, killed.stderr
    assert run(tmp_path, *more) == 0
    found = rows(tmp_path / f"{bars.topic}{'-last' * last}")
    assert sorted((row[0], row[2] // 60_000) for row in found) == sorted((partition, minute) for partition, minute, _, _ in revisions)


KILLED = """
import os, sys
from pathlib import Path
from infra import export, parquet
from infra.cli import main
step = sys.argv.pop(1)
export.ROWS = 2
count, write, rename = 0, parquet.pq.write_table, Path.rename

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

parquet.pq.write_table, Path.rename = torn, renaming
main(sys.argv[1:])
"""


def test_what_cannot_be_gone_on_with_is_said(bars, tmp_path):
    assert "no topic" not in str(run(tmp_path))
    folder = tmp_path / bars.topic
    (folder / f"{0:05d}-{0:020d}-{99:020d}.parquet").touch()
    assert "goes on at offset 99" in run(tmp_path)
    (folder / "other.parquet").touch()
    assert "is no file of an export" in run(tmp_path)
    assert "the topics with one row per bar are infoway.bars.1m" in run(tmp_path, "--last", "--topics", "infoway.vwap.1m")
    assert "no topic other." in run(tmp_path, "--prefix", "other.")


def test_a_merge_keeps_one_row_of_each_identity():
    def table(*rows):
        return parquet.pa.table({"symbol": [row[0] for row in rows], "v": [row[1] for row in rows]})

    merged = parquet.merged(table(("A", 1), ("B", 2)), table(("B", 3), ("C", 4), ("B", 5)), ("symbol",))
    assert dict(zip(merged["symbol"].to_pylist(), merged["v"].to_pylist(), strict=True)) == {"A": 1, "B": 5, "C": 4}
    assert merged.num_rows == 3


def test_a_field_newer_than_a_record_takes_its_default():
    schema = {"fields": [{"name": "a", "type": "string"}, {"name": "b", "type": ["null", "long"], "default": None}]}
    assert parquet.table_of(schema, 0, [(7, {"a": "x"})]).to_pylist() == [{"kafka_partition": 0, "kafka_offset": 7, "a": "x", "b": None}]


def test_files_hold_a_bounded_number_of_records(bars, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "ROWS", 2)
    bars.publish(*((0, minute, "1", 1) for minute in range(5)))
    assert run(tmp_path) == 0
    assert len(list((tmp_path / bars.topic).glob("*.parquet"))) == 3
    assert len(rows(tmp_path / bars.topic)) == 5
