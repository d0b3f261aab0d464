"""Records as Parquet: one column a field, exact and typed by the Avro schema, and the place in
Kafka; no reading of topics."""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from schemas.wire import Fields, Schema, logical_type

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


def table_of(schema: Schema, partition: int, rows: Sequence[tuple[int, Fields]]) -> pa.Table:
    """Return offsets and physical records of a partition as a table: decimals as decimal128 of the
    schema's scale, times in UTC.

    A field that the writer's schema did not have yet takes its default, as in any Avro reader.
    """
    columns = {
        "kafka_partition": pa.array([partition] * len(rows), pa.int32()),
        "kafka_offset": pa.array([offset for offset, _ in rows], pa.int64()),
    }
    for field in schema["fields"]:
        name = field["name"]
        values = [record[name] if name in record else _default(field) for _, record in rows]
        columns[name] = _column(field["type"], values)
    return pa.table(columns)


def write(table: pa.Table, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a table and texts about it into a file, to the disk."""
    with path.open("wb") as file:
        pq.write_table(table.replace_schema_metadata(dict(metadata)), file, compression="zstd")
        file.flush()
        os.fsync(file.fileno())


def put(written: Path, path: Path) -> None:
    """Give a written file its name, in place of the file that has it: there is one of both at any
    time, also after a power failure."""
    written.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def metadata(path: Path) -> dict[str, str]:
    """Return the texts that write() was given. Raises ValueError where the file is no Parquet."""
    return {
        name.decode(): text.decode() for name, text in (pq.read_schema(path).metadata or {}).items()
    }


def read(path: Path, schema: Schema) -> pa.Table:
    """Return the table of a file; a field that the schema has got since has its default."""
    table = pq.ParquetFile(path).read().replace_schema_metadata(None)
    for field in schema["fields"]:
        if field["name"] not in table.column_names:
            table = table.append_column(
                field["name"], _column(field["type"], [_default(field)] * len(table))
            )
    return table


def write_csv(table: pa.Table, path: Path) -> None:
    """Write a table as CSV, in one step: decimals with all their digits, times as ISO 8601 in UTC,
    bytes as hex, lists as JSON; null is empty, and text is in quotes."""
    columns = [_as_text(table.column(name)) for name in table.column_names]
    partial = path.with_name(f"{path.name}.part")
    with partial.open("wb") as file:
        pcsv.write_csv(pa.table(columns, names=table.column_names), file)
        file.flush()
        os.fsync(file.fileno())
    put(partial, path)


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_timestamp(kind):
        return pc.strftime(column, "%Y-%m-%dT%H:%M:%SZ")
    if pa.types.is_date(kind):
        return column.cast(pa.string())
    show: Callable[[Any], str]
    if pa.types.is_decimal(kind):
        # a cast would write 1E-18
        show = "{:f}".format
    elif pa.types.is_list(kind):
        show = json.dumps
    elif pa.types.is_binary(kind):
        show = bytes.hex
    else:
        return column
    texts = [None if each is None else show(each) for each in column.to_pylist()]
    return pa.chunked_array([pa.array(texts, pa.string())])


def within(table: pa.Table, field: str, start: datetime | None, end: datetime | None) -> pa.Table:
    """Return the rows whose time is at or after `start` and before `end`."""
    for bound, holds in ((start, pc.greater_equal), (end, pc.less)):
        if bound is not None:
            kind = table.schema.field(field).type
            table = table.filter(holds(table[field], pa.scalar(bound, kind)))
    return table


def together(tables: Sequence[pa.Table]) -> pa.Table:
    """Return the rows of the tables, in their order."""
    return pa.concat_tables(tables, promote_options="default")


def last_rows(tables: Iterable[pa.Table], identity: Sequence[str]) -> pa.Table:
    """Return one row of each identity, the one of the greatest offset; all tables are of one
    partition."""
    table = pa.concat_tables(tables, promote_options="default")
    last = table.group_by(list(identity)).aggregate([("kafka_offset", "max")])
    return table.filter(pc.is_in(table["kafka_offset"], last["kafka_offset_max"].combine_chunks()))


def in_two_files(paths: Iterable[Path], identity: Sequence[str]) -> dict[str, Any] | None:
    """Return an identity that has a row in more than one of the files, each of which has one row of
    each; None where there is none."""
    files = [pq.ParquetFile(path) for path in paths]
    if not files:
        return None
    symbols = pa.concat_tables(
        [_distinct(file.read([identity[0]]), identity[:1]) for file in files]
    )
    # nearly always there is none, and the other columns are not read
    shared = _repeated(symbols, identity[:1])
    if not len(shared):
        return None
    tables = [file.read(list(identity)) for file in files]
    suspects = pa.concat_tables(
        [
            table.filter(pc.is_in(table[identity[0]], shared[identity[0]].combine_chunks()))
            for table in tables
        ]
    )
    return cast(
        "dict[str, Any] | None", next(iter(_repeated(suspects, identity).to_pylist()), None)
    )


def _distinct(table: pa.Table, columns: Sequence[str]) -> pa.Table:
    return table.group_by(list(columns)).aggregate([])


def _repeated(table: pa.Table, columns: Sequence[str]) -> pa.Table:
    counted = table.group_by(list(columns)).aggregate([([], "count_all")])
    return counted.filter(pc.greater(counted["count_all"], 1)).select(list(columns))


def _default(field: Mapping[str, Any]) -> Any:
    """Return the physical value of a field's default; that of a nullable field is null."""
    default, avro_type = field["default"], field["type"]
    if logical_type(avro_type) == "decimal" and default is not None:
        # in a schema bytes are written as characters of their values
        return int.from_bytes(default.encode("latin-1"), "big", signed=True)
    return default.encode("latin-1") if avro_type == "bytes" else default


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
    words = pa.array(
        [None if each is None else each.to_bytes(16, "little", signed=True) for each in units],
        pa.binary(16),
    )
    return pa.Array.from_buffers(pa.decimal128(precision, scale), len(words), words.buffers())
