"""The journal of a state: whatever is written, removed and read back, the live pairs are the last
ones; its records stay few, and no transaction gets long by cleaning."""

import random
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.engine import journal
from processors.engine.journal import PREFIX, Journal, UnknownJournal
from processors.kernels.numbered_pairs import NumberedPairs

KEYS = [b"k%d" % number for number in range(12)]
NUMBERED = [b"n:%d" % number for number in (0, 1, 2, 3, 70, 700)]
CHANGES = st.dictionaries(
    st.sampled_from(KEYS + NUMBERED), st.one_of(st.none(), st.binary(max_size=40)), max_size=8
)


def number_of(key):
    return int(key.removeprefix(b"n:"))


def numbered(changes):
    """Changes as a kernel yields them."""
    pairs = [
        struct.pack(">Ii", len(key), -1 if value is None else len(value)) + key + (value or b"")
        for key, value in changes.items()
    ]
    return NumberedPairs(
        b"n:",
        number_of,
        np.array([number_of(key) for key in changes], np.int64),
        np.array([len(pair) for pair in pairs], np.int64),
        np.array([value is None for value in changes.values()], np.bool_),
        b"".join(pairs),
    )


def changes_of(changes):
    """Those of numbered keys in one or two pieces, the others one by one."""
    kernels = {key: value for key, value in changes.items() if key in NUMBERED}
    yield from ((key, value) for key, value in changes.items() if key not in NUMBERED)
    first = dict(list(kernels.items())[:2])
    yield numbered(first)
    if len(kernels) > 2:
        yield numbered({key: value for key, value in kernels.items() if key not in first})


class Topic:
    """A compacted state topic, a journal that is written into it, and what must be live."""

    def __init__(self, plain=None):
        self.entries = dict(plain or {})
        self.truth = dict(plain or {})
        self.journal = Journal.restored(self.entries)
        self.written = []

    def write(self, changes):
        written = self.journal.written(changes_of(changes))
        assert len({key for key, _ in written}) == len(written), "a key twice in one transaction"
        for key, value in written:
            if value is None:
                self.entries.pop(key, None)
            else:
                self.entries[key] = value
        for key, value in changes.items():
            if value is None:
                self.truth.pop(key, None)
            else:
                self.truth[key] = value
        self.written.append(sum(len(value or b"") for _, value in written))

    def restart(self):
        self.journal = Journal.restored(self.entries)

    def check(self):
        assert self.journal.pairs() == self.truth
        live = sum(len(key) + len(value) + 8 for key, value in self.truth.items())
        plain = self.journal._plain.items()
        live -= sum(len(key) + len(value) + 8 for key, value in plain)
        assert self.journal.live_bytes == live
        assert Journal.restored(self.entries).pairs() == self.truth


@pytest.fixture
def small(monkeypatch):
    """Records of a few pairs, cleaned early."""
    set_small(monkeypatch)


def set_small(monkeypatch):
    monkeypatch.setattr(journal, "MOST_BYTES", 100)
    monkeypatch.setattr(journal, "SLACK_BYTES", 150)
    monkeypatch.setattr(journal, "_LEAST_MOVED", 60)
    monkeypatch.setattr(journal, "_MOST_MIGRATED", 3)
    monkeypatch.setattr(journal, "_SPARE_SLOTS", 2)


@given(
    st.dictionaries(st.sampled_from(KEYS + NUMBERED), st.binary(max_size=20), max_size=8),
    st.lists(st.one_of(CHANGES, st.just("restart")), max_size=60),
)
def test_what_is_read_back_is_what_was_written_last(plain, steps):
    with pytest.MonkeyPatch.context() as patched:
        set_small(patched)
        topic = Topic(plain)
        for step in steps:
            if step == "restart":
                topic.restart()
            else:
                topic.write(step)
            topic.check()


def storm(topic, seconds, keys, each, cold=0):
    drawn = random.Random(5)
    topic.write({b"cold%d" % number: drawn.randbytes(100) for number in range(cold)})
    for _ in range(seconds):
        topic.write({b"k%d" % drawn.randrange(keys): drawn.randbytes(100) for _ in range(each)})


@pytest.mark.parametrize("cold", [0, 20_000])
def test_the_topic_stays_within_a_few_times_what_is_live(cold):
    topic = Topic()
    storm(topic, 3_000, 3_000, 60, cold)
    topic.check()
    live = sum(len(key) + len(value) + 8 for key, value in topic.truth.items())
    assert topic.journal.live_bytes == live
    in_topic = sum(map(len, topic.entries.values()))
    assert in_topic < 3 * live + 3 * journal.SLACK_BYTES
    assert len(topic.entries) < 1_000
    # what is written is at most three times what changed
    assert sum(topic.written[1:]) < 3 * 3_000 * 60 * 120


def test_no_transaction_gets_long_by_cleaning():
    topic = Topic()
    storm(topic, 2_000, 3_000, 60, 50_000)
    assert max(topic.written[1:]) < journal._LEAST_MOVED + 2 * journal.MOST_BYTES


def test_slots_that_a_larger_state_has_left_are_given_back(small):
    topic = Topic()
    topic.write({b"k%d" % number: b"v" * 20 for number in range(400)})
    for number in range(400):
        topic.write({b"k%d" % number: None})
        topic.check()
    topic.write({b"last": b"1"})
    assert len(topic.entries) < 12
    topic.check()


def test_what_did_not_change_is_not_written_again():
    topic = Topic()
    topic.write({b"a": b"1", b"b": b"2"})
    assert topic.journal.written([(b"a", b"1"), (b"c", None)]) == []


def test_records_of_their_own_are_taken_over_some_at_a_time(small):
    plain = {b"k%d" % number: b"v%d" % number for number in range(10)}
    topic = Topic(plain)
    topic.write({})
    assert len([key for key in topic.entries if not key.startswith(PREFIX)]) == 7
    topic.write({b"k9": None, b"k8": b"new"})
    for _ in range(3):
        topic.check()
        topic.restart()
        topic.write({})
    topic.check()
    assert all(key.startswith(PREFIX) for key in topic.entries)


def test_a_pair_that_is_larger_than_a_record_has_one_alone(small):
    topic = Topic()
    topic.write({b"a": b"1", b"b": b"2" * 400, b"c": b"3"})
    topic.check()
    assert len(topic.entries) == 3


def test_a_record_of_another_version_is_refused():
    topic = Topic()
    topic.write({b"a": b"1"})
    [(key, value)] = topic.entries.items()
    with pytest.raises(UnknownJournal, match="begins with b'\\\\x02', and this version reads"):
        Journal.restored({key: b"\x02" + value[1:]})


def test_thousands_of_numbered_pairs_stay_within_a_few_times_what_is_live():
    topic, drawn = Topic(), random.Random(5)
    journal_of, truth = topic.journal, {}
    for _ in range(2_000):
        changes = {
            b"n:%d" % drawn.randrange(3_000): drawn.randbytes(100) if drawn.random() < 0.9 else None
            for _ in range(60)
        }
        truth |= changes
        for key, value in journal_of.written([numbered(changes)]):
            topic.entries[key] = value
    live = {key: value for key, value in truth.items() if value is not None}
    assert journal_of.pairs() == live == Journal.restored(topic.entries).pairs()
    in_topic = sum(len(value or b"") for value in topic.entries.values())
    assert in_topic < 3 * journal_of.live_bytes + 3 * journal.SLACK_BYTES


def test_numbered_pairs_are_cut_into_records(small):
    topic = Topic()
    topic.write(dict.fromkeys(NUMBERED, b"v" * 40))
    topic.check()
    assert len(topic.entries) == len(NUMBERED)


def test_a_numbered_pair_is_removed_by_its_key_alone():
    """As an agent does that hands a symbol over to its general path."""
    topic = Topic()
    topic.write({b"n:1": b"a", b"n:2": b"b"})
    for changes in ([(b"n:1", None)], [(b"n:7", None)]):
        for key, value in topic.journal.written(changes):
            topic.entries[key] = value
    del topic.truth[b"n:1"]
    topic.check()
