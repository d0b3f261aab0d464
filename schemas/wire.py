"""Confluent's wire format (magic 0, schema id, Avro): encoders compiled for one flat schema each,
and decoders; no registry.

Values are physical: times are integers of the schema's unit, decimals integers in units of 10^-18,
dates days since 1970. Encoders and decoders are compiled from a schema and held against fastavro
byte for byte: for one decimal it takes 8 us, the encoder here 0.3.
"""

import struct
from collections.abc import Callable, Iterable, Mapping
from datetime import date, timedelta
from functools import lru_cache
from keyword import iskeyword
from typing import Any, cast

from schemas.decimals import LIMIT, to_text
from schemas.errors import InfowayError

Schema = dict[str, Any]
Fields = dict[str, Any]
Encoder = Callable[..., bytes]
Decoder = Callable[[bytes], Any]
"""From a value's bytes to Fields, or to a named record."""

_BYTE = tuple(bytes([n]) for n in range(256))
_GOES_ON = tuple(bytes([n & 0x7F | 0x80, n >> 7 | 0x80]) for n in range(0x4000))
_ENDS = tuple(bytes([n]) if n < 0x80 else bytes([n & 0x7F | 0x80, n >> 7]) for n in range(0x4000))
_EPOCH = date(1970, 1, 1)


class DecimalOverflow(ValueError):
    """A number that decimal(38,18) cannot hold."""

    def __init__(self, units: int) -> None:
        super().__init__(f"{to_text(units)} does not fit decimal(38,18)")
        self.units = units


MOST_ID = (1 << 31) - 1
"""A registry asked for a greater id answers as one that has no such page: the record that names it
would wait without end."""


class UnreadableValue(InfowayError, ValueError):
    """Bytes that are not the wire format, or not the schema that they name."""


def header(schema_id: int) -> bytes:
    """Return the five bytes that stand before the Avro body."""
    return struct.pack(">bI", 0, schema_id)


def schema_id_of(value: bytes) -> int:
    """Return the schema id that a value names; raises UnreadableValue where it is not the wire
    format."""
    if len(value) < 5 or value[0] != 0:
        raise UnreadableValue(
            f"not Confluent's wire format: {len(value)} bytes, starting {value[:5].hex()}"
        )
    schema_id = int.from_bytes(value[1:5], "big")
    if schema_id > MOST_ID:
        raise UnreadableValue(f"a schema id of {schema_id}: registries number up to {MOST_ID}")
    return schema_id


def compile_encoder(schema: Schema, schema_id: int) -> Encoder:
    """Return a function that takes the record's fields in the schema's order and returns the
    value's bytes.

    The function raises DecimalOverflow for a decimal that does not fit. A flat schema is
    straight-line code: source is generated once per schema, since a loop over fields costs more
    than the encoding itself. Only for schemas of ours.
    """
    names = [field["name"] for field in schema["fields"]]
    pieces = ", ".join(_expression(field["type"], field["name"]) for field in schema["fields"])
    source = f"def encode({', '.join(names)}):\n    return join((prefix, {pieces}))\n"
    scope: dict[str, Any] = {
        "join": b"".join,
        "prefix": header(schema_id),
        "long": _long,
        "string": _string,
        "fits": _fits,
        "blob": _blob,
        "double": struct.Struct("<d").pack,
        "strings": _strings,
        "byte": _BYTE,
    }
    _check_names(names, scope)
    exec(compile(source, "<encoder>", "exec"), scope)
    return cast(Encoder, scope["encode"])


def compile_decoder(schema: Schema, record: type[tuple[Any, ...]] | None = None) -> Decoder:
    """Return a function from a value's bytes to the record: field names to physical values, or the
    named record if its type is given.

    The function raises UnreadableValue where the bytes do not fit the schema. Straight-line code as
    in compile_encoder: fastavro's schemaless reader takes 13 us for a raw trade, this 5. Only for
    schemas of ours: `schemas.foreign.versions` reads those of others.
    """
    lines = [
        line
        for number, field in enumerate(schema["fields"])
        for line in _reading(field["type"], f"f{number}")
    ]
    body = "\n".join(f"        {line}" for line in lines)
    names = [field["name"] for field in schema["fields"]]
    if record is None:
        made = ", ".join(f"{name!r}: f{number}" for number, name in enumerate(names))
        result = f"{{{made}}}"
    else:
        result = f"record({', '.join(f'f{number}' for number in range(len(names)))})"
    source = (
        "def decode(value):\n    try:\n        i = 5\n"
        f"{body}\n"
        "    except (IndexError, UnicodeDecodeError, struct_error) as error:\n"
        "        raise unreadable(f'not the Avro of its schema: {error!r}') from error\n"
        "    if i != len(value):\n"
        "        raise unreadable(f'{len(value)} bytes, of which the schema takes {i}')\n"
        f"    return {result}\n"
    )
    scope: dict[str, Any] = {
        "unreadable": UnreadableValue,
        "struct_error": struct.error,
        "long": read_long,
        "length": _read_length,
        "strings": _read_strings,
        "double": struct.Struct("<d").unpack_from,
        "number": int.from_bytes,
        "limit": LIMIT,
        "record": record,
    }
    _check_names(names, scope)
    exec(compile(source, "<decoder>", "exec"), scope)
    return cast(Decoder, scope["decode"])


def _check_names(names: Iterable[object], scope: Mapping[str, Any]) -> None:
    """Raise ValueError for a field whose name is no identifier, or means something in the source
    that is made."""
    for name in names:
        if (
            not (isinstance(name, str) and name.isascii() and name.isidentifier())
            or iskeyword(name)
            or name in scope
        ):
            raise ValueError(f"a field named {name!r}: this is no schema of ours")


def to_json(schema: Schema, record: Mapping[str, Any]) -> Fields:
    """Return a physical record as JSON shows it: decimals as strings, times as integers, dates as
    YYYY-MM-DD, bytes as hex."""
    shown: Fields = {}
    for field in schema["fields"]:
        value = record[field["name"]]
        logical = logical_type(field["type"])
        if value is None:
            shown[field["name"]] = None
        elif logical == "decimal":
            shown[field["name"]] = to_text(value)
        elif logical == "date":
            shown[field["name"]] = date_text(value)
        elif isinstance(value, bytes):
            shown[field["name"]] = value.hex()
        else:
            shown[field["name"]] = value
    return shown


def date_text(days: int) -> str | int:
    """Return days since 1970 as YYYY-MM-DD; the number itself where the year is not one of 1 to
    9999."""
    return (_EPOCH + timedelta(days=days)).isoformat() if -719_162 <= days <= 2_932_896 else days


def logical_type(avro_type: Any) -> str | None:
    """Return the logical type of a field's type, nullable or not."""
    if isinstance(avro_type, list):
        avro_type = avro_type[1]
    return avro_type.get("logicalType") if isinstance(avro_type, dict) else None


def _reading(avro_type: Any, target: str) -> list[str]:
    """Return the lines that read one field from `value` at `i` into `target`."""
    if isinstance(avro_type, list):
        inner = _reading(avro_type[1], target)
        return [
            "branch = value[i]",
            "i += 1",
            "if branch == 0:",
            f"    {target} = None",
            "elif branch == 2:",
            *(f"    {line}" for line in inner),
            "else:",
            "    raise unreadable(f'no branch {branch} in a union of two')",
        ]
    physical = avro_type["type"] if isinstance(avro_type, dict) else avro_type
    if physical == "long":
        return [f"{target}, i = long(value, i)"]
    if physical == "int":
        within = f"-2147483648 <= {target} <= 2147483647"
        return [
            f"{target}, i = long(value, i)",
            f"if not {within}:",
            f"    raise unreadable(f'an int of {{{target}}}')",
        ]
    if physical == "boolean":
        return [f"{target} = value[i] == 1", "i += 1"]
    if physical == "double":
        return [f"{target} = double(value, i)[0]", "i += 8"]
    if physical == "array":
        return [f"{target}, i = strings(value, i)"]
    # a length of one byte is read here, a longer one by a call
    sized = [
        "n = value[i]",
        "if n & 0x81:",
        "    n, i = length(value, i)",
        "else:",
        "    n >>= 1",
        "    i += 1",
    ]
    cut = "value[i : i + n]"
    if logical_type(avro_type) == "decimal":
        return [
            *sized,
            f"{target} = number({cut}, 'big', signed=True)",
            "i += n",
            f"if not -limit < {target} < limit:",
            "    raise unreadable('a decimal of more than 38 digits')",
        ]
    return [*sized, f"{target} = {cut}{'.decode()' if physical == 'string' else ''}", "i += n"]


def read_long(value: bytes, i: int) -> tuple[int, int]:
    """Return the long at `i` and where it ends; raises UnreadableValue and IndexError."""
    byte = value[i]
    i += 1
    number, shift = byte & 0x7F, 7
    while byte >= 0x80:
        byte = value[i]
        i += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if shift > 63 and (shift > 70 or number >= 1 << 64):
            raise UnreadableValue("a number of more than 64 bits")
    return (number >> 1) ^ -(number & 1), i


def _read_length(value: bytes, i: int) -> tuple[int, int]:
    number, i = read_long(value, i)
    if number < 0:
        raise UnreadableValue(f"a length of {number}")
    return number, i


def _read_strings(value: bytes, i: int) -> tuple[list[str], int]:
    texts: list[str] = []
    while True:
        count, i = read_long(value, i)
        if count == 0:
            return texts, i
        if count < 0:  # a block that tells its size in bytes too
            count, (_, i) = -count, _read_length(value, i)
        if count > len(value):
            raise UnreadableValue(f"a list of {count} in {len(value)} bytes")
        for _ in range(count):
            size, i = _read_length(value, i)
            texts.append(value[i : i + size].decode())
            i += size


def _expression(avro_type: Any, name: str) -> str:
    if isinstance(avro_type, list):
        null, branch = avro_type
        if null != "null":
            raise ValueError(
                f"field {name}: a nullable type is written [null, type], not {avro_type}"
            )
        return f"b'\\0' if {name} is None else b'\\2' + {_expression(branch, name)}"
    if (
        isinstance(avro_type, dict)
        and avro_type["type"] == "array"
        and avro_type["items"] == "string"
    ):
        return f"strings({name})"
    logical = logical_type(avro_type)
    physical = avro_type["type"] if isinstance(avro_type, dict) else avro_type
    if logical == "decimal":
        size = f"byte[(size := ({name}.bit_length() >> 3) + 1) << 1]"
        return f"{size} + {name}.to_bytes(size if size < 16 else fits({name}), 'big', signed=True)"
    writers = {
        "int": "long",
        "long": "long",
        "string": "string",
        "bytes": "blob",
        "double": "double",
    }
    if physical == "boolean":
        return f"byte[1 if {name} else 0]"
    if physical not in writers:
        raise ValueError(f"field {name}: no encoder for the Avro type {avro_type}")
    return f"{writers[physical]}({name})"


@lru_cache(maxsize=1 << 14)
def _long(number: int) -> bytes:
    # cached: the windows and bars of one trade share their times and offsets; two bytes at a time,
    # by table
    zigzag = (number << 1) ^ (number >> 63)
    out = b""
    while zigzag >= 0x4000:
        out += _GOES_ON[zigzag & 0x3FFF]
        zigzag >>= 14
    return out + _ENDS[zigzag]


@lru_cache(maxsize=1 << 14)
def _string(text: str) -> bytes:
    return _blob(text.encode())


def _blob(blob: bytes) -> bytes:
    return _long(len(blob)) + blob


def _strings(texts: list[str]) -> bytes:
    if not texts:
        return b"\0"
    return b"".join((_long(len(texts)), *map(_string, texts), b"\0"))


def _fits(units: int) -> int:
    """Return the size in bytes of a number that needs 16; raises DecimalOverflow where it is too
    great."""
    if not -LIMIT < units < LIMIT:
        raise DecimalOverflow(units)
    return 16
