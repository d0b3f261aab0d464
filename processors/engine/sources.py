"""One source for each partition: records of another are dead letters, which all agents of the topic
agree on."""

from collections.abc import Iterable, Sequence

import confluent_kafka as ck

from processors.decode.reader import unreadable
from processors.model.records import SOURCES, SourceRecord, SourcesMixed, source_of

SourcePartition = tuple[str, int]
"""(full topic name, partition) of a source."""


class Sources:
    """What the records of the assigned partitions come from: what a setting says, else what the
    first record of each said.

    Topics that an agent reads side by side have one source, partition by partition.
    """

    def __init__(self, setting: str | None, read_together: Iterable[tuple[str, ...]]) -> None:
        self.setting = setting
        self._groups = {topic: topics for topics in read_together for topic in topics}
        self._known: dict[tuple[tuple[str, ...], int], str] = {}

    def restore(self, states: Iterable[tuple[SourcePartition, str | None]]) -> None:
        """Take over what the states of an assignment were built from, each beside a partition that
        its agent reads.

        Raises SourcesMixed where that is another source than the setting's.
        """
        self._known = {}
        for source_partition, source in states:
            if source is not None and self.setting not in (None, source):
                raise SourcesMixed(source, str(self.setting), source_partition[1], None)
            # an agent that is new on a topic goes by what those before it were built from
            self.keep(source_partition, source)

    def of(self, source_partition: SourcePartition) -> str | None:
        """Return what the records of a partition come from; None before its first."""
        return self.setting or self._known.get(
            (self._groups[source_partition[0]], source_partition[1])
        )

    def keep(self, source_partition: SourcePartition, source: str | None) -> None:
        """Remember what the first record of a partition came from."""
        if source is not None:
            self._known.setdefault((self._groups[source_partition[0]], source_partition[1]), source)

    def find(self, source_partition: SourcePartition, records: Iterable[SourceRecord]) -> None:
        """Learn what the records of a partition come from by the first that says so, if that is not
        known; no more of them are asked for."""
        if self.of(source_partition) is None:
            found = (source for source in map(source_of, records) if source in SOURCES)
            self.keep(source_partition, next(found, None))

    def sort_out(
        self,
        source_partition: SourcePartition,
        records: list[SourceRecord],
        run: Sequence[ck.Message],
    ) -> list[SourceRecord]:
        """Return the records of a partition with dead letters in the place of strays; `run` are
        their messages."""
        self.keep(
            source_partition,
            of_one_source(records, run, self.of(source_partition), source_partition[1]),
        )
        return records


def of_one_source(
    records: list[SourceRecord], run: Sequence[ck.Message], expected: str | None, partition: int
) -> str | None:
    """Put dead letters in the place of records of another source; return the partition's source.

    Where none is expected yet, the first record that names one of SOURCES decides.
    """
    for index, record in enumerate(records):
        source = source_of(record)
        if source is None or source == expected:
            continue
        if expected is None and source in SOURCES:
            expected = source
            continue
        mixed = SourcesMixed(expected or "(none yet)", source, partition, record.offset)
        records[index] = unreadable(run[index], mixed)
    return expected
