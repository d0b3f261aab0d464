"""The key is found in every spelling that servers, proxies and libraries give it, and nothing else
is touched."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.ingest.producer_process import BadKey, api_key
from producers.vendor.secret import SHORTEST, Secret

KEYS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=SHORTEST, max_size=40)
SPELLINGS = (
    str,
    lambda each: f"%{ord(each):02x}",
    lambda each: f"%{ord(each):02X}",
    lambda each: f"%25{ord(each):02X}",
    lambda each: f"\\u00{ord(each):02x}",
    lambda each: f"\\u00{ord(each):02X}",
    lambda each: f"\\\\u00{ord(each):02x}",
    lambda each: f"\\{each}" if each in '"\\/' else each,
)


@pytest.mark.parametrize(
    ("key", "written"),
    [
        ("00000u", r"00000\u0075"),
        ("00000%", "00000%25"),
        ("00000%", "00000%2525"),
        ("00000\\", r"00000\\"),
    ],
)
def test_a_spelling_that_begins_with_the_character_itself_is_taken_out_whole(key, written):
    assert Secret(key).scrub(f"<{written}>") == "<***>"


@given(KEYS, st.data())
def test_every_spelling_is_taken_out_and_nothing_around_it(key, data):
    written = "".join(data.draw(st.sampled_from(SPELLINGS))(each) for each in key)
    assert Secret(key).scrub(f"<{written}>") == "<***>"
    assert Secret(key).scrub_frame(f"<{written}>".encode()) == b"<***>"


@given(KEYS, st.binary())
def test_what_has_no_key_is_left_as_it_is(key, frame):
    text = frame.decode("latin-1")
    if "\\" not in text and "%" not in text and key not in text:
        assert Secret(key).scrub_frame(frame) == frame


@given(KEYS)
def test_a_frame_stays_json(key):
    frame = json.dumps({"p": "1.5", "data": [key, f"is {key}!"]}).encode()
    assert json.loads(Secret(key).scrub_frame(frame)) == {"p": "1.5", "data": ["***", "is ***!"]}


def test_a_word_too_short_to_be_a_key_falsifies_no_price():
    assert Secret("5").scrub_frame(b'{"p":"1.5"}') == b'{"p":"1.5"}'
    assert Secret("").scrub("1.5") == "1.5"


def test_no_repr_shows_the_key():
    assert "s3cret-key" not in repr(Secret("s3cret-key"))


@pytest.mark.parametrize("key", ["5", "short", "with space", "clé-secrète", "line\nline-of-key"])
def test_what_cannot_be_a_key_is_refused_without_being_said(key, tmp_path):
    with pytest.raises(BadKey) as refused:
        api_key({"INFOWAY_API_KEY": key})
    assert key not in str(refused.value)
    (tmp_path / "key").write_text(key)
    with pytest.raises(BadKey, match="INFOWAY_API_KEY_FILE="):
        api_key({"INFOWAY_API_KEY_FILE": str(tmp_path / "key")})
