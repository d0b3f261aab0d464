"""Redrives that are killed, overtaken by another, or whose commit comes late."""

import subprocess
import sys

import confluent_kafka as ck
import drill
import pytest
from dead_letters import FRAME, frame_letter, run
from dead_letters import cluster as cluster
from kafka_proxy import Api
from rules import whole_and_without

from infra.cli.commands.repair import redrive
from infra.cli.main import main
from schemas.partition import partition_of


def test_of_two_redrives_at_once_the_later_one_does_it(cluster, capsys, monkeypatch):
    cluster.publish(*(cluster.dead_letter(offset, value=b"%d" % offset) for offset in range(3)))
    publish = redrive._RawTopics.publish

    def overtaken(*arguments):
        monkeypatch.setattr(redrive._RawTopics, "publish", publish)
        assert run(capsys, "redrive")[-1] == "3 redriven, 0 passed over"
        publish(*arguments)

    monkeypatch.setattr(redrive._RawTopics, "publish", overtaken)
    with pytest.raises(SystemExit, match="another redrive has begun"):
        main(["dead-letter", "redrive"])
    assert [value for _, _, value, _ in cluster.raw_records()] == [b"0", b"1", b"2"]


def test_a_killed_redrive_redrives_each_frame_once(cluster, capsys):
    cluster.publish(*(frame_letter(cluster, FRAME % b"%05d.HK" % number) for number in range(5)))
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, "committed", "dead-letter", "redrive"],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert killed.returncode == 9, killed.stderr
    run(capsys, "redrive")
    assert sorted(key for _, key, _, _ in cluster.raw_records()) == [
        b"%05d.HK" % number for number in range(5)
    ]


@pytest.mark.parametrize("step", ["published", "commit_transaction", "committed"])
def test_a_killed_redrive_redrives_each_letter_once(cluster, capsys, step):
    cluster.publish(*(cluster.dead_letter(offset, value=b"%d" % offset) for offset in range(5)))
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, step, "dead-letter", "redrive"],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert killed.returncode == 9, killed.stderr
    run(capsys, "redrive")
    assert [value for _, _, value, _ in cluster.raw_records()] == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("rule", whole_and_without("renewal"))
def test_a_commit_that_comes_late_commits_no_half_of_a_redrives_next_step(
    cluster, capsys, monkeypatch, proxy, rule
):
    cluster.publish(*(cluster.dead_letter(offset, value=b"%d" % offset) for offset in range(5)))
    monkeypatch.setenv("INFOWAY_BOOTSTRAP", proxy.address)
    monkeypatch.setattr(redrive, "STEP", 2)
    if rule:
        monkeypatch.setattr(redrive.TransactionalProducer, "renew_if_suspect", lambda self: False)
    held = proxy.hold(Api.END_TXN)
    visible = []

    class Producer(ck.Producer):
        def produce(self, topic, value, *arguments, **more):
            super().produce(topic, value, *arguments, **more)
            if value == b"2":
                self.flush()
                held.deliver()
                visible.extend(values())

    def values():
        return [
            message.value()
            for message in drill.read_to_stable(
                cluster.bootstrap, cluster.raw, partition_of(b"A", 2)
            )
        ]

    monkeypatch.setattr(ck, "Producer", Producer)
    if rule:
        with pytest.raises(SystemExit):
            main(["dead-letter", "redrive"])
        assert visible == [b"0", b"1", b"2"]
        return
    assert run(capsys, "redrive")[-1] == "5 redriven, 0 passed over"
    assert visible == [b"0", b"1"]
    # a commit is answered before its markers are written everywhere
    assert drill.wait_until(lambda: values() == [b"0", b"1", b"2", b"3", b"4"], 30)
    assert run(capsys, "redrive")[-1] == "0 redriven, 0 passed over"


KILLED = """
import os, sys
import confluent_kafka as ck
from infra.cli.commands.repair import redrive
from infra.cli.main import main
step = sys.argv.pop(1)
redrive.STEP = 2
steps = 0

class Producer(ck.Producer):
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

ck.Producer = Producer
main(sys.argv[1:])
"""
