"""What a record at the end of a raw topic tells of its feed's life, whatever the record is."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from raw_message import Message

from infra.ingest import healing
from infra.ingest.healing import _last_alive, _sign_of_life
from infra.ingest.spooling import _sequence_of
from schemas.clients.registry import UnknownSchema
from schemas.control import HELD_BACK_MS, Control
from schemas.wire import UnreadableValue


def message(value, control=None, key=None):
    return Message(0, value, key, control and control.headers())


def control(kind):
    return Control(kind, "crypto-1", "crypto", "c", "live", 7, 7_000)


def raising(error):
    def read(value):
        raise error

    return read


def test_a_record_and_a_mark_tell_when_their_feed_lived():
    assert _sign_of_life(message(b"x"), lambda value: ({}, {"feed": "crypto-1", "ts_recv": 5})) == (
        "crypto-1",
        5,
    )
    assert _sign_of_life(message(None, control("mark")), None) == ("crypto-1", 7_000)


def test_a_heal_is_no_sign_of_the_feed():
    assert _sign_of_life(message(None, control("heal")), None) is None


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
    assert _sign_of_life(message(b"x"), read) is None
    assert _sequence_of(b"x", read) is None
    assert _sign_of_life(message(None), read) is None


def test_a_key_that_is_no_text_stops_no_start(monkeypatch):
    log = {
        "raw": [message(None, control("mark"), b"\xff"), message(None, control("begin"), b"A")],
        "status": [],
    }
    monkeypatch.setattr(healing, "read_to_end", lambda bootstrap, topic, last=None: log[topic])
    names = SimpleNamespace(name={healing.FEED_STATUS: "status", healing.RAW_TRADE: "raw"}.get)
    lives, carriers = _last_alive(
        SimpleNamespace(bootstrap="", registry_url="http://registry.invalid", topology=names)
    )
    assert lives == {(0, "crypto-1"): 7}
    assert carriers["A"] == "crypto-1"


def test_healing_goes_back_as_far_as_the_gap_of_a_producer_that_was_killed(monkeypatch):
    lives = {(0, "crypto-1"): 700_000, (None, "crypto-2"): 800_000}
    monkeypatch.setattr(healing, "_last_alive", lambda deployment: (lives, {"A": "crypto-2"}))
    made = []
    monkeypatch.setattr(healing, "Healer", lambda *facts: made.append(facts))
    deployment = SimpleNamespace(partitions={healing.RAW_TRADE: 1})
    healing.healing(deployment, "http://rest.invalid", "key", Path("memory"))(sink=None)
    last_alive_ms = made[0][2]
    assert last_alive_ms("crypto-1", "B") == 700_000 - HELD_BACK_MS
    assert last_alive_ms("crypto-9", "A") == 800_000 - HELD_BACK_MS
    assert last_alive_ms("crypto-9", "B") is None
