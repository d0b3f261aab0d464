"""The schemas that records of the source topics name, asked of the registry once each; blocking, so
never on the event loop."""

import time
from collections.abc import Callable, Collection, Iterable

from schemas.clients.registry import Registry, RegistryError, UnknownSchema
from schemas.foreign.types import UnreadableSchema
from schemas.wire import UnreadableValue, schema_id_of

DENIED_S = 30.0
"""Seconds for which the registry must have answered that it has no such schema: a replica of it may
lag."""
REMEMBERED_S = 300.0
"""Seconds for which such an answer is not asked for again."""
ROUND_S = 5.0
"""Seconds after which a round of questions lets the worker look at its membership."""
MOST_SCHEMAS = 100_000
"""Answers that are remembered: as many as records of the largest batch, which may each name
another."""


class SchemaLookup:
    """What the registry says of schema ids.

    An id is unknown for good only once the registry has denied it for DENIED_S, without an answer
    of another kind in between: a timeout or an error says nothing about the id, and the record that
    names it waits.
    """

    def __init__(self, registry: Registry, clock: Callable[[], float] = time.monotonic) -> None:
        self._registry = registry
        self._clock = clock
        self._schemas: dict[int, object | UnreadableSchema] = {}
        self._denied_since: dict[int, float] = {}
        self._denied_at: dict[int, float] = {}
        """When the registry last denied an id."""

    def lacking(self, values: Iterable[bytes | None]) -> set[int]:
        """Return the schema ids of values that are neither known nor denied; what names no schema
        has none."""
        return {schema_id for schema_id in _ids_of(values) if not self._settled(schema_id)}

    def denies(self, values: Iterable[bytes | None]) -> bool:
        """Return whether an id of these values was denied and is not asked for again yet."""
        return bool(self._denied_at) and not self._denied_at.keys().isdisjoint(_ids_of(values))

    def ask_again(self, values: Iterable[bytes | None]) -> None:
        """Make the denied ids of these values lacking: one more question each, and no wait, since
        they were denied for long."""
        for schema_id in _ids_of(values):
            self._denied_at.pop(schema_id, None)

    def ask(self, ids: Collection[int]) -> str | None:
        """Ask for schema ids once each; return why not all are settled yet, None if they are."""
        self._forget()
        until = self._clock() + ROUND_S
        for schema_id in sorted(ids, key=lambda each: self._denied_at.get(each, 0.0)):
            if self._clock() > until:
                break
            try:
                self._schemas[schema_id] = self._registry.schema(schema_id)
                self._denied_since.pop(schema_id, None)
            except UnreadableSchema as error:
                self._schemas[schema_id] = error
            except UnknownSchema:
                now = self._denied_at[schema_id] = self._clock()
                self._denied_since.setdefault(schema_id, now)
            except RegistryError as error:
                for each in ids:
                    self._denied_since.pop(each, None)
                return str(error)
        waiting = sorted(each for each in ids if not self._settled(each))
        if not waiting:
            return None
        shown = ", ".join(map(str, waiting[:5])) + ", …" * (len(waiting) > 5)
        return f"it has no schema of id {shown} yet"

    def schema(self, schema_id: int) -> object:
        """Return the schema of an id that is settled; raises UnknownSchema where the registry has
        denied it, and UnreadableSchema."""
        if schema_id not in self._schemas:
            raise UnknownSchema(
                # without its address: a replay by another one gives the same dead letter
                f"the schema registry knows no schema of id {schema_id}"
            )
        found = self._schemas[schema_id]
        if isinstance(found, UnreadableSchema):
            raise found.with_traceback(None)
        return found

    def _settled(self, schema_id: int) -> bool:
        if schema_id in self._schemas:
            return True
        denied_at, since = self._denied_at.get(schema_id), self._denied_since.get(schema_id)
        return (
            denied_at is not None
            and since is not None
            and denied_at - since >= DENIED_S
            and self._clock() - denied_at < REMEMBERED_S
        )

    def _forget(self) -> None:
        """Drop what others could make grow without end."""
        oldest = self._clock() - 2 * REMEMBERED_S
        self._denied_at = {each: at for each, at in self._denied_at.items() if at > oldest}
        self._denied_since = {
            each: at
            for each, at in self._denied_since.items()
            if at > oldest or each in self._denied_at
        }
        if len(self._schemas) > MOST_SCHEMAS:
            self._schemas.clear()  # asked for again by the next record


def _ids_of(values: Iterable[bytes | None]) -> set[int]:
    heads = {value[:5] for value in values if value is not None}
    return {schema_id for head in heads if (schema_id := _id_of(head)) is not None}


def _id_of(head: bytes) -> int | None:
    try:
        return schema_id_of(head)
    except UnreadableValue:
        return None
