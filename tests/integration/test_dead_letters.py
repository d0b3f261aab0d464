"""A raw record that nobody can read: dead-lettered by a worker, listed, redriven with its headers, and counted."""

import json
import signal
import subprocess
import sys

import confluent_kafka as ck
import drill
import duckdb
import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewPartitions

from infra import dead_letters, topology
from infra.cli import main
from infra.consuming import ValueReader, read_to_end
from infra.supervisor import Supervisor
from processors.engine.outputs import Outputs
from processors.records import Unreadable
from producers.partition import partition_of
from schemas.decimals import to_units
from schemas.registry import Registry
from schemas.topics import Topology, load_example, load_schema
from schemas.wire import compile_encoder

NOISE = b"\0\0\0\xff\xffnoise"


@pytest.fixture
def cluster(stack, namespace, monkeypatch):
    variables = {"INFOWAY_BOOTSTRAP": stack.bootstrap, "INFOWAY_REGISTRY": stack.registry_url}
    variables |= {"INFOWAY_PREFIX": namespace, "INFOWAY_PARTITIONS": "2"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return Cluster(stack, namespace, variables)


class Cluster:
    def __init__(self, stack, namespace, variables):
        self.variables = variables
        self.prefix = namespace
        self.bootstrap = stack.bootstrap
        self.registry = Registry(stack.registry_url)
        names = Topology(namespace, partitions=2)
        self.raw, self.dead = names.name("infoway.raw.trade"), names.name("infoway.dead-letter")
        self.outputs = Outputs.of(names, topology.apply(stack.bootstrap, self.registry, names, {}))
        self.vwaps = names.name("infoway.vwap.1m")

    def publish(self, *records):
        """Each (topic, partition, key, value, headers)."""
        producer = ck.Producer({"bootstrap.servers": self.bootstrap})
        for topic, partition, key, value, headers in records:
            producer.produce(topic, value, key, partition, headers=headers)
        assert producer.flush(20) == 0

    def dead_letter(
        self, offset, topic=None, value=NOISE, headers=(), key=b"A", source_partition=1
    ):
        """The dead letter of a raw record, as an agent writes it; it stands in partition 1."""
        topic = self.raw if topic is None else topic
        dead = self.outputs.dead_letter(
            topic, source_partition, Unreadable(offset, key, value, "E", "why")
        )
        return (dead[0], 1, *dead[2:], list(headers))

    def raw_records(self):
        return [
            (message.partition(), message.key(), message.value(), message.headers())
            for message in read_to_end(self.bootstrap, self.raw)
        ]


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(["dead-letter", *arguments])
    assert ended.value.code == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.timeout(120)
def test_what_no_worker_can_read_is_listed_and_comes_back_with_its_headers_and_attempts(
    cluster, capsys, tmp_path
):
    def letters():
        return [json.loads(line) for line in run(capsys, "list", "--json")]

    odd_control = [("control", b"unheard-of"), ("feed", b"crypto-1")]
    a, b = (partition_of(key, 2) for key in (b"A", b"B"))
    cluster.publish(
        (cluster.raw, a, b"A", NOISE, [("trace", b"t-1"), ("empty", None)]),
        (cluster.raw, b, b"B", None, odd_control),
    )
    with Supervisor(cluster.variables, 1, tmp_path) as workers:
        assert drill.wait_until(lambda: workers.check() or len(letters()) == 2, 60)
        by_key = {letter["key"]: letter for letter in letters()}
        assert by_key[b"A".hex()]["headers"] == [["trace", b"t-1".hex()], ["empty", None]]
        assert {
            (each["error_class"], each["attempts"], each["handled"]) for each in by_key.values()
        } == {
            ("UnknownSchema", 0, False),
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
            NOISE,
            [("trace", b"t-1"), ("empty", None), *again],
        ) in cluster.raw_records()
        assert (b, b"B", None, [*odd_control, *again]) in cluster.raw_records()
        # the worker cannot read them now either
        assert drill.wait_until(lambda: len(letters()) == 4, 30)
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
        deleted.result(20)
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
        main(["export", "--topics", "infoway.dead-letter", "--to", str(tmp_path)])
    assert exported.value.code == 0
    assert duckdb.execute(
        f"select source_offset from '{tmp_path}/*/*.parquet' order by 1"
    ).fetchall() == [(0,), (1,)]
    command = [
        sys.executable,
        "-u",
        "-m",
        "infra.cli",
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
        "infra.cli",
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
        lambda: len(admin.list_topics(cluster.raw, 10).topics[cluster.raw].partitions) == 5, 20
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


def test_of_two_redrives_at_once_the_later_one_does_it(cluster, capsys, monkeypatch):
    cluster.publish(*(cluster.dead_letter(offset, value=b"%d" % offset) for offset in range(3)))
    publish = dead_letters._Post.publish

    def overtaken(*arguments):
        monkeypatch.setattr(dead_letters._Post, "publish", publish)
        assert run(capsys, "redrive")[-1] == "3 redriven, 0 passed over"
        publish(*arguments)

    monkeypatch.setattr(dead_letters._Post, "publish", overtaken)
    with pytest.raises(SystemExit, match="another redrive has begun"):
        main(["dead-letter", "redrive"])
    assert [value for _, _, value, _ in cluster.raw_records()] == [b"0", b"1", b"2"]


@pytest.mark.timeout(120)
def test_a_record_whose_cause_is_mended_counts_after_its_redrive(cluster, capsys, tmp_path):
    """The cause: a schema that the registry does not have yet."""

    raw = load_schema("raw_trade")
    newer = raw | {
        "fields": [*raw["fields"], {"name": "newer", "type": ["null", "string"], "default": None}]
    }
    # ids are given one after the other: a schema of the test's own tells what the next one's will be
    own = {"type": "record", "name": cluster.raw.replace(".", "_"), "fields": []}
    missing = cluster.registry.register(f"{cluster.raw}-own", own) + 1
    trade = compile_encoder(newer, missing)(**load_example("raw_trade"), newer=None)
    cluster.publish((cluster.raw, partition_of(b"00005.HK", 2), b"00005.HK", trade, []))
    with Supervisor(cluster.variables, 1, tmp_path) as workers:
        assert drill.wait_until(lambda: workers.check() or run(capsys, "list"), 60)
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
            60,
        )
    [record] = [ValueReader(cluster.registry)(message.value())[1] for message in found]
    assert (record["symbol"], record["vwap"], record["trade_count"]) == (
        "00005.HK",
        to_units("98.15"),
        1,
    )


@pytest.mark.parametrize("step", ["published", "commit_transaction", "committed"])
def test_a_killed_redrive_redrives_each_letter_once(cluster, capsys, step):
    cluster.publish(*(cluster.dead_letter(offset, value=b"%d" % offset) for offset in range(5)))
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, step, "dead-letter", "redrive"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert killed.returncode == 9, killed.stderr
    run(capsys, "redrive")
    assert [value for _, _, value, _ in cluster.raw_records()] == [b"0", b"1", b"2", b"3", b"4"]


KILLED = """
import os, sys
from infra import dead_letters
from infra.cli import main
step = sys.argv.pop(1)
dead_letters.STEP = 2
steps = 0

class Producer(dead_letters.ck.Producer):
    def begin_transaction(self):
        global steps
        steps += 1
        super().begin_transaction()

    def produce(self, topic, *arguments, **more):
        if topic.endswith("infoway.dead-letter"):
            self.flush()
            self.at("published")
        super().produce(topic, *arguments, **more)

    def commit_transaction(self, *arguments):
        self.flush()
        self.at("commit_transaction")
        super().commit_transaction(*arguments)
        self.at("committed")

    def at(self, name):
        if name == step and steps == 2:
            os._exit(9)

dead_letters.ck.Producer = Producer
main(sys.argv[1:])
"""
