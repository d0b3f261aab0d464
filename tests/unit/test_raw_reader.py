"""What becomes of a message that names a schema which the registry denies, or cannot be asked for."""

import httpx
import pytest

from processors.decode import trade_of
from processors.raw import RawReader
from processors.records import Unreadable
from schemas.registry import Registry, RegistryError


class Message:
    def offset(self):
        return 7

    def key(self):
        return b"A"

    def value(self):
        return b"\0\0\0\xff\xffnoise"

    def headers(self):
        return None


def reader(answer):
    registry = Registry("http://registry.invalid/apis/ccompat/v7")
    registry._http = httpx.Client(base_url=registry.url, transport=httpx.MockTransport(answer))
    return RawReader(registry, trade_of)


def test_an_id_that_the_registry_denies_makes_a_dead_letter():
    record = reader(lambda request: httpx.Response(404, json={"error_code": 40403}))(Message())
    assert isinstance(record, Unreadable)
    assert (record.error_class, record.value) == ("UnknownSchema", Message().value())
    assert "schemas/ids/65535" in record.error_text


@pytest.mark.parametrize("status", [500, 503, 401])
def test_a_registry_that_does_not_answer_is_no_reason_for_a_dead_letter(status):
    with pytest.raises(RegistryError):
        reader(lambda request: httpx.Response(status))(Message())
