"""Reading recordings: the order of arrival, the frames as they were written, and what is said of broken lines."""

import gzip
import json

import pytest

from infra.recordings import UnreadableRecording, read_recordings


def line(received, frame):
    return json.dumps({"recv_ms": received, "frame": frame}) + "\n"


def symbols(recording):
    return [json.loads(frame.frame)["data"]["s"] for frame in recording.frames]


def test_files_are_merged_by_receive_time_and_ties_keep_their_order(tmp_path):
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl.gz"
    first.write_text(line(20, {"data": {"s": "C"}}) + line(10, {"data": {"s": "A"}}) + line(20, {"data": {"s": "D"}}))
    second.write_bytes(gzip.compress((line(15, {"data": {"s": "B"}}) + line(20, {"data": {"s": "E"}})).encode()))
    assert symbols(read_recordings([first, second])) == ["A", "B", "C", "D", "E"]


def test_a_frame_keeps_its_bytes(tmp_path):
    written = '{"code":10002, "data":{"s":"A","p":98.150,"v":"1.10","t":123456789012345678901234567890}}'
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"recv_ms":1,"frame":{written}}}\n')
    assert read_recordings([path]).frames[0].frame.decode() == written


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
    ]
    path.write_text(line(1, {"data": {"s": "A"}}) + "\n" + "".join(f"{each}\n" for each in broken) + line(2, {"data": {"s": "B"}}))
    recording = read_recordings([path])
    assert symbols(recording) == ["A", "B"]
    assert [(each.path, each.line) for each in recording.broken] == [(path, number) for number in range(3, 10)]
    assert all(each.reason for each in recording.broken)


def test_a_file_that_breaks_off_gives_what_can_be_read(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    whole = gzip.compress("".join(line(number, {"data": {"s": f"{number * 7919 % 100_003}"}}) for number in range(1, 2000)).encode())
    path.write_bytes(whole[: len(whole) // 2])
    recording = read_recordings([path])
    assert 0 < len(recording.frames) < 1999
    assert "breaks off" in recording.broken[-1].reason


def test_a_missing_file_is_one_line_that_says_what_to_do(tmp_path):
    with pytest.raises(UnreadableRecording, match=r"none\.jsonl: No such file or directory: name a recording") as raised:
        read_recordings([tmp_path / "none.jsonl"])
    assert "\n" not in str(raised.value)


def test_a_full_day_is_read_whole(recordings):
    recording = read_recordings([recordings / "sh600519_20230201_fullday.jsonl.gz"])
    assert (len(recording.frames), recording.broken) == (31_988, [])
    assert all(earlier.recv_ms <= later.recv_ms for earlier, later in zip(recording.frames, recording.frames[1:], strict=False))
