"""What answers like no registry is named in one line, whatever it answers and whatever was
asked."""

import httpx
import pytest

from processors.decode.lookup import SchemaLookup
from schemas.clients.registry import Registry, RegistryError
from schemas.wire import UnreadableValue, schema_id_of

CALLS = {
    "register": lambda registry: registry.register("s", {}),
    "id_of": lambda registry: registry.id_of("s", {}),
    "latest_version": lambda registry: registry.latest_version("s"),
    "compatibility": lambda registry: registry.compatibility("s"),
    "refusal": lambda registry: registry.refusal("s", {}),
    "schema": lambda registry: registry.schema(1),
}
OK = (
    {},
    [],
    "x",
    1,
    True,
    ["x"],
    [{}],
    {"id": "x"},
    {"id": None},
    {"is_compatible": False, "messages": [1]},
)
CODES = ("x", [1], {"a": 1}, None)


def registry(status, answer):
    made = Registry("http://registry.invalid")
    response = httpx.Response(status, json=answer)
    made._http = httpx.Client(
        base_url=made.url, transport=httpx.MockTransport(lambda request: response)
    )
    return made


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("status", "answer"),
    [
        *((200, answer) for answer in OK),
        *((404, {"error_code": code}) for code in CODES),
        (302, {"schema": '"string"', "id": 1}),
    ],
    ids=str,
)
def test_what_is_no_answer_of_the_api_is_an_error_of_the_registry(call, status, answer):
    with pytest.raises(RegistryError) as caught:
        CALLS[call](registry(status, answer))
    assert "\n" not in str(caught.value)
    assert "registry" in str(caught.value)


def test_a_worker_waits_where_something_else_answers():
    assert "registry" in SchemaLookup(registry(200, {"status": "starting"})).ask({1})


def test_an_id_that_no_registry_can_have_is_not_asked_for():
    assert schema_id_of(b"\0\x7f\xff\xff\xff") == (1 << 31) - 1
    with pytest.raises(UnreadableValue, match="schema id of 2147483648"):
        schema_id_of(b"\0\x80\0\0\0")
