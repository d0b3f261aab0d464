"""The spool on disk: first in, first out over restarts and kills, whole entries only, one owner."""

import os
import random

import pytest

from producers.delivery.entries import SpoolEntry
from producers.delivery.spool import Spool, SpoolUnusable

LIMIT = 1 << 30


def entry(number, size=10):
    return SpoolEntry(
        "t",
        "A",
        b"\n" + bytes([number % 256]) * size,
        -1,
        [("control", b"gap")] if number % 3 == 0 else None,
        "raw",
        "f-1",
        "c",
        number,
        5,
    )


@pytest.fixture
def opened(tmp_path):
    """Opens the spool; a second time as after a kill of who had it."""
    spools = []

    def make(identity="me"):
        if spools:
            os.close(spools[-1]._lock)
        spools.append(Spool(tmp_path / "spool", LIMIT, identity))
        return spools[-1]

    return make


def numbers(spool, acknowledged=True):
    found = []
    while (each := spool.read()) is not None:
        segment, read = each
        found.append(read.sequence)
        assert read == entry(read.sequence, len(read.value) - 1)
        if acknowledged:
            spool.acknowledge(segment)
    return found


def test_entries_come_out_in_their_order_and_leave_no_file(opened):
    spool = opened()
    for number in range(1_000):
        spool.append(entry(number, 100))
    assert not spool.empty
    assert numbers(spool) == list(range(1_000))
    assert (spool.empty, spool.size, spool.left, list(spool.folder.glob("*.spool"))) == (
        True,
        0,
        0,
        [],
    )


@pytest.mark.parametrize("seed", range(20))
def test_any_appends_reads_and_kills_lose_and_swap_nothing(opened, monkeypatch, seed):
    monkeypatch.setattr("producers.delivery.spool.SEGMENT", 300)
    chance, spool, written, read, unacknowledged = random.Random(seed), opened(), 0, -1, []
    for _ in range(400):
        act = chance.random()
        if act < 0.5:
            spool.append(entry(written, chance.randrange(40)))
            written += 1
        elif act < 0.8 and (found := spool.read()) is not None:
            assert found[1].sequence == read + 1
            read += 1
            unacknowledged.append(found)
        elif act < 0.9 and unacknowledged:
            spool.acknowledge(unacknowledged.pop(0)[0])
        elif act < 0.95 and unacknowledged and unacknowledged[-1][1].sequence == read:
            spool.give_back(*unacknowledged.pop())
            read -= 1
        elif act > 0.98:
            spool = opened()
            # what was acknowledged within a segment that still stands comes again, nothing else
            first = unacknowledged[0][1].sequence if unacknowledged else read + 1
            unacknowledged.clear()
            found = [each.sequence for _, each in spool.unread()]
            assert found == list(range(found[0], written)) if found else read + 1 == written
            assert not found or found[0] <= first
            read = found[0] - 1 if found else written - 1
    assert numbers(opened())[-1:] in ([written - 1], [])


def test_what_was_not_delivered_comes_before_what_waited(opened):
    spool = opened()
    for number in (3, 4):
        spool.append(entry(number))
    spool.put_back([entry(1), entry(2)])
    spool.close(whole=True)
    assert numbers(Spool(spool.folder, LIMIT, "me")) == [1, 2, 3, 4]


@pytest.mark.parametrize("cut", [1, 7, 9, 30])
def test_a_torn_entry_is_cut_off_and_counted(opened, cut):
    spool = opened()
    for number in range(3):
        spool.append(entry(number))
    (path,) = spool.folder.glob("*.spool")
    path.write_bytes(path.read_bytes()[:-cut])
    again = opened()
    # what came behind the tear, and before all what a killed process had not spooled yet
    assert (again.torn, [hole and hole.path for hole in again.holes]) == (1, [path, None])
    again.append(entry(7))
    assert numbers(again) == [0, 1, 7]


def test_a_damaged_entry_ends_its_segment(opened):
    spool = opened()
    for number in range(3):
        spool.append(entry(number))
    (path,) = spool.folder.glob("*.spool")
    damaged = bytearray(path.read_bytes())
    damaged[-3] ^= 1
    path.write_bytes(damaged)
    assert numbers(opened()) == [0, 1]


def test_what_is_filled_into_a_hole_comes_where_the_lost_entries_were(opened, monkeypatch):
    monkeypatch.setattr("producers.delivery.spool.SEGMENT", 1)
    spool = opened()
    for number in range(4):
        spool.append(entry(number))
    paths = sorted(spool.folder.glob("*.spool"))
    paths[1].write_bytes(b"")  # a whole segment, and its neighbour's last bytes
    paths[2].write_bytes(paths[2].read_bytes()[:-1])
    again = opened()
    before, first = again.holes
    assert (before.path, first) == (paths[0], None)
    again.fill(first, [entry(8)])
    again.fill(before, [entry(9)])
    assert numbers(again) == [8, 0, 9, 3]


def test_an_orderly_end_is_told_from_a_kill(opened):
    spool = opened()
    spool.append(entry(1))
    spool.close(whole=True)
    again = Spool(spool.folder, LIMIT, "me")
    assert again.holes == []


def test_a_folder_has_one_owner_and_one_source(opened, tmp_path):
    spool = opened()
    with pytest.raises(SpoolUnusable, match="belongs to another producer that runs"):
        Spool(spool.folder, LIMIT, "me")
    spool.append(entry(1))
    spool.close(whole=True)
    with pytest.raises(SpoolUnusable, match="holds records of me, not of another"):
        Spool(spool.folder, LIMIT, "another")
    (tmp_path / "file").touch()
    with pytest.raises(SpoolUnusable, match="cannot be used"):
        Spool(tmp_path / "file" / "below", LIMIT, "me")


def test_a_full_disk_leaves_nothing_of_the_entry(opened, monkeypatch):
    spool, write = opened(), os.write
    spool.append(entry(1))
    monkeypatch.setattr(
        "producers.delivery.spool.os.write", lambda file, data: write(file, data[:20])
    )
    with pytest.raises(OSError, match="no space left"):
        spool.append(entry(2))
    monkeypatch.undo()
    spool.append(entry(3))
    assert numbers(spool) == [1, 3]


def test_a_disk_that_takes_not_even_the_owners_name_is_named_and_leaves_the_folder_usable(
    opened, monkeypatch
):
    def full(path, *_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("producers.delivery.spool.Path.write_text", full)
    with pytest.raises(SpoolUnusable, match="No space left on device"):
        opened()
    monkeypatch.undo()
    spool = opened()
    spool.append(entry(1))
    (spool.folder / "owner").write_text("")
    assert numbers(opened()) == [1]
