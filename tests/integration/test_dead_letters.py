"""A raw record that nobody can read: dead-lettered by a worker, listed, redriven with its headers, and counted."""

import json
import subprocess
import sys

import confluent_kafka as ck
import drill
import pytest

from infra import topology
from infra.cli import main
from infra.consuming import read_to_end
from infra.supervisor import Supervisor
from processors.engine.outputs import Outputs
from processors.records import Unreadable
from schemas.registry import Registry
from schemas.topics import Topology

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
        self.bootstrap = stack.bootstrap
        names = Topology(namespace, partitions=2)
        self.raw, self.dead = names.name("infoway.raw.trade"), names.name("infoway.dead-letter")
        self.outputs = Outputs.of(names, topology.apply(stack.bootstrap, Registry(stack.registry_url), names, {}))

    def publish(self, *records):
        """Each (topic, partition, key, value, headers)."""
        producer = ck.Producer({"bootstrap.servers": self.bootstrap})
        for topic, partition, key, value, headers in records:
            producer.produce(topic, value, key, partition, headers=headers)
        assert producer.flush(20) == 0

    def dead_letter(self, offset, topic=None, value=NOISE, headers=()):
        """The dead letter of a raw record, as an agent writes it."""
        dead = self.outputs.dead_letter(self.raw if topic is None else topic, 1, Unreadable(offset, b"A", value, "E", "why"))
        return (*dead, list(headers))

    def raw_records(self):
        return [
            (message.partition(), message.key(), message.value(), message.headers()) for message in read_to_end(self.bootstrap, self.raw)
        ]


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(["dead-letter", *arguments])
    assert ended.value.code == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.timeout(120)
def test_what_no_worker_can_read_is_listed_and_comes_back_with_its_headers_and_attempts(cluster, capsys, tmp_path):
    def letters():
        return [json.loads(line) for line in run(capsys, "list", "--json")]

    odd_control = [("control", b"unheard-of"), ("feed", b"crypto-1")]
    cluster.publish((cluster.raw, 1, b"A", NOISE, [("trace", b"t-1"), ("empty", None)]), (cluster.raw, 0, b"B", None, odd_control))
    with Supervisor(cluster.variables, 1, tmp_path) as workers:
        assert drill.wait_until(lambda: workers.check() or len(letters()) == 2, 60)
        by_key = {letter["key"]: letter for letter in letters()}
        assert by_key[b"A".hex()]["headers"] == [["trace", b"t-1".hex()], ["empty", None]]
        assert {(each["error_class"], each["attempts"], each["handled"]) for each in by_key.values()} == {
            ("UnknownSchema", 0, False),
            ("UnreadableControl", 0, False),
        }
        assert run(capsys, "redrive", "--dry-run")[-1] == "2 would be redriven, 0 would be passed over"
        assert len(cluster.raw_records()) == 2
        assert run(capsys, "redrive")[-1] == "2 redriven, 0 passed over"
        again = [("dead-letter-attempts", b"1")]
        assert (1, b"A", NOISE, [("trace", b"t-1"), ("empty", None), *again]) in cluster.raw_records()
        assert (0, b"B", None, [*odd_control, *again]) in cluster.raw_records()
        # the worker cannot read them now either
        assert drill.wait_until(lambda: len(letters()) == 4, 30)
        assert sorted((each["attempts"], each["handled"]) for each in letters()) == [(0, True), (0, True), (1, False), (1, False)]
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


@pytest.mark.parametrize("step", ["send_offsets_to_transaction", "commit_transaction", "committed"])
def test_a_killed_redrive_redrives_each_letter_once(cluster, capsys, step):
    cluster.publish(*(cluster.dead_letter(offset, value=b"%d" % offset) for offset in range(5)))
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, step, "dead-letter", "redrive"], capture_output=True, text=True, timeout=60, check=False
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
    def send_offsets_to_transaction(self, *arguments):
        global steps
        steps += 1
        self.at("send_offsets_to_transaction")
        super().send_offsets_to_transaction(*arguments)

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
