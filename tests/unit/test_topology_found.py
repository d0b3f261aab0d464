"""What `topology apply` was given is read back from the topics that there are."""

import pytest

from infra.topology.found import TopologyFound, read_back
from schemas.topics import Topology


def topics_of(topology):
    return {topic.name: topic.partitions for topic in topology.topics()}


@pytest.mark.parametrize(
    "topology",
    [
        Topology(),
        Topology("a.", ("5s", "1m", "1h"), ("30s", "1h"), 3),
        Topology("", ("1m",), ("session",), 12, ("tick-1000", "volume-0.5")),
        Topology("x-", ("1d",), ("1m",), 1),
    ],
    ids=str,
)
def test_what_was_applied_is_read_back(topology):
    others = topics_of(Topology("other.", ("15s",), ("2m",), 7, ("tick-3",)))
    found = read_back(topology.prefix, {**others, **topics_of(topology)})
    assert found == TopologyFound(
        topology.intervals, topology.windows, topology.activity, topology.partitions or 6
    )


def test_a_topic_that_is_none_of_ours_says_nothing():
    mine = topics_of(Topology("", ("1m",), ("1m",), 2))
    odd = {
        "infoway.bars.daily": 9, "infoway.bars.": 9, "infoway.vwap.all": 9, "infoway.bars.60s": 9,
        "infoway.bars.7m": 9, "infoway.bars.tick-0": 9, "xinfoway.bars.5m": 9,
    }  # fmt: skip
    assert read_back("", {**odd, **mine}) == TopologyFound(("1m",), ("1m",), (), 2)


def test_a_principal_that_sees_few_topics_reads_back_what_these_show():
    # a producer's
    seen = {"infoway.raw.depth": 4, "infoway.feed.status": 1, "infoway.dead-letter": 4}
    assert read_back("", seen) == TopologyFound(partitions=4)
    assert read_back("", {"infoway.feed.status": 1}) == TopologyFound()
    assert read_back("", {}) == TopologyFound()
