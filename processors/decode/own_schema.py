"""What the readers of columns share: which header values of our own schema have, and names in the
form that Avro has them in."""

import numpy as np

from processors.decode.messages import Messages
from processors.decode.reader import RawReader
from processors.kernels.columns import Array
from schemas.wire import UnreadableValue, compile_encoder

_HEADER = 5
_NO_HEADER = b"\xff" * _HEADER
"""Of no schema: what is read by it is not plain."""
_encode_origin = compile_encoder(
    {"fields": [{"name": name, "type": "string"} for name in ("business", "feed", "connection")]}, 0
)
_encode_source = compile_encoder({"fields": [{"name": "source", "type": "string"}]}, 0)


def origin_bytes(business: str, feed: str, connection: str) -> bytes:
    """Return what stands in a raw record for its origin."""
    return _encode_origin(business, feed, connection)[_HEADER:]


def source_bytes(source: str) -> Array:
    """Return what stands in a raw record for its source."""
    return np.frombuffer(_encode_source(source)[_HEADER:], np.uint8)


class OwnSchema:
    """The header of values that are written by the topic's own schema."""

    def __init__(self, reader: RawReader) -> None:
        self._reader = reader
        self._header: bytes | None = None

    def header(self, messages: Messages) -> Array:
        """Return the present header if a value has it; else the first one of ours that a value has,
        from now on. Before the first it is one that is of no schema."""
        if messages.value(0, _HEADER) != self._header:  # nearly all have it
            headers = dict.fromkeys(messages.beginnings(_HEADER))
            if self._header not in headers:
                self._header = next(filter(self._is_ours, headers), self._header)
        return np.frombuffer(self._header or _NO_HEADER, np.uint8)

    def _is_ours(self, header: bytes) -> bool:
        try:
            return self._reader.reads_as_ours(header)
        except UnreadableValue:
            return False
