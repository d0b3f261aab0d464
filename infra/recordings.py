"""Recordings of the vendor's frames: JSON lines, plain or gz, `{"recv_ms": …, "frame": {…}}`, read for replay and simulator."""

import gzip
import json
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import orjson

_CUT = re.compile(rb'\s*\{\s*"recv_ms"\s*:\s*\d+\s*,\s*"frame"\s*:\s*(?P<frame>\{.*\})\s*\}\s*', re.DOTALL)


class UnreadableRecording(OSError):
    """A file that cannot be read at all."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}: name a recording, JSON lines, plain or gz")
        self.path = path
        self.reason = reason


@dataclass(frozen=True, slots=True)
class RecordedFrame:
    """One frame: receive time in ms UTC, and the frame's JSON as bytes."""

    recv_ms: int
    frame: bytes


@dataclass(frozen=True, slots=True)
class BrokenLine:
    """A line that is no recorded frame, or the place where a file breaks off."""

    path: Path
    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Recording:
    """The frames of all files in the order of their arrival, and the lines that were none."""

    frames: list[RecordedFrame]
    broken: list[BrokenLine]


def read_recordings(paths: Iterable[Path]) -> Recording:
    """Return the frames of these files, sorted stably by receive time; raises UnreadableRecording."""
    frames: list[RecordedFrame] = []
    broken: list[BrokenLine] = []
    for path in paths:
        _read(path, frames, broken)
    frames.sort(key=lambda frame: frame.recv_ms)
    return Recording(frames, broken)


def _read(path: Path, frames: list[RecordedFrame], broken: list[BrokenLine]) -> None:
    number = 0
    try:
        with path.open("rb") as plain:
            zipped = plain.read(2) == b"\x1f\x8b"
            plain.seek(0)
            for number, line in enumerate(gzip.GzipFile(fileobj=plain) if zipped else plain, 1):
                if line.strip():
                    _read_line(path, number, line, frames, broken)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        broken.append(BrokenLine(path, number + 1, f"the file breaks off here ({error})"))
    except OSError as error:
        raise UnreadableRecording(path, error.strerror or str(error)) from error


def _read_line(path: Path, number: int, line: bytes, frames: list[RecordedFrame], broken: list[BrokenLine]) -> None:
    try:
        document = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        broken.append(BrokenLine(path, number, f"no JSON ({error})"))
        return
    received, frame = (document.get("recv_ms"), document.get("frame")) if isinstance(document, dict) else (None, None)
    if not isinstance(received, int) or isinstance(received, bool) or received <= 0:
        broken.append(BrokenLine(path, number, "recv_ms is missing or no positive integer"))
    elif not isinstance(frame, dict):
        broken.append(BrokenLine(path, number, "frame is missing or no JSON object"))
    else:
        # with other keys, or `frame` twice, the greedy cut would take in what follows the frame
        cut = _CUT.fullmatch(line) if len(document) == 2 and line.count(b'"frame"') == 1 else None
        frames.append(RecordedFrame(received, cut["frame"] if cut else _written_again(line)))


def _written_again(line: bytes) -> bytes:
    # numbers as they stand: as a float, 98.150 would lose its zero and a long integer its last digits
    frame = json.loads(line, parse_float=orjson.Fragment, parse_int=orjson.Fragment)["frame"]
    return orjson.dumps(frame)
