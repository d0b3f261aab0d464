"""Avro schemas that others wrote, as types of ours: names, nesting and number are bounded before
anything is read by them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from schemas.wire import UnreadableValue

MOST_TEXT = 64 << 10
"""Characters of a schema's text: ours have 5,000."""
MOST_TYPES = 1_000
"""Types of a schema, counted with every field, branch and item."""
MOST_DEPTH = 32
"""Nesting of a schema."""
_PRIMITIVES = frozenset(("null", "boolean", "int", "long", "float", "double", "bytes", "string"))
_LOGICAL = {"timestamp-millis": "long", "timestamp-micros": "long", "date": "int"}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}", re.ASCII)
_MOST_DIGITS = 150


class UnreadableSchema(UnreadableValue):
    """A schema that is no Avro, goes beyond the bounds, or cannot be read as one of ours."""


@dataclass(frozen=True, slots=True)
class Type:
    """One type of a schema, without its docs; two that are equal read the same bytes as the same
    values."""

    kind: str
    """Avro's name of it, or "named": what a name stands for that was defined before."""
    logical: str | None = None
    digits: tuple[int, int] = (0, 0)
    """Precision and scale of a decimal."""
    name: str = ""
    """With its namespace: of a record, an enum, a fixed, and of what is "named"."""
    size: int = 0
    """Bytes of a fixed."""
    symbols: tuple[str, ...] = ()
    parts: tuple["Type", ...] = ()
    """Types of a record's fields, a union's branches, the items of an array, the values of a
    map."""
    fields: tuple[str, ...] = ()
    """Names of a record's fields."""
    defaults: tuple[bytes | None, ...] = ()
    """Defaults of a record's fields as JSON."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A schema within the bounds."""

    root: Type
    named: Mapping[str, Type]
    types: int


def from_text(text: object) -> object:
    """Return the JSON value that a registry's text of a schema is, for parse(); raises
    UnreadableSchema."""
    if not isinstance(text, str) or len(text) > MOST_TEXT:
        raise UnreadableSchema(
            f"no text of a schema, or one of more than {MOST_TEXT} characters: {_cut(text)}"
        )
    try:
        found: object = orjson.loads(text)
    except ValueError:
        found = text  # a name alone, as string, may come without quotes
    return found


def parse(schema: object) -> Parsed:
    """Return the schema that a JSON value is; raises UnreadableSchema."""
    parser = _Parser()
    root = parser.type_of(schema, "", 0)
    return Parsed(root, parser.named, parser.types)


class _Parser:
    def __init__(self) -> None:
        self.named: dict[str, Type] = {}
        self.types = 0

    def type_of(self, node: object, namespace: str, depth: int) -> Type:
        self.types += 1
        if self.types > MOST_TYPES or depth > MOST_DEPTH:
            raise UnreadableSchema(
                f"a schema of more than {MOST_TYPES} types, or nested deeper than {MOST_DEPTH}"
            )
        if isinstance(node, str):
            return Type(node) if node in _PRIMITIVES else self._reference(node, namespace)
        if isinstance(node, list):
            branches = tuple(self.type_of(branch, namespace, depth + 1) for branch in node)
            if any(branch.kind == "union" for branch in branches):
                raise UnreadableSchema("a union in a union")
            return Type("union", parts=branches)
        if not isinstance(node, dict):
            raise UnreadableSchema(f"no schema: {_cut(node)}")
        kind = node.get("type")
        if kind in ("array", "map"):
            inside = node.get("items" if kind == "array" else "values")
            return Type(str(kind), parts=(self.type_of(inside, namespace, depth + 1),))
        if kind in ("record", "error", "enum", "fixed"):
            return self._definition(str(kind), node, namespace, depth)
        found = self.type_of(kind, namespace, depth + 1)
        return _with_logical(found, node)

    def _reference(self, name: str, namespace: str) -> Type:
        full = name if "." in name or not namespace else f"{namespace}.{name}"
        if full not in self.named:
            raise UnreadableSchema(f"no type {_cut(name)} was defined before its use")
        return Type("named", name=full)

    def _definition(self, kind: str, node: dict[str, Any], namespace: str, depth: int) -> Type:
        name, space = node.get("name"), node.get("namespace", namespace)
        full = f"{space}.{name}" if isinstance(name, str) and "." not in name and space else name
        if (
            not isinstance(full, str)
            or len(full) > 1_000
            or not all(_NAME.fullmatch(part) for part in full.split("."))
        ):
            raise UnreadableSchema(f"no name of a type: {_cut(full)}")
        if full in self.named:
            raise UnreadableSchema(f"two types {full}")
        if kind == "fixed":
            size = node.get("size")
            if type(size) is not int or size < 0:
                raise UnreadableSchema(f"fixed {full} of size {_cut(size)}")
            made = self.named[full] = _with_logical(Type("fixed", name=full, size=size), node)
            return made
        if kind == "enum":
            symbols = node.get("symbols")
            if not isinstance(symbols, list) or not all(
                isinstance(each, str) and _NAME.fullmatch(each) for each in symbols
            ):
                raise UnreadableSchema(f"enum {full} with symbols that are no names")
            made = self.named[full] = Type("enum", name=full, symbols=tuple(symbols))
            return made
        self.named[full] = Type("record", name=full)  # its fields may name it
        fields = node.get("fields")
        if not isinstance(fields, list) or not all(isinstance(field, dict) for field in fields):
            raise UnreadableSchema(f"record {full} without a list of fields")
        names = [field.get("name") for field in fields]
        for each in names:
            if not (isinstance(each, str) and _NAME.fullmatch(each)):
                raise UnreadableSchema(
                    f"record {full} has a field whose name is no name of Avro's: {_cut(each)}"
                )
        if len(set(names)) < len(names):
            raise UnreadableSchema(f"record {full} has a field twice")
        inner = full.rpartition(".")[0]
        parts = tuple(self.type_of(field.get("type"), inner, depth + 1) for field in fields)
        defaults = tuple(
            _json_of(field["default"]) if "default" in field else None for field in fields
        )
        made = self.named[full] = Type(
            "record", name=full, parts=parts, fields=tuple(names), defaults=defaults
        )
        return made


def _with_logical(found: Type, node: Mapping[str, Any]) -> Type:
    """Return the type with its logical type, where it is one that we know and that is valid; any
    other is ignored, as Avro says."""
    logical = node.get("logicalType")
    if isinstance(logical, str) and found.kind == _LOGICAL.get(logical, ""):
        return Type(found.kind, logical)
    precision, scale = node.get("precision"), node.get("scale", 0)
    if (
        logical != "decimal"
        or found.kind not in ("bytes", "fixed")
        or type(precision) is not int
        or type(scale) is not int
    ):
        return found
    if not (0 < precision <= _MOST_DIGITS and 0 <= scale <= precision):
        return found
    return Type(found.kind, "decimal", (precision, scale), found.name, found.size)


def _json_of(default: object) -> bytes:
    try:
        return orjson.dumps(default, option=orjson.OPT_SORT_KEYS)
    except TypeError as error:
        raise UnreadableSchema(f"a default that is no JSON, or nested too deep: {error}") from error


def _cut(value: object) -> str:
    return repr(value[:60] if isinstance(value, str | list) else value)[:60]
