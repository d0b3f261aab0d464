"""Reading recordings: the order of arrival, the frames as they were written, and what is said of
broken lines."""

import gzip
import json

import pytest

from producers.recording.reader import UnreadableRecording, read_recordings


def line(received, frame):
    return json.dumps({"recv_ms": received, "frame": frame}) + "\n"


def symbols(recording):
    return [json.loads(frame.frame)["data"]["s"] for frame in recording.frames]


def test_files_are_merged_by_receive_time_and_ties_keep_their_order(tmp_path):
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl.gz"
    first.write_text(
        line(20, {"data": {"s": "Q"}})
        + line(10, {"data": {"s": "Z"}})
        + line(20, {"data": {"s": "B"}})
    )
    second.write_bytes(
        gzip.compress((line(15, {"data": {"s": "M"}}) + line(20, {"data": {"s": "K"}})).encode())
    )
    assert symbols(read_recordings([first, second])) == ["Z", "M", "Q", "B", "K"]


def test_a_frame_keeps_its_bytes(tmp_path):
    written = (
        '{"code":10002, "data":{"s":"A","p":98.150,"v":"1.10","t":123456789012345678901234567890}}'
    )
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"recv_ms":1,"frame":{written}}}\n')
    assert read_recordings([path]).frames[0].frame.decode() == written


@pytest.mark.parametrize(
    "written",
    [
        '{"recv_ms":1,"frame":FRAME,"business":{"name":"stock"}}',
        '{"frame":FRAME,"recv_ms":1}',
        '{"recv_ms":1,"frame":{"old":1},"frame":FRAME}',
        '{"recv_ms":1,"note":"\\"frame\\"","frame":FRAME}',
    ],
)
def test_a_line_of_another_shape_gives_its_frame_alone_with_its_numbers_unaltered(
    written, tmp_path
):
    frame = (
        '{"code":10002,"data":{"p":98.150,"v":1E+2,"t":123456789012345678901234567890,"n":-0,'
        '"s":"\u80a1"}}'
    )
    path = tmp_path / "a.jsonl"
    path.write_text(written.replace("FRAME", frame) + "\n", encoding="utf-8")
    recording = read_recordings([path])
    assert recording.broken == []
    assert [each.frame.decode() for each in recording.frames] == [frame]


def test_what_looks_like_a_frame_inside_of_a_frame_stays_inside(tmp_path):
    frame = '{"data":{"s":"A","frame":{"p":1.10}},"recv_ms":7}'
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"recv_ms":1,"frame":{frame}}}\n')
    assert [(each.recv_ms, each.frame.decode()) for each in read_recordings([path]).frames] == [
        (1, frame)
    ]


def test_a_broken_line_is_named_with_file_and_number_and_the_rest_is_read(tmp_path):
    path = tmp_path / "a.jsonl"
    broken = [
        "nonsense",
        '{"recv_ms":NaN,"frame":{}}',
        '{"frame":{}}',
        '{"recv_ms":1}',
        '{"recv_ms":"1","frame":{}}',
        "[]",
        '{"recv_ms":1,"frame":[]}',
        '{"frame":{"deep":%s},"recv_ms":1}' % ("[" * 1000 + "]" * 1000),
        '{"frame":{"deep":%s},"recv_ms":1}' % ("[" * 300 + "]" * 300),
    ]
    path.write_text(
        line(1, {"data": {"s": "A"}})
        + "\n"
        + "".join(f"{each}\n" for each in broken)
        + line(2, {"data": {"s": "B"}})
    )
    recording = read_recordings([path])
    assert symbols(recording) == ["A", "B"]
    assert [(each.path, each.line) for each in recording.broken] == [
        (path, number) for number in range(3, 12)
    ]
    assert all(each.reason for each in recording.broken)


def test_a_file_that_breaks_off_gives_what_can_be_read(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    whole = gzip.compress(
        "".join(
            line(number, {"data": {"s": f"{number * 7919 % 100_003}"}}) for number in range(1, 2000)
        ).encode()
    )
    path.write_bytes(whole[: len(whole) // 2])
    after = tmp_path / "after.jsonl"
    after.write_text(line(5000, {"data": {"s": "LAST"}}))
    recording = read_recordings([path, after])
    assert 0 < len(recording.frames) < 2000
    assert symbols(recording)[-1] == "LAST"
    (broken,) = recording.broken
    assert (broken.path, broken.line) == (path, len(recording.frames))
    assert "breaks off" in broken.reason


def test_a_plain_file_that_breaks_off_gives_its_whole_lines(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(line(1, {"data": {"s": "A"}}) + line(2, {"data": {"s": "B"}})[:-9])
    recording = read_recordings([path])
    assert symbols(recording) == ["A"]
    assert [each.line for each in recording.broken] == [2]


def test_a_missing_file_is_one_line_that_says_what_to_do(tmp_path):
    with pytest.raises(
        UnreadableRecording, match=r"none\.jsonl: No such file or directory: name a recording"
    ) as raised:
        read_recordings([tmp_path / "none.jsonl"])
    assert "\n" not in str(raised.value)
    assert (raised.value.path, raised.value.reason) == (
        tmp_path / "none.jsonl",
        "No such file or directory",
    )


def test_a_full_day_is_read_whole(recordings):
    recording = read_recordings([recordings / "sh600519_20230201_fullday.jsonl.gz"])
    assert (len(recording.frames), recording.broken) == (31_988, [])
    assert all(
        earlier.recv_ms <= later.recv_ms
        for earlier, later in zip(recording.frames, recording.frames[1:], strict=False)
    )
