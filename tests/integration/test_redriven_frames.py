"""Frames that never became a record: redriven as the raw record that they should have been."""

import drill
import pytest
from dead_letters import FRAME, NOISE, frame_letter, run
from dead_letters import cluster as cluster

from infra.kafka.reader import ValueReader, read_to_end
from infra.runtime.supervisor import Supervisor
from schemas.decimals import to_units
from schemas.partition import partition_of


@pytest.mark.timeout(400)
def test_a_frame_becomes_the_raw_record_that_it_should_have_been_and_counts(
    cluster, capsys, tmp_path
):
    cluster.publish(frame_letter(cluster, FRAME % b"00005.HK"))
    assert "to " in run(capsys, "redrive", "--dry-run")[0]
    assert run(capsys, "redrive")[-1] == "1 redriven, 0 passed over"
    assert run(capsys, "redrive")[-1] == "0 redriven, 0 passed over"
    [(partition, key, value, headers)] = cluster.raw_records()
    assert (partition, key, headers) == (
        partition_of(b"00005.HK", 2),
        b"00005.HK",
        [("dead-letter-attempts", b"1")],
    )
    record = ValueReader(cluster.registry)(value)[1]
    assert (record["price"], record["turnover"], record["extra"], record["repeat"]) == (
        "98.150",
        "196.300",
        '{"new":1.50}',
        False,
    )
    assert (record["feed"], record["connection"], record["source"]) == (
        "stock-1",
        "stock-1-1752826000000000",
        "live",
    )
    assert (record["business"], record["sequence"], record["ts_recv"]) == (
        "stock",
        0,
        1752826113600000,
    )
    with Supervisor(cluster.variables, 1, tmp_path) as workers:
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


def test_a_frame_that_no_record_can_be_made_of_is_passed_over_with_the_reason(cluster, capsys):
    ahead = frame_letter(cluster, FRAME % b"00005.HK", received=1752826000000000)
    cluster.publish(
        frame_letter(cluster, NOISE),
        frame_letter(cluster, b'{"code":10001}'),
        ahead,
        frame_letter(cluster, FRAME % b"A", feed="other"),
        # as a record it would count twice
        frame_letter(cluster, FRAME % b"B", error_class="NoMoreAskedFor"),
    )
    printed = run(capsys, "redrive")
    for line, said in zip(
        printed,
        [
            "NotJson",
            "no trade, book or kline, but a Ack",
            "AheadOfReceipt",
            "no business",
            "its symbol was taken out",
        ],
        strict=False,
    ):
        assert said in line
    assert printed[-1] == "0 redriven, 5 passed over"
    assert cluster.raw_records() == []
