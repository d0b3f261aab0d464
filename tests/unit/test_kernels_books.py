"""The depth agent's kernel against the general path: what a value reads as, every row byte for
byte, the state."""

import random

import numpy as np
import pytest
from book_runs import bodies, columns, encode_raw, in_columns, read_singly
from hypothesis import event, given, settings
from hypothesis import strategies as st
from raw_message import Message

from processors.agents.depth.agent import Imbalance
from processors.decode.messages import Messages
from processors.kernels.books.run import BookRun
from processors.kernels.columns import EncodedRows, Tables
from processors.kernels.compiled import AVAILABLE
from processors.model.event_time import EventTime
from processors.model.records import Book, ControlRecord
from schemas.control import LATEST_MS, Control
from schemas.decimals import UNIT
from schemas.times import EARLIEST_MS, MAX_FUTURE_MS

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="numba has no wheel here")

T = 1_700_000_000_000
SWAPPED = ("japan",)
ODD = (
    ".5", "5.", ".", "-", "", "+1", "1e3", "1E-3", "-.5", "--1", "1.2.3", " 1", "1 ", "1_0", "٣",
    "nan", "123456789012345678", "-123456789012345678", "1234567890123456789",
    "0.000000000000000001", "0.0000000000000000001", "0.0000000000000000010", "-0", "-0.0",
    "999999999999999999", "0000000000000000000000001.50", "99999999999999999999",
    "9" * 45, "0" * 45, "0." + "0" * 90,
)  # fmt: skip


def raw(symbol="A", event=T, asks=(), bids=(), business="stock", feed="f", connection="c1", **more):
    """The value of a book; asks and bids are lists of (price, size) as text."""
    fields = {"sequence": 7, "ts_recv": 1000 * T, "source": "live", "extra": None} | more
    lists = [[level[at] for level in side] for side in (asks, bids) for at in (0, 1)]
    return encode_raw(symbol, event, *lists, business, feed, connection, *fields.values())


def texts(mantissa, scale):
    whole, behind = divmod(abs(mantissa), 10**scale)
    return "-" * (mantissa < 0) + f"{whole}" + (f".{behind:0{scale}}" if scale else "")


near = st.integers(-3, 12).map(lambda price: texts(100 * price // 4 + 10_000, 2))
small = st.builds(texts, st.integers(-400, 4000), st.sampled_from((0, 1, 2, 3)))
any_number = st.builds(texts, st.integers(-(10**18), 10**18), st.integers(0, 18))
numbers = st.one_of(near, small, near, small, any_number)
side = st.one_of(
    st.lists(st.tuples(near, small), max_size=12),
    st.lists(st.tuples(numbers, numbers), max_size=12),
    st.lists(st.tuples(near, small), max_size=12, unique_by=lambda level: level[0]).map(sorted),
    st.lists(st.tuples(near, small), max_size=12).map(lambda levels: sorted(levels, reverse=True)),
    st.lists(st.tuples(near, small), max_size=4).map(lambda levels: [*levels, ("0", "0")]),
)
odd_side = st.lists(
    st.tuples(st.one_of(near, st.sampled_from(ODD)), st.one_of(small, st.sampled_from(ODD))),
    max_size=3,
)
# mostly one connection: the kernel stops at another one
book = st.builds(
    raw,
    st.sampled_from(("A", "A", "A", "B", "Ä")),
    st.integers(T - 50, T + 50),
    st.one_of(side, side, side, odd_side),
    side,
    st.sampled_from(("stock", "common", "japan")),
    st.sampled_from((*["f"] * 9, "g")),
    st.sampled_from((*["f-1"] * 18, "f-2", "c1")),
    sequence=st.sampled_from((0, -1, (1 << 62) - 1, 1 << 62, -(1 << 63))),
    ts_recv=st.sampled_from((1000 * T, 1000 * T - 1, 1000 * (T + 70))),
    extra=st.sampled_from((None, None, "{}", "é", "x" * 300)),
)
broken = st.builds(
    lambda value, cut, more: value[:cut] + more,
    book,
    st.integers(0, 250),
    st.binary(max_size=3),
)
control = st.builds(
    lambda kind, symbol, feed, connection, ts_from: ControlRecord(
        0, symbol, Control(kind, feed, "stock", connection, "live", T, 1000 * T, ts_from)
    ),
    st.sampled_from(("begin", "end", "gap", "mark")),
    st.sampled_from(("A", "B", None)),
    st.sampled_from(("f", "g")),
    st.sampled_from(("f-1", "f-2", "c1")),
    st.sampled_from((None, T - 60)),
)
RESTART, CUT, BIG = "restart", "cut", "big"
big = st.builds(
    lambda a, b: Book(0, "A", T, [a], [b], "common", "f", "f-1", 1000 * T, "live"),
    *[st.tuples(st.integers(-(10**38) + 1, 10**38 - 1), st.integers(1, 10**38 - 1))] * 2,
)
steps = st.lists(
    st.one_of(book, book, book, book, book, broken, control, big, st.sampled_from((RESTART, CUT))),
    min_size=1,
    max_size=40,
)


class Path:
    """An agent over one partition's log, with its rows and its state topic."""

    def __init__(self, native):
        self.agents = {each: Imbalance(EventTime(), SWAPPED, each) for each in (True, False)}
        self.native = native
        self.state = self.agents[native].load(3, {})
        self.rows, self.entries = [], {}
        self.read = columns()
        self.encoded = 0

    def apply(self, log):
        found = self.agents[self.native].apply(
            self.state,
            in_columns(self.read, log)
            if self.native
            else [read_singly(each) if isinstance(each, Message) else each for each in log],
        )
        self.encoded += sum(len(each) for each in found if isinstance(each, EncodedRows))
        self.rows += bodies(found)

    def commit(self):
        for key, value in self.agents[self.native].dirty(self.state):
            self.entries[key] = value

    def restart(self, native=None):
        self.commit()
        self.native = self.native if native is None else native
        self.state = self.agents[self.native].load(3, self.entries)
        self.read = columns()


WARM = [
    raw(symbol, connection="f-1", business=business)
    for symbol in "AB"
    for business in ("stock", "common", "japan")
]
"""Makes the names known, so that the kernel takes books from the first on."""


def run(native, taken, changing=False):
    path, log = Path(native), []
    for offset, step in enumerate((*WARM, *taken)):
        if step == RESTART:
            path.apply(log)
            path.restart(not path.native if changing else None)
            log = []
        elif step == CUT:
            path.apply(log)
            log = []
        elif isinstance(step, bytes):
            log.append(Message(offset, step))
        else:
            step.offset = offset
            log.append(step)
    path.apply(log)
    path.commit()
    return path


@settings(max_examples=150, deadline=None)
@given(steps)
def test_any_log_gives_the_rows_and_the_state_of_the_general_path(taken):
    native, general = run(True, taken), run(False, taken)
    event(f"rows by the kernel: {min(native.encoded, 5)}")
    assert native.rows == general.rows
    assert native.entries == general.entries
    # whatever path goes on from the other's state
    assert run(True, taken, changing=True).rows == general.rows


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(book, broken), min_size=1, max_size=8))
def test_a_value_reads_as_the_book_that_it_is(values):
    log = [Message(*each) for each in enumerate(values)]
    found = []
    for each in in_columns(columns(), log):
        found += each.all_books() if isinstance(each, BookRun) else [each]
    assert found == [read_singly(each) for each in log]


def plain(value):
    """Whether a value is read without Python once its names are known."""
    return isinstance(columns().read(Messages.of([Message(0, value)]), "live")[0], BookRun)


@pytest.mark.parametrize("number", ODD)
@pytest.mark.parametrize("at", [0, 1])
def test_a_number_is_read_as_the_general_path_reads_it(number, at):
    level = ("7", number) if at else (number, "7")
    value = raw(asks=[("3", "2"), level], bids=[("2.25", "1.125")])
    [found] = in_columns(columns(), [Message(0, value)])
    expected = read_singly(Message(0, value))
    assert (found.all_books()[0] if isinstance(found, BookRun) else found) == expected


def test_which_numbers_are_plain():
    digits = "123456789012345678"
    for fits in (digits, "-" + digits, "0." + digits, "0.000000000000000001", "007.50", "-0.5"):
        assert plain(raw(asks=[(fits, "1")]))
    for odd in (digits + "9", "0." + digits + "0", ".5", "5.", "1e3", ""):
        assert not plain(raw(asks=[(odd, "1")]))
    # 18 digits at the scale of the book
    assert plain(raw(asks=[("123456789012345678", "1"), ("1", "1")]))
    assert plain(raw(asks=[("12345678901234567", "1"), ("1.5", "1")]))
    assert not plain(raw(asks=[("123456789012345678", "1"), ("1.5", "1")]))
    assert not plain(raw(asks=[("1.5", "1"), ("123456789012345678", "1")]))
    assert not plain(raw(asks=[("123456789012345678", "1")], bids=[("1.5", "1")]))
    # sizes of a list that sum to 18 digits, those below 0 left out
    half = "500000000000000000"
    assert plain(raw(asks=[("1", half), ("2", str(int(half) - 1))], bids=[("1", half)]))
    assert not plain(raw(asks=[("1", half), ("2", half)]))
    assert plain(raw(asks=[("1", half), ("2", half[:-1]), ("3", "-" + half)]))


def test_how_many_levels_and_which_names_are_plain():
    levels = [(f"{price}", "1") for price in range(1, 66)]
    assert plain(raw(asks=levels[:64], bids=levels[:64]))
    assert not plain(raw(asks=levels[:65]))
    assert plain(raw(symbol="S" * 64, connection="Ä" * 64))
    assert not plain(raw(symbol="S" * 600, connection="Ä" * 600))
    assert plain(raw(extra="{}")) and not plain(raw(extra="é"))


def test_nothing_is_plain_of_another_source_or_schema_or_before_the_source_is_known():
    sound, other = Message(0, raw()), Message(0, b"\0\0\0\0\2" + raw()[5:])
    for read, source, plain_ones in (
        ([sound], None, 0),
        ([sound], "replay", 0),
        ([other], "live", 0),
        ([other, sound, Message(0, None)], "live", 1),
    ):
        found = columns().read(Messages.of(read), source)
        assert sum(isinstance(piece, BookRun) for piece in found) == plain_ones
    read = columns()
    assert read.read(Messages.of([sound]), "replay") == [0]
    assert read.read(Messages.of([Message(0, raw())]), "live") != [0]


def test_which_times_are_plain():
    read = columns()
    read.read(Messages.of([Message(0, raw())]), "live")  # its names are known from here on
    for ts_event, received_ms, fits in (
        (EARLIEST_MS, T, True),
        (EARLIEST_MS - 1, T, False),
        (T + MAX_FUTURE_MS, T, True),
        (T + MAX_FUTURE_MS + 1, T, False),
        (T, LATEST_MS - MAX_FUTURE_MS - 1, True),
        (T, LATEST_MS - MAX_FUTURE_MS, False),
    ):
        message = Message(0, raw(event=ts_event, ts_recv=1000 * received_ms))
        [piece] = read.read(Messages.of([message]), "live")
        assert isinstance(piece, BookRun) == fits == isinstance(read_singly(message), Book)


def test_a_name_that_is_no_text_is_pythons():
    value = raw(symbol="AB").replace(b"\4AB", b"\4A\xff")
    read = columns()
    messages = Messages.of([Message(0, each) for each in (value, raw(), value)])
    assert read.read(messages, "live")[0::2] == [0, 2]
    assert read.tables.symbols == ["A"]


def test_a_run_is_cut_by_offsets():
    messages = Messages.of([Message(offset, raw()) for offset in (5, 7, 9)])
    [found] = columns().read(messages, "live")
    assert (found.first_offset, found.last_offset, len(found)) == (5, 9, 3)
    assert [book.offset for book in found.since(6).all_books()] == [7, 9]
    assert [book.offset for book in found.before(7).all_books()] == [5]
    assert found.since(10) is None and found.before(5) is None


@settings(max_examples=200, deadline=None)
@given(st.one_of(book, broken), big)
def test_a_run_of_one_book_is_the_book(value, other):
    for each in (read_singly(Message(0, value)), other):
        if isinstance(each, Book):
            found = BookRun.of(Tables(), each)
            assert found is None or found.all_books() == [each]


def test_books_of_many_symbols_take_the_kernel():
    drawn, path = random.Random(4), Path(True)
    values = [
        raw(
            symbol=f"S{drawn.randrange(1500)}",
            asks=[(f"{100 + level}.5", "3.25") for level in range(10)],
            bids=[(f"{100 - level}.5", f"{drawn.randrange(1, 90)}") for level in range(10)],
        )
        for _ in range(6_000)
    ]
    path.apply([Message(*each) for each in enumerate(values)])
    # one book of each symbol is Python's, which makes its slot
    assert path.encoded == 6_000 - len(path.read.tables.symbols) > 4_400
    general = Path(False)
    general.apply([Message(*each) for each in enumerate(values)])
    path.commit()
    general.commit()
    assert path.rows == general.rows and path.entries == general.entries


def test_a_size_before_that_needs_more_than_125_bits_is_pythons():
    most = (1 << 125) - 1
    for size, encoded in ((most, 1), (most + 1, 0), (10**38 - 1, 0)):
        path, general = Path(True), Path(False)
        for each in (path, general):
            big_book = Book(
                0, "A", T, [(3 * UNIT, size)], [(UNIT, size)], "stock", "f", "c1", 1000 * T, "live"
            )
            each.apply([big_book])
            each.apply([Message(1, raw(asks=[("2", "999999999999999999")], bids=[("1", "1")]))])
            each.commit()
        assert path.encoded == encoded
        assert (path.rows, path.entries) == (general.rows, general.entries)
        path.apply([Message(2, raw(asks=[("2", "1")], bids=[("1", "1")]))])
        assert path.encoded == encoded + 1  # its numbers fit again


def test_what_the_order_of_levels_has_shown_holds_for_its_connection():
    up, down = [("1", "1"), ("2", "1")], [("2", "1"), ("1", "1")]
    path, general = Path(True), Path(False)
    for each in (path, general):
        each.apply([Message(0, raw()), Message(1, raw(symbol="B"))])
        each.apply([Message(2, raw(asks=down, bids=up))])
        each.apply([Message(3, raw(symbol="B", connection="c2"))])
        # one level a list shows nothing, and is read as list a is read on this connection
        each.apply([Message(4, raw(asks=up[:1], bids=down[:1], connection="c2"))])
        each.commit()
    assert path.encoded == 2  # the third and the last
    assert (path.rows, path.entries) == (general.rows, general.entries)


def test_a_control_record_moves_the_feed_to_another_connection():
    begin = Control("begin", "f", "stock", "f-2", "live", T, 1000 * T, T - 60)
    path, general = Path(True), Path(False)
    for each in (path, general):
        each.apply([Message(0, raw(connection="f-1")), Message(1, raw(connection="f-1"))])
        each.apply([ControlRecord(2, "A", begin), Message(3, raw(connection="f-1"))])
        each.commit()
    assert path.encoded == 1  # the second: the last one's connection is no longer the feed's
    assert (path.rows, path.entries) == (general.rows, general.entries)


@pytest.mark.parametrize("business", ["common", "stock"])
def test_prices_below_zero_and_equal_ones(business):
    path, general = Path(True), Path(False)
    asks = [("-36", "5"), ("0", "1"), ("-36", "2.5"), ("-30", "0"), ("3", "1"), ("3", "4")]
    for each in (path, general):
        each.apply([Message(at, raw(asks=asks, bids=[("-38.5", "2")], business=business))
                    for at in range(3)])  # fmt: skip
        each.commit()
    assert path.encoded == 2
    assert (path.rows, path.entries) == (general.rows, general.entries)


def test_the_buffer_grows():
    names = ["N" * 63 + "Ä" * 400, "B"]
    path, general = Path(True), Path(False)
    for each in (path, general):
        each.apply([Book(0, name, T, [], [], "s", "f", "c", 1000 * T, "live") for name in names])
    run = BookRun.of(
        path.read.tables, Book(1, names[0], T, [], [], "s", "f", "c", 1000 * T, "live")
    )
    many = BookRun(np.repeat(run.books, 500), run.levels, run.tables)
    path.rows += bodies(path.agents[True].apply(path.state, [many]))
    general.apply(many.all_books())
    assert path.rows == general.rows


def test_random_bytes_are_read_within_their_bounds():
    """Run with NUMBA_BOUNDSCHECK=1 too: a read beyond the buffer is an error there."""
    drawn = random.Random(9)
    asks = [(f"{100 + level}.5", "3.25") for level in range(10)]
    sound = [raw(asks=asks, bids=asks[:3]), raw(), raw(asks=asks[:1], extra="{}")]
    values = []
    for _ in range(4_000):
        value = bytearray(drawn.choice(sound))
        for _ in range(drawn.randrange(4)):
            value[drawn.randrange(len(value))] = drawn.choice((0, 1, 2, 0x7F, 0x80, 0x81, 255))
        values.append(bytes(value[: drawn.randrange(len(value) + 1)] if drawn.random() < 0.3
                            else value))  # fmt: skip
    values += [drawn.randbytes(drawn.randrange(80)) for _ in range(500)]
    log = [Message(*each) for each in enumerate(values)]
    for size in (1, 7, 5_000):
        read, found = columns(), []
        for start in range(0, len(log), size):
            for each in in_columns(read, log[start : start + size]):
                found += each.all_books() if isinstance(each, BookRun) else [each]
        assert found == [read_singly(each) for each in log]
