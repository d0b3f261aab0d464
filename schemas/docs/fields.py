"""What a schema says of its fields, nested ones too: type, unit, meaning, when null; no layout of
documents.

A `doc` reads `Meaning. Unit: what one means. Null: when it is null.`, the last two where they
apply.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from schemas.wire import Schema

_DOC = re.compile(
    r"(?P<meaning>.*?)(?: Unit: (?P<unit>.+?)\.)?(?: Null: (?P<null>.+)\.)?", re.DOTALL
)
_MEASURED = {"int", "long", "float", "double", "decimal", "date"}


@dataclass(frozen=True, slots=True)
class Field:
    """One field: its path in the record, and what its type and its `doc` say; `unit` and `null` are
    empty where not said."""

    path: str
    type: str
    meaning: str
    unit: str
    null: str
    nullable: bool
    measured: bool
    """Whether its values are numbers or times, which mean nothing without a unit."""


def fields_of(schema: Schema, prefix: str = "") -> Iterator[Field]:
    """Yield every field of a record and of the records within it, in order."""
    for field in schema["fields"]:
        path = f"{prefix}{field['name']}"
        meaning, unit, null = doc_parts(field.get("doc", ""))
        branches = field["type"] if isinstance(field["type"], list) else [field["type"]]
        numbers = any(_measured(branch) for branch in branches) or "decimal string" in meaning
        yield Field(
            path, type_text(field["type"]), meaning, unit, null, "null" in branches, numbers
        )
        for record, inner in _records(field["type"], path):
            yield from fields_of(record, f"{inner}.")


def doc_parts(doc: str) -> tuple[str, str, str]:
    """Return meaning, unit and when null of a `doc`, empty where it does not say."""
    match = _DOC.fullmatch(doc)
    assert match is not None
    return match["meaning"], match["unit"] or "", match["null"] or ""


def type_text(avro_type: Any) -> str:
    """Return a type for people: `decimal(38,18) or null`, `timestamp-millis (long)`, `array of
    string`."""
    if isinstance(avro_type, list):
        return " or ".join(sorted(map(type_text, avro_type), key=lambda text: text == "null"))
    if isinstance(avro_type, str):
        return avro_type
    kind, logical = avro_type["type"], avro_type.get("logicalType")
    if logical == "decimal":
        return f"decimal({avro_type['precision']},{avro_type['scale']})"
    if kind in ("array", "map"):
        return f"{kind} of {type_text(avro_type['items' if kind == 'array' else 'values'])}"
    return f"{logical} ({kind})" if logical else avro_type.get("name", kind)


def _measured(avro_type: Any) -> bool:
    if isinstance(avro_type, str):
        return avro_type in _MEASURED
    kind = avro_type["type"]
    if kind in ("array", "map"):
        return _measured(avro_type["items" if kind == "array" else "values"])
    return kind in _MEASURED or avro_type.get("logicalType") in _MEASURED


def _records(avro_type: Any, path: str) -> Iterator[tuple[Schema, str]]:
    if isinstance(avro_type, list):
        for branch in avro_type:
            yield from _records(branch, path)
    elif isinstance(avro_type, dict):
        if avro_type["type"] == "record":
            yield avro_type, path
        elif avro_type["type"] in ("array", "map"):
            yield from _records(
                avro_type["items" if avro_type["type"] == "array" else "values"], f"{path}[]"
            )
