"""What `topology apply` was given, read back from the topics that a cluster has."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from confluent_kafka.admin import AdminClient

from infra.topology.cluster import asking
from processors.agents.activity.thresholds import ActivityBarsWrong, thresholds
from processors.agents.vwap.windows import SESSION
from processors.model.intervals import IntervalsWrong, ladder, span_ms
from schemas.clients.cluster import metadata_of
from schemas.topics import RAW_TRADE, partitions_fixed

_BARS, _VWAP = "infoway.bars.", "infoway.vwap."


@dataclass(frozen=True, slots=True)
class TopologyFound:
    """The parts of a topology that the visible topics show; what none shows is empty or None."""

    intervals: tuple[str, ...] = ()
    windows: tuple[str, ...] = ()
    activity: tuple[str, ...] = ()
    partitions: int | None = None


def found_on(bootstrap: str, prefix: str) -> TopologyFound:
    """Ask the cluster which topics it shows; raises ClusterAway."""
    with asking(bootstrap) as admin:
        return found_by(admin, prefix)


def found_by(admin: AdminClient, prefix: str) -> TopologyFound:
    """Return what the topics that a client sees were made of; raises KafkaException."""
    topics = metadata_of(admin).topics
    return read_back(prefix, {name: len(topic.partitions) for name, topic in topics.items()})


def read_back(prefix: str, topics: Mapping[str, int]) -> TopologyFound:
    """Return what the topics with this prefix were made of; `topics` are partitions by name.

    What has a name of ours and is none, `infoway.bars.daily` say, is passed over.
    """
    ours = {
        name.removeprefix(prefix): partitions
        for name, partitions in topics.items()
        if name.startswith(f"{prefix}infoway.")
    }
    bars = _parts(ours, _BARS)
    return TopologyFound(
        _intervals(bars),
        _windows(_parts(ours, _VWAP)),
        _activity(bars),
        _partitions(ours),
    )


def _parts(names: Iterable[str], family: str) -> list[str]:
    return sorted(name.removeprefix(family) for name in names if name.startswith(family))


def _intervals(names: list[str]) -> tuple[str, ...]:
    """Return the intervals, the finest first; of two of one length the first."""
    found: tuple[str, ...] = ()
    for name in names:
        try:
            found = tuple(each.name for each in ladder([*found, name]).intervals)
        except IntervalsWrong:
            continue
    return found


def _activity(names: list[str]) -> tuple[str, ...]:
    found: list[str] = []
    for name in names:
        try:
            thresholds([*found, name])
        except ActivityBarsWrong:
            continue
        found.append(name)
    return tuple(found)


def _windows(names: list[str]) -> tuple[str, ...]:
    spans = {name: span for name in names if (span := span_ms(name)) is not None}
    return (*sorted(spans, key=spans.__getitem__), *(each for each in names if each == SESSION))


def _partitions(ours: Mapping[str, int]) -> int | None:
    """Return the partitions of the topics whose number is the deployment's to choose: that of the
    raw trades, if they are shown."""
    free = {name: number for name, number in ours.items() if name not in partitions_fixed()}
    return free.get(RAW_TRADE) or next(iter(free.values()), None)
