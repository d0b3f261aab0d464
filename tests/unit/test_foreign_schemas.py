"""Values of schemas that others wrote: read as fastavro reads them, within bounds, and nothing of
them is executed."""

import contextlib
import io
import json
import math
import tracemalloc
from datetime import date

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.decimals import to_units
from schemas.foreign.reader import MOST_VALUES, resolving_decoder, showing_decoder
from schemas.foreign.types import MOST_DEPTH, MOST_TYPES, UnreadableSchema, parse
from schemas.foreign.versions import decoder_of, ours_named, shown_by
from schemas.topics import load_example, load_schema
from schemas.wire import (
    UnreadableValue,
    compile_decoder,
    compile_encoder,
    header,
    logical_type,
    to_json,
)

TRADE = load_schema("raw_trade")
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=20,
)


def wire(body: bytes) -> bytes:
    return header(9) + body


def long(number: int) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, "long", number)
    return out.getvalue()


@st.composite
def schemas(draw, counter=None, depth=0):
    """Any schema that Avro allows, each name its own."""
    counter = counter if counter is not None else [0]
    counter[0] += 1
    simple = ["null", "boolean", "int", "long", "double", "bytes", "string"]
    kinds = [*simple, "fixed", "enum"] + (["array", "map", "record", "union"] if depth < 3 else [])
    kind = draw(st.sampled_from(kinds))
    name = f"N{counter[0]}"
    if kind in simple:
        return kind
    if kind == "fixed":
        return {"type": "fixed", "name": name, "size": draw(st.integers(0, 5))}
    if kind == "enum":
        return {
            "type": "enum",
            "name": name,
            "symbols": draw(st.lists(NAMES, min_size=1, max_size=4, unique=True)),
        }
    inner = schemas(counter, depth + 1)
    if kind == "array":
        return {"type": "array", "items": draw(inner)}
    if kind == "map":
        return {"type": "map", "values": draw(inner)}
    if kind == "union":
        branches = draw(st.lists(st.sampled_from(simple), min_size=1, max_size=3, unique=True))
        more = draw(inner)
        return branches + ([more] if isinstance(more, dict) else [])
    fields = [
        {"name": each, "type": draw(inner)}
        for each in draw(st.lists(NAMES, max_size=4, unique=True))
    ]
    return {"type": "record", "name": name, "fields": fields}


def values(schema):
    if isinstance(schema, list):
        return st.sampled_from(schema).flatmap(
            lambda branch: values(branch).map(lambda value: (_name(branch), value))
        )
    kind = schema if isinstance(schema, str) else schema["type"]
    if kind == "record":
        return st.fixed_dictionaries(
            {field["name"]: values(field["type"]) for field in schema["fields"]}
        )
    if kind == "array":
        return st.lists(values(schema["items"]), max_size=3)
    if kind == "map":
        return st.dictionaries(st.text(max_size=4), values(schema["values"]), max_size=3)
    if kind == "enum":
        return st.sampled_from(schema["symbols"])
    if kind == "fixed":
        return st.binary(min_size=schema["size"], max_size=schema["size"])
    return {
        "null": st.none(),
        "boolean": st.booleans(),
        "int": st.integers(-(2**31), 2**31 - 1),
        "long": st.integers(-(2**63), 2**63 - 1),
        "double": st.floats(allow_nan=False),
        "bytes": st.binary(max_size=20),
        "string": st.text(max_size=8),
    }[kind]


def _name(branch):
    return branch if isinstance(branch, str) else branch.get("name", branch["type"])


def shown(value):
    """Return what fastavro has read as our JSON shows it."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, list):
        return [shown(each) for each in value]
    return {key: shown(each) for key, each in value.items()} if isinstance(value, dict) else value


@given(st.data())
def test_a_value_of_any_schema_is_shown_as_fastavro_reads_it(data):
    schema = data.draw(schemas())
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), data.draw(values(schema)))
    read = fastavro.schemaless_reader(
        io.BytesIO(out.getvalue()), fastavro.parse_schema(schema), None
    )
    found = shown_by(schema)(wire(out.getvalue()))
    assert found == shown(read)
    json.dumps(found)


@given(st.data())
def test_what_is_walked_over_is_read_by_fastavro_to_the_same_end(data):
    """A value with some bytes changed: unreadable, or what fastavro reads of the same bytes, and
    all of them."""
    schema = data.draw(schemas())
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), data.draw(values(schema)))
    body = bytearray(out.getvalue())
    for place in data.draw(st.lists(st.integers(0, max(len(body) - 1, 0)), max_size=2)):
        body[place : place + 1] = data.draw(st.binary(max_size=2))
    try:
        found = shown_by(schema)(wire(bytes(body)))
    except UnreadableValue:
        return
    source = io.BytesIO(body)
    read = fastavro.schemaless_reader(source, fastavro.parse_schema(schema), None)
    assert (repr(found), source.tell()) == (repr(shown(read)), len(body))


@given(st.data(), st.binary(max_size=200))
def test_any_bytes_under_any_schema_are_a_value_or_unreadable(data, noise):
    with contextlib.suppress(UnreadableValue):
        shown_by(data.draw(schemas()))(wire(noise))


@given(
    JSON
    | st.fixed_dictionaries(
        {"type": JSON, "name": JSON, "fields": JSON, "symbols": JSON, "items": JSON, "size": JSON}
    )
)
def test_any_json_is_a_schema_or_refused(schema):
    with contextlib.suppress(UnreadableSchema):
        parse(schema)


@given(st.data())
def test_any_schema_beside_ours_is_read_as_ours_or_refused(data):
    """Fields of ours with types of others, fields of others, fields that are missing."""
    fields = []
    for field in TRADE["fields"]:
        change = data.draw(st.sampled_from(["keep", "keep", "keep", "drop", "other"]))
        if change != "drop":
            fields.append(
                field
                if change == "keep"
                else {**field, "type": data.draw(schemas([100 * len(fields)]))}
            )
    fields.append({"name": "more", "type": data.draw(schemas([5000]))})
    try:
        decode = decoder_of({**TRADE, "fields": fields}, TRADE)
        record = decode(wire(data.draw(st.binary(max_size=100))))
    except UnreadableValue:
        return
    assert list(record) == [field["name"] for field in TRADE["fields"]]


EXAMPLE = load_example("raw_trade")
PROMOTED = {
    "an int for a long": ("sequence", "int", "sequence"),
    "bytes for a string": ("price", "bytes", "price"),
    "a nullable for what is none": ("feed", ["null", "string"], "feed"),
    "no null for a nullable": ("turnover", "string", "turnover"),
    "another order of the branches": ("turnover", ["string", "null"], "turnover"),
    "an enum more": ("more", {"type": "enum", "name": "E", "symbols": ["A", "B"]}, None),
}


@pytest.mark.parametrize("change", PROMOTED)
def test_another_version_is_resolved_as_fastavro_resolves_it(change):
    name, avro_type, _ = PROMOTED[change]
    known = [field["name"] for field in TRADE["fields"]]
    fields = [
        {**field, "type": avro_type} if field["name"] == name else field
        for field in TRADE["fields"]
    ]
    if name not in known:
        fields.append({"name": name, "type": avro_type})
    fields = [{key: field[key] for key in ("name", "type")} for field in reversed(fields)]
    fields = [plain(field) for field in fields]
    value = {**EXAMPLE, "more": "B"}
    if avro_type == "bytes":
        value[name] = value[name].encode()
    writer = {**TRADE, "fields": fields}
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(writer), value)
    ours = {**TRADE, "fields": [plain(field) for field in TRADE["fields"]]}
    expected = fastavro.schemaless_reader(
        io.BytesIO(out.getvalue()), fastavro.parse_schema(writer), fastavro.parse_schema(ours)
    )
    assert decoder_of(writer, TRADE)(wire(out.getvalue())) == expected == EXAMPLE


def plain(field):
    """Return a field whose times are numbers, as we keep them."""
    avro_type = field["type"]
    physical = (
        avro_type["type"]
        if isinstance(avro_type, dict) and "logicalType" in avro_type
        else avro_type
    )
    return {**field, "type": physical}


@pytest.mark.parametrize("name", ["raw_trade", "raw_depth", "raw_kline", "bar", "vwap"])
def test_what_is_interpreted_is_what_is_compiled(name):
    schema = load_schema(name)
    example = load_example(name)
    encoded = compile_encoder(schema, 9)
    physical = _physical(schema, example)
    value = encoded(*physical)
    record = compile_decoder(schema)(value)
    assert resolving_decoder(parse(schema), schema)(value) == record
    assert showing_decoder(parse(schema))(value) == to_json(schema, record) == example


def _physical(schema, example):
    for field in schema["fields"]:
        value, logical = example[field["name"]], logical_type(field["type"])
        if value is not None and logical == "decimal":
            value = to_units(value)
        if value is not None and logical == "date":
            value = (date.fromisoformat(value) - date(1970, 1, 1)).days
        yield value


@pytest.mark.parametrize(
    "change",
    [
        {"type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"type": {"type": "map", "values": "long"}},
        {"type": ["null", "int", {"type": "array", "items": "long"}]},
        {"type": {"type": "record", "name": "RawTrade2", "fields": []}},
        {"type": "RawTrade"},
        {"type": {"type": "fixed", "name": "F", "size": 8}},
    ],
    ids=str,
)
def test_a_time_of_another_unit_or_another_type_is_no_time_of_ours(change):
    fields = [
        {**field, **change} if field["name"] == "ts_event" else field for field in TRADE["fields"]
    ]
    decodes = None
    try:
        decodes = decoder_of({**TRADE, "fields": fields}, TRADE)
    except UnreadableSchema as error:
        assert "ts_event" in str(error)
    if decodes is not None:
        with pytest.raises(UnreadableValue):
            decodes(compile_encoder(TRADE, 9)(*EXAMPLE.values()))


def test_a_decimal_of_another_scale_is_another_number():
    vwap = load_schema("vwap")
    fields = json.loads(json.dumps(vwap["fields"]).replace('"scale": 18', '"scale": 9'))
    assert fields != vwap["fields"]
    with pytest.raises(UnreadableSchema, match=r"decimal\(38,9\), and is bytes decimal\(38,18\)"):
        decoder_of({**vwap, "fields": fields}, vwap)


ATTACK = "x[__import__('pathlib').Path('{path}').write_text('run')]"


READERS = [
    lambda schema: decoder_of(schema, TRADE),
    shown_by,
    ours_named,
    compile_decoder,
    lambda schema: compile_encoder(schema, 1),
]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    "name",
    [ATTACK, "x: 0}\n    __import__('os')\n", "x', 1)", "", "a b", "a" * 300, "é", None, 7, ["x"]],
)
def test_a_name_is_never_code(read, name, tmp_path):
    witness = tmp_path / "witness"
    name = name.replace("{path}", str(witness)) if isinstance(name, str) else name
    schema = {
        "type": "record",
        "name": "RawTrade",
        "fields": [{"name": "x", "type": "int"}, {"name": name, "type": "int"}],
    }
    with contextlib.suppress(ValueError, TypeError):
        read(schema)(wire(b"\2\2"))
    assert not witness.exists()


@pytest.mark.parametrize(
    "schema",
    [
        "none",
        7,
        [["null", "int"]],
        ["null", ["int", "null"]],
        {},
        {"type": None},
        {"type": "array"},
        {"type": "fixed", "name": "F", "size": -1},
        {"type": "fixed", "name": "F", "size": True},
        {"type": "enum", "name": "E", "symbols": ["\x1b[31m"]},
        {"type": "record", "name": "R"},
        {"type": "record", "name": "R", "fields": [{"name": "x", "type": "int"}] * 2},
        {
            "type": "record",
            "name": "R",
            "fields": [{"name": f"f{n}", "type": "int"} for n in range(MOST_TYPES)],
        },
    ],
    ids=lambda schema: str(schema)[:40],
)
def test_a_schema_that_is_none_is_refused(schema):
    with pytest.raises(UnreadableSchema):
        parse(schema)


def test_a_schema_nested_without_end_is_refused():
    schema = "int"
    for _ in range(100_000):
        schema = {"type": "array", "items": schema}
    with pytest.raises(UnreadableSchema, match="nested deeper"):
        parse(schema)
    nested = "int"
    for _ in range(MOST_DEPTH):
        nested = {"type": "array", "items": nested}
    parse(nested)


LIST = {"type": "record", "name": "L", "fields": [{"name": "next", "type": ["null", "L"]}]}
NOTHING = {"type": "record", "name": "Nothing", "fields": [{"name": "n", "type": "null"}]}
ENDLESS = {"type": "record", "name": "E", "fields": [{"name": "e", "type": "E"}]}


@pytest.mark.parametrize(
    ("schema", "body"),
    [
        ({"type": "array", "items": "null"}, long(1 << 60) + b"\0"),
        ({"type": "array", "items": "null"}, long(-(1 << 60)) + long(0) + b"\0"),
        ({"type": "array", "items": "null"}, long(-(1 << 63)) + long(-1) + b"\0"),
        ({"type": "array", "items": "null"}, (long(100) + b"") * 2_000 + b"\0"),
        ({"type": "array", "items": NOTHING}, long(1 << 40) + b"\0"),
        (
            {"type": "array", "items": {"type": "fixed", "name": "F", "size": 0}},
            long(1 << 40) + b"\0",
        ),
        ({"type": "array", "items": {"type": "array", "items": "null"}}, (long(99) * 99)),
        ({"type": "map", "values": "null"}, long(1 << 60) + b"\0"),
        ({"type": "fixed", "name": "F", "size": 1 << 62}, b"x"),
        ("string", long(1 << 62) + b"x"),
        ("string", long(-5) + b"x"),
        ("string", long(2) + b"\xff\xff"),
        ("bytes", long(-1)),
        ("long", b"\xff" * 11),
        ("long", b"\xff" * 1_000_000),
        ("long", b"\xff" * 9 + b"\x7f"),
        ("int", long(1 << 31)),
        ("boolean", b"\2"),
        ({"type": "enum", "name": "E", "symbols": ["A"]}, long(1)),
        ({"type": "enum", "name": "E", "symbols": ["A"]}, long(-1)),
        (["null", "int"], long(2)),
        (["null", "int"], long(-1)),
        ([], long(0)),
        (LIST, b"\2" * 100_000 + b"\0"),
        (ENDLESS, b""),
        ("null", b"x"),
        ("double", b"1234567"),
    ],
    ids=lambda each: repr(each)[:40],
)
def test_a_value_costs_no_more_than_its_bytes(schema, body):
    for decode in (shown_by(schema), decoder_of(_beside(schema), load_schema("progress"))):
        value = wire(body if decode is not None else b"")
        tracemalloc.start()
        try:
            with pytest.raises(UnreadableValue):
                decode(value)
            assert tracemalloc.get_traced_memory()[1] < 20_000_000 + 20 * len(value)
        finally:
            tracemalloc.stop()


def _beside(schema):
    """Return a version of ours that begins with a field of this type, which is passed over."""
    progress = load_schema("progress")
    return {**progress, "fields": [{"name": "foreign", "type": schema}, *progress["fields"]]}


def test_no_attribute_of_a_stranger_reaches_fastavro():
    field = {
        "name": "x",
        "type": {"type": "string", "logicalType": "uuid"},
        "default": 7,
        "aliases": [7],
    }
    schema = {
        "type": "record",
        "name": "R",
        "aliases": 7,
        "__fastavro_parsed": True,
        "__named_schemas": {"R": "int"},
        "fields": [
            field,
            {"name": "y", "type": {"type": "long", "logicalType": "infoway-refused"}},
            {"name": "z", "type": {"type": "bytes", "logicalType": "infoway-units"}},
            {"name": "t", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        ],
    }
    assert shown_by(schema)(wire(b"\2u\4\2\7\6")) == {"x": "u", "y": 2, "z": "07", "t": 3}


def test_a_name_means_what_its_namespace_says():
    """`X` and `a.X` are two types, one inside the other's namespace."""
    inner = {"type": "enum", "name": "X", "namespace": "", "symbols": ["outer"]}
    other = {"type": "enum", "name": "X", "symbols": ["a"]}
    types = {"p": inner, "q": other, "r": "X", "s": "a.X"}
    fields = [{"name": name, "type": each} for name, each in types.items()]
    schema = {"type": "record", "name": "a.R", "fields": fields}
    assert shown_by(schema)(wire(b"\0\0\0\0")) == {"p": "outer", "q": "a", "r": "a", "s": "a"}


def test_a_block_that_says_its_size_has_that_size():
    read = shown_by({"type": "array", "items": "int"})
    assert read(wire(long(-2) + long(2) + b"\2\4\0")) == [1, 2]
    with pytest.raises(UnreadableValue, match="of another size than it says"):
        read(wire(long(-2) + long(3) + b"\2\4\0"))


def test_a_branch_that_ours_cannot_have_is_refused_where_it_is_written():
    schema = load_schema("bar")
    micros = ["null", {"type": "long", "logicalType": "timestamp-micros"}]
    fields = [
        {**each, "type": micros} if each["name"] == "ts_first" else each
        for each in schema["fields"]
    ]
    read = decoder_of({**schema, "fields": fields}, schema)
    row = dict(zip(load_example("bar"), _physical(schema, load_example("bar")), strict=True))
    encode = compile_encoder(schema, 9)
    none = {**row, "ts_first": None}
    assert read(encode(*none.values())) == none
    with pytest.raises(UnreadableValue, match="a long in a union, which ours cannot have there"):
        read(encode(*{**row, "ts_first": 5}.values()))


def test_as_many_values_as_bytes_are_read():
    many = shown_by({"type": "array", "items": "int"})(wire(long(50_000) + b"\2" * 50_000 + b"\0"))
    assert many == [1] * 50_000
    with pytest.raises(UnreadableValue, match=str(MOST_VALUES)):
        shown_by({"type": "array", "items": "int"})(wire(long(200_000) + b"\2" * 200_000 + b"\0"))


def test_numbers_beyond_their_type_are_refused_by_what_is_compiled_too():
    progress = load_schema("progress")
    decode = compile_decoder(progress)
    good = compile_encoder(progress, 9)(3, "stock-1", 5, 7)
    assert decode(good)["partition"] == 3
    feed = b"\x0estock-1"
    for partition, watermark in (
        (long(1 << 31), long(5)),
        (long(3), b"\xff" * 9 + b"\x7f"),
        (long(3), b"\xff" * 500 + b"\1"),
    ):
        with pytest.raises(UnreadableValue):
            decode(wire(partition + feed + watermark + long(7)))


def test_json_shows_what_no_calendar_has():
    schema = {"type": "int", "logicalType": "date"}
    assert shown_by(schema)(wire(long(19_000))) == "2022-01-08"
    assert shown_by(schema)(wire(long(2**31 - 1))) == 2**31 - 1
    assert shown_by("double")(wire(b"\0\0\0\0\0\0\xf8\x7f")) == "nan"
    decimal = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}
    assert [shown_by(decimal)(wire(body)) for body in (b"\2\x05", b"\2\xfb", b"\0")] == [
        "0.05",
        "-0.05",
        "0",
    ]
    assert shown_by(decimal)(wire(long(100) + b"\7" * 100)) == "07" * 100
