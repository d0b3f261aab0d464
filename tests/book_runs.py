"""Books in columns, as the data plane gives them to the agent, and the rows that come back."""

from raw_message import Message

from processors.decode.book_columns import BookColumns
from processors.decode.messages import Messages
from processors.decode.raw_records import book_of
from processors.decode.reader import RawReader
from processors.kernels.books.run import BookRun
from processors.kernels.columns import EncodedRows
from schemas.clients.registry import UnknownSchema
from schemas.topics import load_schema
from schemas.wire import DecimalOverflow, compile_encoder

RAW_ID, ROW_ID = 1, 2
encode_raw = compile_encoder(load_schema("raw_depth"), RAW_ID)
encode_row = compile_encoder(load_schema("depth_imbalance"), ROW_ID)


class Schemas:
    """A registry that knows the schema of raw books alone."""

    def schema(self, schema_id):
        if schema_id != RAW_ID:
            raise UnknownSchema(f"no schema {schema_id}")
        return load_schema("raw_depth")


read_singly = RawReader(Schemas(), load_schema("raw_depth"), book_of)


def columns():
    return BookColumns(read_singly)


def in_columns(read, messages, source="live"):
    """Return messages as the data plane gives them: runs, and what Python reads; what is no message
    stands for itself."""
    found, run = [], []
    for message in (*messages, None):
        if isinstance(message, Message):
            run.append(message)
            continue
        for piece in read.read(Messages.of(run), source):
            found.append(piece if isinstance(piece, BookRun) else read_singly(run[piece]))
        run = []
        if message is not None:
            found.append(message)
    return found


def bodies(rows):
    """Return (topic, key, Avro body) of plain and encoded rows; of one that its schema cannot hold
    the row."""
    found = []
    for row in rows:
        if isinstance(row, EncodedRows):
            found += row.bodies()
            continue
        topic, key, record = row
        try:
            found.append((topic, key, encode_row(*record)[5:]))
        except DecimalOverflow:
            found.append(row)
    return found
