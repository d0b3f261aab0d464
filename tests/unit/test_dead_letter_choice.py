"""Which dead letters are listed."""

import argparse
from types import SimpleNamespace

import pytest

from infra.cli.commands.repair.dead_letter_choice import LetterChoice, add_choice, chosen


def letter(written_ms, key=b"BTCUSDT", value=b"", error=("Undecodable", "no price")):
    record = {"key": key, "value": value, "error_class": error[0], "error_text": error[1]}
    return SimpleNamespace(written_ms=written_ms, record=record)


LETTERS = [
    letter(30), letter(10, b"AAPL.US", error=("StaleEvent", "of 1970")),
    letter(20, None, b'{"s":"00700.HK"}'), letter(40, None, b'{"s":"00700.HKX"}'),
    letter(25, b"\xff\xfe"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("choice", "times"),
    [
        (LetterChoice(), [30, 10, 20, 40, 25]),
        (LetterChoice(last=2), [30, 40]),
        (LetterChoice(last=99), [10, 20, 25, 30, 40]),
        (LetterChoice(since=25), [30, 40, 25]),
        (LetterChoice(symbol="BTCUSDT"), [30]),
        (LetterChoice(symbol="00700.HK"), [20]),
        (LetterChoice(reason="stale"), [10]),
        (LetterChoice(reason="NO PRICE"), [30, 20, 40, 25]),
        (LetterChoice(last=1, since=11, reason="undecodable", symbol="00700.HK"), [20]),
        (LetterChoice(symbol="nothing"), []),
    ],
    ids=str,
)
def test_letters_are_chosen(choice, times):
    assert [each.written_ms for each in chosen(LETTERS, choice)] == times


def test_the_options_are_those_of_the_choice():
    parser = argparse.ArgumentParser()
    add_choice(parser)
    found = vars(parser.parse_args(["--last", "3", "--since", "2026-11-20T01:30Z"]))
    assert found == {"last": 3, "since": 1795138200000, "symbol": None, "reason": None}
