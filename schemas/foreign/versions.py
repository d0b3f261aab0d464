"""Which decoder reads a value by the schema that the registry has of it: generated code for our own
schemas alone."""

from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any

from schemas.foreign.reader import resolving_decoder, showing_decoder
from schemas.foreign.types import UnreadableSchema, parse
from schemas.topics import load_schema
from schemas.wire import Decoder, Schema, compile_decoder


def decoder_of(
    written: object, ours: Schema, record: type[tuple[Any, ...]] | None = None
) -> Decoder:
    """Return what reads values of a schema of the registry's as records of `ours`, a schema that is
    shipped: as named records if their type is given.

    One that is `ours` but for its docs has its compiled decoder; any other, of an older or newer
    version or a stranger's, is interpreted and resolved. Raises UnreadableSchema; the decoder
    raises UnreadableValue.
    """
    writer = parse(written)
    if writer == parse(ours):
        return compile_decoder(ours, record)
    decode = resolving_decoder(writer, ours)
    return decode if record is None else lambda value: record(*decode(value).values())


def is_ours(written: object, ours: Schema) -> bool:
    """Return whether a schema of the registry's is `ours` but for its docs. Raises
    UnreadableSchema."""
    return parse(written) == parse(ours)


def shown_by(written: object) -> Callable[[bytes], Any]:
    """Return what reads values of any schema of the registry's as JSON shows them. Raises as
    decoder_of() does."""
    return showing_decoder(parse(written))


def ours_named(written: object) -> Schema:
    """Return the schema of ours that has the record's name; raises UnreadableSchema where none
    has."""
    name = parse(written).root.name.rpartition(".")[2]
    if name not in _shipped():
        raise UnreadableSchema(
            f"written by a schema {name or 'without a name'}, which is none of ours"
        )
    return _shipped()[name]


@cache
def _shipped() -> dict[str, Schema]:
    names = (
        file.name.removesuffix(".avsc")
        for file in files("schemas").iterdir()
        if file.name.endswith(".avsc")
    )
    return {schema["name"]: schema for schema in map(load_schema, names)}
