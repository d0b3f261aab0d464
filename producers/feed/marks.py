"""Decides where a mark is due: partitions that fell silent while their feed lived on; it makes no records itself."""

from dataclasses import dataclass


@dataclass(slots=True)
class Place:
    """One partition of a raw topic that carries symbols of the feed; `active` is its last record or mark, microseconds."""

    topic: str
    partition: int
    active: int


class Marks:
    """The places of one connection. Marks follow from the signs of life alone, so a replay makes the same ones."""

    def __init__(self, period: int) -> None:
        self._period = period
        self._places: dict[tuple[str, int], Place] = {}
        self._next = 0

    def place(self, topic: str, partition: int, now: int) -> Place:
        """Return the place of a partition, new from `now` on; who writes a record there sets its `active`."""
        place = self._places.get((topic, partition))
        if place is None:
            place = self._places[topic, partition] = Place(topic, partition, now)
        return place

    def due(self, life: int) -> list[Place]:
        """Return the places silent for a period at the feed's sign of life `life`, and count them as marked then."""
        if life < self._next or not self._places:
            return []
        silent = [place for place in self._places.values() if life - place.active >= self._period]
        for place in silent:
            place.active = life
        self._next = min(place.active for place in self._places.values()) + self._period
        return silent
