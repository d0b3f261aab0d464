"""What a record at the end of a raw topic tells of its feed's life, whatever the record is."""

import pytest

from infra.backfill import _sign_of_life
from infra.spooling import _place_of
from schemas.control import Control
from schemas.registry import UnknownSchema
from schemas.wire import UnreadableValue


class Message:
    def __init__(self, value, control=None):
        self._value, self._control = value, control

    def value(self):
        return self._value

    def headers(self):
        return self._control and self._control.headers()


def control(kind):
    return Control(kind, "crypto-1", "crypto", "c", "live", 7, 7_000)


def raising(error):
    def read(value):
        raise error

    return read


def test_a_record_and_a_mark_tell_when_their_feed_lived():
    assert _sign_of_life(Message(b"x"), lambda value: ({}, {"feed": "crypto-1", "ts_recv": 5})) == (
        "crypto-1",
        5,
    )
    assert _sign_of_life(Message(None, control("mark")), None) == ("crypto-1", 7_000)


def test_a_heal_is_no_sign_of_the_feed():
    assert _sign_of_life(Message(None, control("heal")), None) is None


@pytest.mark.parametrize(
    "read",
    [
        raising(UnknownSchema("denied")),
        raising(UnreadableValue("torn")),
        lambda value: ({}, {"other": 1}),
    ],
    ids=["id", "bytes", "fields"],
)
def test_what_cannot_be_read_tells_nothing_and_stops_nobody(read):
    assert _sign_of_life(Message(b"x"), read) is None
    assert _place_of(b"x", read) is None
    assert _sign_of_life(Message(None), read) is None
