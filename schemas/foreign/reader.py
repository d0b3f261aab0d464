"""Reads values by schemas that others wrote: fastavro reads and resolves, within bounds.

fastavro gets neither a stranger's schema nor bytes that were not looked at. Its schemas are made
from parsed types, so that no attribute that we do not know reaches it. Before it reads, `_Walk`
passes over the value with a budget of values and of depth: neither a count of 2^60 items that
take no bytes nor a schema that contains itself costs more than its bytes are worth.
"""

import math
from collections.abc import Callable, Collection, Mapping
from io import BytesIO
from typing import Any, NoReturn

import fastavro
from fastavro.read import LOGICAL_READERS, SchemaResolutionError
from fastavro.schema import SchemaParseException

from schemas.decimals import LIMIT
from schemas.foreign.types import Parsed, Type, UnreadableSchema, parse
from schemas.wire import Decoder, Fields, Schema, UnreadableValue, date_text, read_long

MOST_VALUES = 100_000
"""Values of one message."""
MOST_VALUE_DEPTH = 64
"""Nesting of a value: a schema that contains itself has no end of its own."""

_PROMOTED: Mapping[str, Collection[str]] = {
    "int": {"int"},
    "long": {"int", "long"},
    "double": {"int", "long", "float", "double"},
    "string": {"string", "bytes"},
    "bytes": {"bytes", "string"},
    "boolean": {"boolean"},
    "null": {"null"},
}
"""By the reader's type: what Avro promotes to it."""


def resolving_decoder(writer: Parsed, reader: Schema) -> Decoder:
    """Return a function from a value's bytes, written by `writer`, to a record of `reader`.

    `reader` is one of our flat schemas. The record is physical, as a compiled decoder's. Fields
    that the writer lacks have the reader's defaults. Raises UnreadableSchema if Avro has no way
    from one schema to the other; the function raises UnreadableValue.
    """
    ours, theirs = parse(reader).root, writer.root
    if theirs.kind != "record" or theirs.name.rpartition(".")[2] != ours.name.rpartition(".")[2]:
        raise UnreadableSchema(
            f"written as {theirs.kind} {theirs.name}, expected the record {ours.name}"
        )
    wanted = dict(zip(ours.fields, ours.parts, strict=True))
    for name, part in zip(theirs.fields, theirs.parts, strict=True):
        if name in wanted and not _resolves(part, wanted[name]):
            raise UnreadableSchema(
                f"field {name} of {ours.name} was written as {_shown_type(part)}, and is "
                f"{_shown_type(wanted[name])}"
            )
    for field in reader["fields"]:
        if field["name"] not in theirs.fields and "default" not in field:
            raise UnreadableSchema(
                f"{theirs.name} has no field {field['name']}, which {ours.name} has no default for"
            )
    # records are matched by name; of logical types fastavro looks at the writer's alone
    read = _reader(
        writer, _made(theirs, ours, _physical, {}), {**reader, "name": "N1", "namespace": ""}
    )

    def decode(value: bytes) -> Fields:
        found = read(value)
        return {name: found[name] for name in wanted}

    return decode


def showing_decoder(writer: Parsed) -> Callable[[bytes], Any]:
    """Return a function from a value's bytes to what JSON shows of it, as to_json() does."""
    return _reader(writer, _made(writer.root, None, _shown, {}), None)


def _reader(writer: Parsed, written: object, reader: object) -> Callable[[bytes], Any]:
    try:
        written, reader = _parsed(written), reader and _parsed(reader)
    except SchemaParseException as error:
        raise UnreadableSchema(f"no schema that fastavro takes: {error}"[:300]) from error

    def read(value: bytes) -> Any:
        try:
            _Walk(writer, value).whole()
            return fastavro.schemaless_reader(BytesIO(value[5:]), written, reader)["value"]
        except UnicodeDecodeError as error:
            raise UnreadableValue(f"not the Avro of its schema: {error!r}") from error
        except SchemaResolutionError as error:
            raise UnreadableValue(f"a value that ours cannot have: {error}"[:300]) from error

    return read


def _parsed(schema: object) -> Any:
    # fastavro marks only records as parsed; around one field a record adds no bytes
    fields = [{"name": "value", "type": schema}]
    return fastavro.parse_schema({"type": "record", "name": "Message", "fields": fields})


def _resolves(theirs: Type, ours: Type) -> bool:
    """Return whether a written type, or a branch of it, may be read as a type of ours."""
    if theirs.kind == "union":
        return any(_resolves(branch, ours) for branch in theirs.parts)
    if ours.kind == "union":
        return any(_resolves(theirs, branch) for branch in ours.parts)
    if theirs.kind == ours.kind == "array":
        return _resolves(theirs.parts[0], ours.parts[0])
    if theirs.kind not in _PROMOTED.get(ours.kind, ()):
        return False
    if "decimal" in (theirs.logical, ours.logical):
        # of another scale it is another number
        return (theirs.logical, theirs.digits) == (ours.logical, ours.digits)
    return theirs.logical in (ours.logical, None)


_Mark = Callable[[Type, Type | None], str | None]
"""Says by a name of _READ what becomes of a written type's values, which are to be one of ours."""


def _made(found: Type, ours: Type | None, mark: _Mark, names: dict[str, str]) -> Any:
    """Return the schema that fastavro gets of a written type.

    Names are N1, N2, ...: a stranger's may mean something else inside a namespace.
    """
    if found.kind == "named":
        return names[found.name]
    if found.kind == "union":
        return [_made(part, ours, mark, names) for part in found.parts]
    made: dict[str, Any] = {"type": found.kind}
    if found.name:
        made["name"] = names[found.name] = f"N{len(names) + 1}"
    match found.kind:
        case "record":
            wanted = dict(zip(ours.fields, ours.parts, strict=True)) if ours else {}
            parts = zip(found.fields, found.parts, strict=True)
            made["fields"] = [
                {"name": name, "type": _made(part, wanted.get(name), mark, names)}
                for name, part in parts
            ]
        case "array":
            made["items"] = _made(found.parts[0], _item(ours), mark, names)
        case "map":
            made["values"] = _made(found.parts[0], None, mark, names)
        case "enum":
            made["symbols"] = list(found.symbols)
        case "fixed":
            made["size"] = found.size
    if logical := mark(found, ours):
        made |= {"logicalType": f"infoway-{logical}", "scale": found.digits[1]}
    return made


def _item(ours: Type | None) -> Type | None:
    branches = (ours, *ours.parts) if ours else ()
    return next((each.parts[0] for each in branches if each.kind == "array"), None)


def _physical(found: Type, ours: Type | None) -> str | None:
    if ours is None:
        return None  # passed over
    if not _resolves(found, ours):
        return "refused"
    return "units" if found.logical == "decimal" else None


def _shown(found: Type, ours: Type | None) -> str:
    return found.logical or "plain"


class _Walk:
    """Passes over the bytes of one message; raises UnreadableValue if they are not its schema's."""

    def __init__(self, writer: Parsed, value: bytes) -> None:
        self._root, self._named = writer.root, writer.named
        self._value, self._at = value, 5
        self._left = min(MOST_VALUES, writer.types + 3 * len(value))

    def whole(self) -> None:
        """Pass over the whole message."""
        self._over(self._root, 0)
        if self._at != len(self._value):
            raise UnreadableValue(f"{len(self._value)} bytes, of which the schema takes {self._at}")

    def _over(self, found: Type, depth: int) -> None:
        if found.kind == "named":
            found = self._named[found.name]
        if depth > MOST_VALUE_DEPTH:
            raise UnreadableValue(f"nested deeper than {MOST_VALUE_DEPTH}")
        if found.kind != "union":
            self._count(1)
        match found.kind:
            case "record":
                for part in found.parts:
                    self._over(part, depth + 1)
            case "union":
                self._over(found.parts[self._index(len(found.parts))], depth + 1)
            case "array" | "map":
                self._blocks(found, depth + 1)
            case "enum":
                self._index(len(found.symbols))
            case "fixed":
                self._take(found.size)
            case "boolean":
                if (byte := self._take(1)[0]) > 1:
                    raise UnreadableValue(f"a boolean of {byte}")
            case "int":
                if not -(1 << 31) <= (number := self._long()) < 1 << 31:
                    raise UnreadableValue(f"an int of {number}")
            case "long":
                self._long()
            case "float" | "double":
                self._take(4 if found.kind == "float" else 8)
            case "bytes":
                self._take(self._long())
            case "string":
                self._take(self._long()).decode()

    def _blocks(self, found: Type, depth: int) -> None:
        while count := self._long():
            end = None
            if count < 0:
                count, end = -count, self._long() + self._at
            if count > self._left:
                self._count(count)
            for _ in range(count):
                if found.kind == "map":
                    self._take(self._long()).decode()
                self._over(found.parts[0], depth)
            if end not in (None, self._at):
                raise UnreadableValue("a block of another size than it says")

    def _count(self, values: int) -> None:
        self._left -= values
        if self._left < 0:
            raise UnreadableValue(
                f"more values than {len(self._value)} bytes can hold, or than {MOST_VALUES}"
            )

    def _index(self, size: int) -> int:
        number = self._long()
        if not 0 <= number < size:
            raise UnreadableValue(f"branch or symbol {number} of {size}")
        return number

    def _take(self, size: int) -> bytes:
        end = self._at + size
        if size < 0 or end > len(self._value):
            raise UnreadableValue(f"{size} bytes wanted, {len(self._value) - self._at} are left")
        taken = self._value[self._at : end]
        self._at = end
        return taken

    def _long(self) -> int:
        try:
            number, self._at = read_long(self._value, self._at)
        except IndexError:
            raise UnreadableValue(f"{len(self._value)} bytes, and a number goes on") from None
        return number


def _units(raw: bytes, *_: Any) -> int:
    units = int.from_bytes(raw, "big", signed=True)
    if not -LIMIT < units < LIMIT:
        raise UnreadableValue("a decimal of more than 38 digits")
    return units


def _refused(value: Any, written: Mapping[str, Any], read: Any) -> NoReturn:
    raise UnreadableValue(f"a {written['type']} in a union, which ours cannot have there")


def _decimal_text(value: bytes, written: Mapping[str, Any], _: Any) -> str:
    if len(value) > 64:
        return value.hex()  # of more digits than any precision that is taken for one
    units, scale = int.from_bytes(value, "big", signed=True), written["scale"]
    digits = str(abs(units)).rjust(scale + 1, "0")
    fraction = digits[len(digits) - scale :].rstrip("0")
    return "-" * (units < 0) + digits[: len(digits) - scale] + ("." + fraction if fraction else "")


def _finite(number: float, *_: Any) -> float | str:
    return number if math.isfinite(number) else str(number)


def _hex(raw: bytes, *_: Any) -> str:
    return raw.hex()


_READ: dict[str, Callable[..., Any]] = {
    **{f"{kind}-infoway-refused": _refused for kind in (*_PROMOTED, "float")},
    "bytes-infoway-units": _units,
    **{f"{kind}-infoway-plain": _hex for kind in ("bytes", "fixed")},
    **{f"{kind}-infoway-decimal": _decimal_text for kind in ("bytes", "fixed")},
    **{f"{kind}-infoway-plain": _finite for kind in ("float", "double")},
    "int-infoway-date": lambda days, *_: date_text(days),
}
"""What fastavro calls for values of logical types that only schemas made here have."""
LOGICAL_READERS.update(_READ)


def _shown_type(found: Type) -> str:
    inside = (
        f" of {', '.join(map(_shown_type, found.parts[:3]))}"
        if found.kind in ("union", "array", "map")
        else ""
    )
    digits = "({},{})".format(*found.digits) if found.logical == "decimal" else ""
    return " ".join(filter(None, (found.kind, found.logical, found.name))) + digits + inside
