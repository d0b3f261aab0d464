"""How one feed and one symbol of a partition were observed: when, until when, and with which
interruptions; times are milliseconds UTC."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import orjson

from processors.model.spans import Spans
from schemas.control import HELD_BACK_MS

Completeness = Literal["complete", "partial", "gap"]

BEGINNING = -(1 << 62)
FOREVER = 1 << 62

CHUNK_MS = 3_600_000
"""Interruptions that begin in one hour are one key: a reconnect a minute must not rewrite those of
two days."""


class Interruption(NamedTuple):
    """[begin, end) in which a symbol was not fully observed, and how."""

    begin: int
    end: int
    kind: Completeness


class Cover(NamedTuple):
    """The completeness of every [begin, end) with since <= begin < until and reach_from <= end <=
    reach."""

    known: Completeness
    since: int
    until: int
    reach_from: int
    reach: int


@dataclass(slots=True)
class FeedState:
    """One feed on one partition."""

    name: str
    business: str
    connection: str
    latest_event_ms: int = BEGINNING
    """Greatest event time, marks included."""
    last_alive_ms: int = BEGINNING
    """When a record of it was last received, by the producer's clock."""
    latest_push_ms: int = BEGINNING
    """Greatest event time of its trades and books: a kline has no time of its own."""

    @property
    def alive_until_ms(self) -> int:
        """Until when the feed was alive: the producer's clock may be far ahead of what was
        delivered."""
        return (
            min(self.last_alive_ms, self.latest_event_ms)
            if self.latest_push_ms > BEGINNING
            else self.last_alive_ms
        )


@dataclass(slots=True)
class SymbolObservation:
    """How a symbol of the partition was observed."""

    symbol: str
    feed: FeedState
    """The feed that carries the symbol, or carried it last."""
    ended: bool = False
    least_watermark_ms: int = BEGINNING
    """The symbol's watermark when it left its feed before: it never goes back."""
    silent_since_ms: int | None = None
    """When the connection that carried the symbol was last alive, once another has replaced it."""
    gaps: Spans = field(default_factory=Spans)
    partials: Spans = field(default_factory=Spans)
    """When it was interrupted, but for an end that no begin has followed."""
    ended_at_ms: int | None = None
    """Since when it has ended."""
    complete_from_ms: int = BEGINNING
    """Where the last interruption ends."""

    changed_chunks: set[int] = field(default_factory=set)
    """Hours of interruptions that the state topic does not have yet."""

    def completeness(self, start: int, end: int) -> Completeness:
        """Return how [start, end) was observed, by the log so far; a gap wins over partial."""
        if start >= self.complete_from_ms:
            return "complete"
        if self.gaps.overlap(start, end):
            return "gap"
        ended = self.ended_at_ms is not None and self.ended_at_ms < end
        return "partial" if ended or self.partials.overlap(start, end) else "complete"

    def observed_until_ms(self) -> int:
        """Return until when the symbol was observed for sure, where nobody says so: until its
        feed's last push in the partition, for a mark may come of a pong alone."""
        alive = self.feed.alive_until_ms
        wanted_from = self.partials.end or BEGINNING
        return min(alive, max(self.feed.latest_push_ms, alive - HELD_BACK_MS, wanted_from))

    def cover(self, start: int, end: int) -> Cover:
        """Return the completeness of [start, end) and of what is not before it, as far as it is the
        same."""
        known = self.completeness(start, end)
        until = reach = FOREVER
        if known == "gap":
            until = max(last for begin, last in self.gaps if begin < end)
            return Cover(known, start, until, end, reach)
        # a gap that begins later changes it, and for complete ones so does all that begins later
        later = [begin for begin, _ in self.gaps if begin >= end]
        if known == "partial":
            if self.ended_at_ms is None or self.ended_at_ms >= end:
                until = max(last for begin, last in self.partials if begin < end)
        else:
            later += [begin for begin, _ in self.partials if begin >= end]
            if self.ended_at_ms is not None:
                later.append(self.ended_at_ms)
        return Cover(known, start, until, end, min(later, default=reach))

    def end(self, at_ms: int) -> Interruption:
        """End in order."""
        self.ended = True
        self.ended_at_ms, self.complete_from_ms = at_ms, FOREVER
        return Interruption(at_ms, FOREVER, "partial")

    def interrupt(
        self, begin: int, end: int, kind: Completeness, forgotten_until_ms: int
    ) -> Interruption:
        """Take an interruption, and forget those that end before nothing asks for them any more."""
        # a producer's clock set back must not make a loss vanish
        begin, end = min(begin, end), max(begin, end)
        for spans in (self.gaps, self.partials):
            self._change(spans.prune(forgotten_until_ms))
        self.add(begin, end, kind)
        self.settle()
        return Interruption(begin, end, kind)

    def add(self, begin: int, end: int, kind: Completeness) -> None:
        """Add an interruption, without settling."""
        self._change((self.gaps if kind == "gap" else self.partials).add(begin, end))

    def settle(self) -> None:
        """Set `complete_from_ms`."""
        last = max(self.gaps.end or BEGINNING, self.partials.end or BEGINNING)
        self.complete_from_ms = last if self.ended_at_ms is None else FOREVER

    def dump(self) -> bytes:
        """Return all but the interruptions, which are in chunks."""
        unended = [] if self.ended_at_ms is None else [(self.ended_at_ms, FOREVER)]
        # most symbols have but this one: no key more for it
        unbegun = self.partials.between(BEGINNING, BEGINNING + 1)
        outer = [(*span, "partial") for span in unended + unbegun]
        return orjson.dumps(
            [self.feed.name, self.ended, self.least_watermark_ms, self.silent_since_ms, outer]
        )

    def dirty_chunks(self) -> Iterator[tuple[int, bytes | None]]:
        """Yield the chunks that changed since the last call, None for one that is empty now."""
        for chunk in sorted(self.changed_chunks):
            first = chunk * CHUNK_MS
            found = [(*span, "gap") for span in self.gaps.between(first, first + CHUNK_MS)]
            found += [(*span, "partial") for span in self.partials.between(first, first + CHUNK_MS)]
            yield chunk, orjson.dumps(found) if found else None
        self.changed_chunks.clear()

    def restore(self, outer: Iterable[tuple[int, int, Completeness]]) -> None:
        """Take the interruptions that `dump` has beside the feed."""
        for begin, end, kind in outer:
            if kind == "partial" and end == FOREVER:
                self.ended_at_ms = begin
            elif kind == "partial" and begin == BEGINNING:
                self.partials.add(begin, end)
            else:  # written by a version that kept all of them in this key
                self.add(begin, end, kind)

    def restore_chunk(self, found: Iterable[tuple[int, int, Completeness]]) -> None:
        """Take the interruptions of a chunk."""
        for begin, end, kind in found:
            (self.gaps if kind == "gap" else self.partials).add(begin, end)

    def _change(self, begins: Iterable[int]) -> None:
        self.changed_chunks.update(at // CHUNK_MS for at in begins if at != BEGINNING)
