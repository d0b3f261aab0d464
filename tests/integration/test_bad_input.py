"""Bad input through the whole way: it is dead-lettered or reported, counted, and the rest goes
on."""

import json
from decimal import Decimal

import pytest
from rich.console import Console

from infra.cli.commands.feed.replay import ReplayOptions, replay
from schemas.topics import Topology

START = 1_722_902_400_000


def trade(number, **changes):
    data = {
        "s": "BTCUSDT",
        "t": START + number * 1000,
        "p": "61800.30",
        "v": "0.5",
        "vw": "30900.15",
        "td": 1,
        **changes,
    }
    return {
        "recv_ms": START + number * 1000 + 50,
        "frame": {"code": 10002, "data": {k: v for k, v in data.items() if v is not None}},
    }


@pytest.mark.timeout(400)
def test_bad_frames_and_lines_cost_only_themselves(stack, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("INFOWAY_BOOTSTRAP", stack.bootstrap)
    monkeypatch.setenv("INFOWAY_REGISTRY", stack.registry_url)
    bad = [
        trade(1, v="-1"),
        trade(2, p="NaN"),
        trade(3, p=None),
        trade(4, t=START + 4000 + 120_000),
        trade(5, s=None),
        {"recv_ms": START + 6000, "frame": {"code": 77777, "data": {}}},
    ]
    unreadable_by_the_processors = trade(7, p="90000000000000000000", v="90")
    odd = [trade(8, s="weird symbol"), trade(9, s="ABC.XX")]
    good = [trade(number) for number in range(10, 20)]
    recording = tmp_path / "mixed.jsonl"
    lines = [
        json.dumps(line) for line in [trade(0), *bad, unreadable_by_the_processors, *odd, *good]
    ]
    lines[3:3] = ["{broken", '{"recv_ms": "x", "frame": {}}']
    recording.write_text("\n".join(lines) + "\n")
    summary = replay(ReplayOptions([recording], tmp_path / "out", Topology()), Console(stderr=True))

    def rows(topic):
        return [
            json.loads(line)
            for line in (tmp_path / "out" / f"{topic}.jsonl").read_text().splitlines()
        ]

    assert summary.broken_lines == 2
    shown = capfd.readouterr().err.replace("\n", "")
    assert "mixed.jsonl:4: no JSON" in shown
    assert "mixed.jsonl:5: recv_ms is missing" in shown
    dead = rows("infoway.dead-letter")
    assert len(dead) == len(bad) + 1
    assert sum(letter["source_topic"] == "infoway.raw.trade" for letter in dead) == 1
    assert sum(each.unreadable for each in summary.counters) == len(bad)
    counted = [bar for bar in rows("infoway.bars.1m") if bar["symbol"] == "BTCUSDT"]
    assert sum(Decimal(bar["volume"]) for bar in counted) == Decimal("0.5") * 11
    assert {bar["symbol"] for bar in rows("infoway.bars.1m")} == {
        "BTCUSDT",
        "weird symbol",
        "ABC.XX",
    }


def test_an_empty_recording_gives_empty_files(stack, tmp_path, monkeypatch):
    monkeypatch.setenv("INFOWAY_BOOTSTRAP", stack.bootstrap)
    monkeypatch.setenv("INFOWAY_REGISTRY", stack.registry_url)
    recording = tmp_path / "empty.jsonl"
    recording.write_text("")
    summary = replay(ReplayOptions([recording], tmp_path / "out", Topology()), Console(stderr=True))
    assert (summary.frames, sum(summary.records.values())) == (0, 0)
