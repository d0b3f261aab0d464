"""Reads the rows that kernels have encoded, so that tests of an agent run over both paths."""

from functools import cache

from processors.kernels.columns import EncodedRows
from schemas import records
from schemas.topics import load_schema
from schemas.wire import DecimalOverflow, compile_decoder, compile_encoder

SCHEMAS = {"infoway.progress": "progress", "infoway.late": "late_trade"}
RECORDS = {
    "progress": records.ProgressRecord,
    "late_trade": records.LateTradeRecord,
    "activity_bar": records.ActivityBarRecord,
    "bar": records.BarRecord,
}


def schema_of(topic):
    is_activity = any(kind in topic for kind in ("tick-", "volume-", "turnover-"))
    return SCHEMAS.get(topic, "activity_bar" if is_activity else "bar")


@cache
def decoder_of(topic):
    schema = schema_of(topic)
    return compile_decoder(load_schema(schema), RECORDS[schema])


def plain(rows):
    """Return the rows as the general path gives them."""
    found = []
    for row in rows:
        if isinstance(row, EncodedRows):
            for topic, key, body in row.bodies():
                found.append((topic, key, decoder_of(topic)(b"\0\0\0\0\1" + body)))
        else:
            found.append(row)
    return found


@cache
def encoder_of(topic):
    return compile_encoder(load_schema(schema_of(topic)), 1)


def bodies(rows):
    """Return (topic, key, Avro body) of plain and of encoded rows."""
    found = []
    for row in rows:
        if isinstance(row, EncodedRows):
            found += row.bodies()
        else:
            topic, key, record = row
            try:
                body = encoder_of(topic)(*record)[5:]
            except DecimalOverflow:  # the engine makes a dead letter of it, with these numbers
                body = record
            found.append((topic, key, body))
    return found
