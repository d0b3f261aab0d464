"""Encoded rows become the records that plain rows become."""

import numpy as np

from processors.engine.outputs import Outputs
from processors.kernels.columns import HEADER, EncodedRows
from schemas.decimals import to_units
from schemas.topics import Topology, load_example, load_schema
from schemas.wire import logical_type


def test_encoded_rows_become_the_records_that_rows_become():
    names = Topology(windows=("1m", "session"))
    ids = {topic.name: at for at, topic in enumerate(names.derived(), 257)}
    outputs = Outputs.of(names, ids)
    decimals = {
        field["name"]
        for field in load_schema("vwap")["fields"]
        if logical_type(field["type"]) == "decimal"
    }
    example = tuple(
        to_units(value) if name in decimals else value
        for name, value in load_example("vwap").items()
    )
    places = [("infoway.vwap.1m", "A"), ("infoway.vwap.session", "B"), ("infoway.vwap.1m", "B")]
    rows = [(name, key, example) for name, key in places]
    want = [outputs.encode(name, 3, key, row, "source") for name, key, row in rows]
    bodies = [bytes(HEADER) + value[HEADER:] for _, _, _, value in want]
    packed = outputs.packed(
        EncodedRows(
            ("infoway.vwap.1m", "infoway.vwap.session"),
            np.array([0, 1, 0], np.int8),
            ["A", "B"],
            [b"A", b"B"],
            np.array([0, 1, 1], np.int32),
            np.cumsum([len(body) for body in bodies]),
            np.frombuffer(bytearray(b"".join(bodies)), np.uint8),
        )
    )
    starts = [0, *packed.ends[:-1]]
    assert want == [
        (packed.topics[topic], 3, packed.keys[key], packed.values[start:end])
        for topic, key, start, end in zip(
            packed.topic_of, packed.key_of, starts, packed.ends, strict=True
        )
    ]
