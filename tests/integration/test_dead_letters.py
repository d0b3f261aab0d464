"""A raw record that nobody can read: dead-lettered by a worker, listed, redriven with its headers,
and counted."""

import json
import signal
import subprocess
import sys

import drill
import duckdb
import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewPartitions
from dead_letters import NOISE, run
from dead_letters import cluster as cluster

from infra.cli.main import main
from infra.kafka.reader import ValueReader, read_to_end
from infra.runtime.supervisor import Supervisor
from schemas.decimals import to_units
from schemas.partition import partition_of
from schemas.topics import load_example, load_schema
from schemas.wire import compile_encoder


@pytest.mark.timeout(300)
def test_what_no_worker_can_read_is_listed_and_comes_back_with_its_headers_and_attempts(
    cluster, capsys, tmp_path
):
    def letters():
        return [json.loads(line) for line in run(capsys, "list", "--json")]

    # of no wire format: an unknown schema id would be asked for half a minute first
    junk = b"junk"
    odd_control = [("control", b"unheard-of"), ("feed", b"crypto-1")]
    a, b = (partition_of(key, 2) for key in (b"A", b"B"))
    cluster.publish(
        (cluster.raw, a, b"A", junk, [("trace", b"t-1"), ("empty", None)]),
        (cluster.raw, b, b"B", None, odd_control),
    )
    with Supervisor(cluster.variables, 1, tmp_path) as workers:
        assert drill.wait_until(lambda: workers.check() or len(letters()) == 2, 150)
        by_key = {letter["key"]: letter for letter in letters()}
        assert by_key[b"A".hex()]["headers"] == [["trace", b"t-1".hex()], ["empty", None]]
        assert {
            (each["error_class"], each["attempts"], each["handled"]) for each in by_key.values()
        } == {
            ("UnreadableValue", 0, False),
            ("UnreadableControl", 0, False),
        }
        assert (
            run(capsys, "redrive", "--dry-run")[-1] == "2 would be redriven, 0 would be passed over"
        )
        assert len(cluster.raw_records()) == 2
        assert run(capsys, "redrive")[-1] == "2 redriven, 0 passed over"
        again = [("dead-letter-attempts", b"1")]
        assert (
            a,
            b"A",
            junk,
            [("trace", b"t-1"), ("empty", None), *again],
        ) in cluster.raw_records()
        assert (b, b"B", None, [*odd_control, *again]) in cluster.raw_records()
        # the worker cannot read them now either
        assert drill.wait_until(lambda: len(letters()) == 4, 60)
        assert sorted((each["attempts"], each["handled"]) for each in letters()) == [
            (0, True),
            (0, True),
            (1, False),
            (1, False),
        ]
        assert any("redriven 1 times before; waits" in line for line in run(capsys, "list"))
        assert run(capsys, "redrive", "--max-attempts", "1")[-1] == "0 redriven, 2 passed over"
        assert run(capsys, "redrive") == ["0 redriven, 0 passed over"]
        assert len(cluster.raw_records()) == 4


def test_what_has_no_way_back_is_passed_over_with_the_reason(cluster, capsys):
    frame = cluster.dead_letter(None, topic="")
    bars = cluster.dead_letter(3, topic=cluster.raw.replace("raw.trade", "bars.1m"))
    cluster.publish(frame, bars, cluster.dead_letter(None))
    printed = run(capsys, "redrive")
    assert "never became a record" in printed[0]
    assert "derived from" in printed[1]
    assert "derived from" in printed[2]
    assert printed[-1] == "0 redriven, 3 passed over"
    assert cluster.raw_records() == []


def test_letters_can_be_named_and_are_redriven_again(cluster, capsys):
    cluster.publish(*(cluster.dead_letter(offset, value=b"%d" % offset) for offset in range(3)))
    assert run(capsys, "redrive")[-1] == "3 redriven, 0 passed over"
    assert run(capsys, "redrive", "--only", "1:1")[-1] == "1 redriven, 0 passed over"
    assert [value for _, _, value, _ in cluster.raw_records()] == [b"0", b"1", b"2", b"1"]
    with pytest.raises(SystemExit, match="no dead letter there"):
        main(["dead-letter", "redrive", "--only", "1:1,0:7"])
    with pytest.raises(SystemExit, match=r"no topic other\."):
        main(["dead-letter", "list", "--prefix", "other."])


def test_letters_that_were_named_are_redriven_by_no_later_redrive(cluster, capsys):
    cluster.publish(*(cluster.dead_letter(offset, value=b"%d" % offset) for offset in range(4)))
    assert run(capsys, "redrive", "--only", "1:1,1:2")[-1] == "2 redriven, 0 passed over"
    states = [
        (letter["offset"], letter["handled"])
        for letter in map(json.loads, run(capsys, "list", "--json"))
    ]
    assert states == [(0, False), (1, True), (2, True), (3, False)]
    assert run(capsys, "redrive")[-1] == "2 redriven, 0 passed over"
    assert [value for _, _, value, _ in cluster.raw_records()] == [b"1", b"2", b"0", b"3"]


def test_a_redrive_needs_no_consumer_group_that_kafka_could_forget(cluster, capsys):
    cluster.publish(*(cluster.dead_letter(offset) for offset in range(2)))
    assert run(capsys, "redrive")[-1] == "2 redriven, 0 passed over"
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    [deleted] = admin.delete_consumer_groups([f"{cluster.prefix}infoway-dead-letter"]).values()
    with pytest.raises(KafkaException, match="GROUP_ID_NOT_FOUND"):
        deleted.result(60)
    cluster.publish(cluster.dead_letter(2, value=b"new"))
    assert run(capsys, "redrive")[-1] == "1 redriven, 0 passed over"
    assert [value for _, _, value, _ in cluster.raw_records()] == [NOISE, NOISE, b"new"]


def test_null_values_among_the_letters_are_none(cluster, capsys, tmp_path):
    foreign = [[], [("redriven-to", b"soon")], [("redriven-to", None)], [("redriven", b"x")]]
    cluster.publish(
        cluster.dead_letter(0),
        *((cluster.dead, 1, b"k", None, headers) for headers in foreign),
        cluster.dead_letter(1),
    )
    assert len(run(capsys, "list")) == 2
    assert run(capsys, "redrive")[-1] == "2 redriven, 0 passed over"
    assert run(capsys, "redrive")[-1] == "0 redriven, 0 passed over"
    assert [json.loads(line)["handled"] for line in run(capsys, "list", "--json")] == [True, True]
    with pytest.raises(SystemExit) as exported:
        main(["export", "--topics", "infoway.dead-letter", "--out", str(tmp_path)])
    assert exported.value.code == 0
    assert duckdb.execute(
        f"select source_offset from '{tmp_path}/*/*.parquet' order by 1"
    ).fetchall() == [(0,), (1,)]
    command = [
        sys.executable,
        "-u",
        "-m",
        "infra.cli.main",
        "tail",
        "infoway.dead-letter",
        "--from-beginning",
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as tailing:
        assert [json.loads(tailing.stdout.readline())["source_offset"] for _ in range(2)] == [0, 1]
        cluster.publish(cluster.dead_letter(2))
        assert json.loads(tailing.stdout.readline())["source_offset"] == 2
        tailing.send_signal(signal.SIGINT)
        assert tailing.communicate() == ("", "")
    assert tailing.returncode == 0


def test_tail_names_what_it_cannot_read_and_goes_on(cluster):
    schema_id = cluster.registry.id_of(f"{cluster.raw}-value", load_schema("raw_trade"))
    trade = compile_encoder(load_schema("raw_trade"), schema_id)(**load_example("raw_trade"))
    cluster.publish(*((cluster.raw, 1, b"A", value, []) for value in (NOISE, b"junk", trade)))
    command = [
        sys.executable,
        "-u",
        "-m",
        "infra.cli.main",
        "tail",
        "infoway.raw.trade",
        "--from-beginning",
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as tailing:
        assert json.loads(tailing.stdout.readline())["symbol"] == "00005.HK"
        tailing.send_signal(signal.SIGINT)
        noise, junk = tailing.communicate()[1].splitlines()
    assert noise.startswith(f"{cluster.raw}[1] offset 0: the schema registry")
    assert junk.startswith(f"{cluster.raw}[1] offset 1: not Confluent's wire format")


def test_a_record_goes_to_the_partition_that_its_key_has_today(cluster, capsys):
    keys = [b"%d" % number for number in range(20)]
    letters = [
        cluster.dead_letter(offset, key=key, source_partition=partition_of(key, 2))
        for offset, key in enumerate(keys)
    ]
    # marks and losses of a whole feed have no key: they belong to the partition
    letters += [
        cluster.dead_letter(20, key=None, source_partition=0),
        cluster.dead_letter(21, key=None, source_partition=5),
    ]
    cluster.publish(*letters)
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    for future in admin.create_partitions([NewPartitions(cluster.raw, 5)]).values():
        future.result(20)
    assert drill.wait_until(
        lambda: len(admin.list_topics(cluster.raw, 10).topics[cluster.raw].partitions) == 5, 60
    )
    printed = run(capsys, "redrive")
    assert f"1:0 to {cluster.raw}[{partition_of(keys[0], 5)}]" in printed
    assert f"of partition 5, and {cluster.raw} has 5 now" in printed[-2]
    assert printed[-1] == "21 redriven, 1 passed over"
    placed = {key: partition for partition, key, _, _ in cluster.raw_records()}
    assert placed == {key: partition_of(key, 5) for key in keys} | {None: 0}


def test_an_empty_value_comes_back_only_as_a_control_record(cluster, capsys):
    cluster.publish(
        cluster.dead_letter(0, value=b"", headers=[("trace", b"t")]),
        cluster.dead_letter(1, value=b"", headers=[("control", b"gap")]),
    )
    printed = run(capsys, "redrive")
    assert printed[0] == "1:0 passed over: an empty value, without the headers of a control record"
    assert printed[-1] == "1 redriven, 1 passed over"
    [(_, key, value, headers)] = cluster.raw_records()
    assert (key, value, headers[0]) == (b"A", None, ("control", b"gap"))


@pytest.mark.timeout(400)
def test_a_record_whose_cause_is_mended_counts_after_its_redrive(cluster, capsys, tmp_path):
    """The cause: a schema that the registry does not have yet."""

    raw = load_schema("raw_trade")
    newer = raw | {
        "fields": [*raw["fields"], {"name": "newer", "type": ["null", "string"], "default": None}]
    }
    # ids are given one after the other: a schema of the test's own tells what the next one's will
    # be
    own = {"type": "record", "name": cluster.raw.replace(".", "_"), "fields": []}
    missing = cluster.registry.register(f"{cluster.raw}-own", own) + 1
    trade = compile_encoder(newer, missing)(**load_example("raw_trade"), newer=None)
    cluster.publish((cluster.raw, partition_of(b"00005.HK", 2), b"00005.HK", trade, []))
    with Supervisor(cluster.variables, 1, tmp_path) as workers:
        assert drill.wait_until(lambda: workers.check() or run(capsys, "list"), 150)
        assert "UnknownSchema" in run(capsys, "list")[0]
        assert list(read_to_end(cluster.bootstrap, cluster.vwaps)) == []
        assert cluster.registry.register(f"{cluster.raw}-value", newer) == missing
        assert run(capsys, "redrive")[-1] == "1 redriven, 0 passed over"
        found = []
        assert drill.wait_until(
            lambda: (
                workers.check()
                or found.extend(read_to_end(cluster.bootstrap, cluster.vwaps))
                or found
            ),
            150,
        )
    [record] = [ValueReader(cluster.registry)(message.value())[1] for message in found]
    assert (record["symbol"], record["vwap"], record["trade_count"]) == (
        "00005.HK",
        to_units("98.15"),
        1,
    )
