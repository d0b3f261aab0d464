"""Records as Parquet: one column a field, exact and typed by the Avro schema, and the place in Kafka; no reading of topics."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.wire import Record, Schema, logical_type

_TYPES = {
    "string": pa.string(),
    "int": pa.int32(),
    "long": pa.int64(),
    "boolean": pa.bool_(),
    "double": pa.float64(),
    "bytes": pa.binary(),
    "array": pa.list_(pa.string()),
    "timestamp-millis": pa.timestamp("ms", "UTC"),
    "timestamp-micros": pa.timestamp("us", "UTC"),
    "date": pa.date32(),
}


def table_of(schema: Schema, partition: int, rows: Sequence[tuple[int, Record]]) -> pa.Table:
    """Return offsets and physical records of a partition as a table: decimals as decimal128 of the schema's scale, times in UTC.

    A field that the writer's schema did not have yet takes its default, as in any Avro reader.
    """
    columns = {
        "kafka_partition": pa.array([partition] * len(rows), pa.int32()),
        "kafka_offset": pa.array([offset for offset, _ in rows], pa.int64()),
    }
    for field in schema["fields"]:
        name = field["name"]
        values = [record[name] if name in record else field["default"] for _, record in rows]
        columns[name] = _column(field["type"], values)
    return pa.table(columns)


def write(table: pa.Table, path: Path) -> None:
    """Write a file that is there whole or not at all, also after a power failure."""
    unfinished = path.with_suffix(".part")
    with unfinished.open("wb") as file:
        pq.write_table(table, file, compression="zstd")
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read(path: Path) -> pa.Table:
    """Return what write() wrote."""
    return pq.ParquetFile(path).read()


def merged(before: pa.Table, after: pa.Table, identity: Sequence[str]) -> pa.Table:
    """Return the last row of each identity: those of `after`, and those of `before` that none of them replaces."""
    last = {key: place for place, key in enumerate(_keys(after, identity))}
    kept = [key not in last for key in _keys(before, identity)]
    rows = [before.filter(pa.array(kept, pa.bool_())), after.take(pa.array(list(last.values()), pa.int64()))]
    # a field that came to the schema since is null in what was written before
    return pa.concat_tables(rows, promote_options="default")


def _keys(table: pa.Table, identity: Sequence[str]) -> list[tuple[Any, ...]]:
    return list(zip(*(table.column(name).to_pylist() for name in identity), strict=True))


def _column(avro_type: Any, values: Sequence[Any]) -> pa.Array:
    inner = avro_type[1] if isinstance(avro_type, list) else avro_type
    logical = logical_type(inner)
    if logical == "decimal":
        return _decimals(inner["precision"], inner["scale"], values)
    physical = inner["type"] if isinstance(inner, dict) else inner
    found = pa.array(values, _TYPES[physical])
    return cast(pa.Array, found.cast(_TYPES[logical]) if logical else found)


def _decimals(precision: int, scale: int, units: Sequence[int | None]) -> pa.Array:
    # by their bytes: Python's Decimal would round to its context, and costs ten times as much
    words = pa.array([None if each is None else each.to_bytes(16, "little", signed=True) for each in units], pa.binary(16))
    return pa.Array.from_buffers(pa.decimal128(precision, scale), len(words), words.buffers())
