"""The live view in terminals of three sizes: symbols and prices whole, status and addresses on top,
a list that scrolls, is sorted and filtered, and nothing left out in silence."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from unit.board_in_terminal import Shown
from unit.terminal import Terminal

from infra.dashboard import columns, view
from infra.dashboard.keys import named
from infra.dashboard.selection import Selection
from infra.embedded.running import WorkerState
from infra.runtime import supervisor as supervising
from infra.runtime.readiness import READY, shortened
from infra.runtime.supervisor import Supervisor

ROOT = Path(__file__).parents[2]
SIZES = ((24, 80), (30, 100), (50, 200))


def drawn(rows, width, count=60):
    command = [sys.executable, str(ROOT / "tests" / "unit" / "board_in_terminal.py"), str(count)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    return Terminal(command, rows, width, env=environment, cwd=ROOT)


def symbols_on(frame):
    start = next(place for place, line in enumerate(frame) if line.startswith("symbol"))
    found = []
    for line in frame[start + 1 :]:
        if not line.strip():
            break
        if line.startswith(("filter", "no room")) or " scroll" in line or " sort" in line:
            break
        found.append(line.split()[0])
    return found


@pytest.mark.parametrize(("rows", "width"), SIZES)
def test_symbols_prices_status_and_addresses_are_whole_at_every_size(rows, width):
    with drawn(rows, width) as terminal:
        frame = terminal.wait_for(lambda lines: any("scroll" in line for line in lines))
        assert len(frame) <= rows
        assert all(len(line) <= width for line in frame)
        text = " ".join(" ".join(frame).split())
        for part in (
            "SIMULATED DATA: synthetic markets, no real prices (set INFOWAY_API_KEY for live data)",
            "broker 127.0.0.1:30395 registry http://127.0.0.1:23391/apis/ccompat/v7",
            "page http://127.0.0.1:8080/",
            "1234.5 trades/s in, 4567.8 records/s out, lag 12",
            "feeds: stock-0 healthy, stock-1 healthy, stock-2 healthy",
            "processors: worker 0 running, worker 1 restarting (73), worker 2 loading its states",
            "a note",
        ):
            assert part in text
        heading = next(place for place, line in enumerate(frame) if line.startswith("symbol"))
        assert all("broker" not in line for line in frame[heading:]), "on top"
        shown = symbols_on(frame)
        assert len(shown) >= 3
        assert f"1-{len(shown)} of 60" in text
        for line in frame[heading + 1 : heading + 1 + len(shown)]:
            symbol, last = line.split()[:2]
            assert symbol.endswith((".HK", "USDT", ".US"))
            assert last.endswith(".84")
            assert len(last) == len("118499.84")
        # every column is on the screen or named as one that is not
        for name in ("VWAP 1m", "VWAP 5m", "VWAP session", "imbalance", "close", "volume", "open"):
            assert name in text
        assert "VWAP 1m" in frame[heading]
        if width == 200:
            assert "no room for" not in text
            assert "market closed" in text
        else:
            assert "no room for" in text


def test_the_list_scrolls_is_sorted_and_filtered_by_keys():
    with drawn(24, 80) as terminal:
        first = symbols_on(terminal.wait_for(lambda lines: any("scroll" in x for x in lines)))
        assert first[0] == "00000.HK"
        terminal.press("\x1b[B")
        terminal.wait_for(lambda lines: symbols_on(lines)[0] == "00001.HK")
        terminal.press("\x1b[F")
        last = symbols_on(terminal.wait_for(lambda lines: "BTCUSDT" in symbols_on(lines)))
        assert len(last) == len(first)
        terminal.press("\x1b[H")
        terminal.wait_for(lambda lines: symbols_on(lines)[0] == "00000.HK")
        terminal.press("ssr")
        frame = terminal.wait_for(lambda lines: any("by volume, reversed" in x for x in lines))
        assert symbols_on(frame)[0] == "00000.HK", "of the least volume"
        terminal.press("r")
        terminal.wait_for(lambda lines: symbols_on(lines)[0] == "BRK.B.US")
        terminal.press("/btc\r")
        frame = terminal.wait_for(lambda lines: symbols_on(lines) == ["BTCUSDT"])
        assert any("1-1 of 1 with 'btc' of 60" in line for line in frame)
        terminal.resize(50, 200)
        terminal.process.send_signal(signal.SIGWINCH)
        terminal.wait_for(lambda lines: any("118499.901" in line for line in lines))
        terminal.press("\x1b")
        terminal.wait_for(lambda lines: len(symbols_on(lines)) > 20)
        terminal.press("\x03")
        assert terminal.ended(60) == 0
        assert "ended in order" in terminal.everything()


def text_of(shown, width, height, selection=None):
    group = shown.screen(selection or Selection(), width, height)
    return [str(each) for each in group.renderables]


@pytest.mark.parametrize("height", [1, 5, 8, 12, 24])
@pytest.mark.parametrize("width", [20, 40, 80])
def test_a_small_terminal_says_what_it_does_not_show(width, height):
    found = text_of(Shown(60), width, height)
    top = found[: next(place for place, line in enumerate(found) if line.startswith("symbol"))]
    if not any("a note" in line for line in top):
        assert "more lines" in top[-1]
    assert len(symbols_on(found)) >= view.LEAST_ROWS


def test_an_empty_session_vwap_says_market_closed_only_while_it_is():
    shown = Shown(3)
    text = "\n".join(text_of(shown, 200, 30))
    assert text.count(columns.CLOSED) == 1
    every = columns.columns(("session",), "1m", frozenset())
    [column] = [each for each in every if each.heading == "VWAP session"]
    assert column.cell("00000.HK", shown.board.symbols["00000.HK"]) == "–"


def test_a_worker_that_loops_is_not_well(tmp_path, monkeypatch):
    monkeypatch.setattr(supervising, "FIRST_BACKOFF", 0.05)
    monkeypatch.setattr(supervising, "LONGEST_BACKOFF", 0.1)
    started = []
    popen = subprocess.Popen

    def start(command, **how):
        started.append(1)
        said = "printf 'running\\n' >&$0; sleep 0.5; exit 73"
        return popen(["bash", "-c", said, command[-1]], **how)

    monkeypatch.setattr(supervising.subprocess, "Popen", start)
    seen = set()
    with Supervisor({}, 1, tmp_path) as supervised:
        while len(started) < 6:
            seen.update(supervised.states())
    assert WorkerState("0", "restarting (73)", False) in seen
    assert not any(each.well and len(started) > 1 for each in supervised.states())
    assert any(each.text.startswith("running, restarted") and not each.well for each in seen)


def test_what_keeps_a_worker_is_said_shortly():
    assert shortened(None) == READY
    assert shortened("recovering: the states of the partitions are loaded") == "loading its states"
    assert shortened("waiting for the broker: no\nanswer") == "waiting for the broker: no answer"
    assert len(shortened("x" * 10_000)) == 200


def test_keys_have_names_and_what_is_none_is_left_out():
    assert list(named("\x1b[A\x1b[Bs\r/\x7f\x1b[5~\x1b[12;5~é\x00")) == [
        "up", "down", "s", "enter", "/", "backspace", "pgup", "é"
    ]  # fmt: skip
    assert list(named("\x1b")) == ["esc"]


def test_page_scrolls_stay_within_the_list():
    selection = Selection()
    for key in ("pgup", "up", "end", "pgdn", "down"):
        selection.press(key, 10)
        found = selection.shown(60, 10)
        assert (found.start, found.stop) in {(0, 10), (50, 60)}
    assert selection.shown(4, 10) == range(4)
    assert selection.shown(0, 10) == range(0)
