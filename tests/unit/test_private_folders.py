"""Folders that the project makes are their user's alone, whatever the umask."""

import ast
import os
import stat
from pathlib import Path

import pytest

from producers.delivery.spool import Spool
from producers.private_folder import private_folder
from producers.recording.writer import Recorder

ROOT = Path(__file__).parents[2]
OWN = ("schemas", "producers", "processors", "infra")


@pytest.fixture(autouse=True)
def open_umask():
    before = os.umask(0)
    yield
    os.umask(before)


def modes(root, folder):
    return [
        stat.S_IMODE(each.stat().st_mode)
        for each in (folder, *folder.parents)
        if root in each.parents
    ]


def test_folder_and_the_missing_ones_above_it_are_private_and_others_stay(tmp_path):
    (tmp_path / "theirs").mkdir(0o755)
    private_folder(tmp_path / "theirs" / "a" / "b" / "c")
    assert modes(tmp_path, tmp_path / "theirs" / "a" / "b" / "c") == [0o700, 0o700, 0o700, 0o755]
    private_folder(tmp_path / "theirs")
    assert modes(tmp_path, tmp_path / "theirs") == [0o755]


def test_file_in_a_folders_place_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match="file"):
            private_folder(folder)


def test_spool_and_recordings_are_private(tmp_path):
    Spool(tmp_path / "state" / "spool", 1 << 20, "us").close(whole=True)
    Recorder(tmp_path / "out" / "recordings").close()
    for folder in ("state/spool", "out/recordings"):
        assert modes(tmp_path, tmp_path / folder) == [0o700, 0o700]


def test_no_module_makes_a_folder_in_another_way():
    found = []
    for path in [path for name in OWN for path in (ROOT / name).rglob("*.py")]:
        # what is generated into docs/ is for everybody
        if path in (
            ROOT / "producers" / "private_folder.py",
            ROOT / "schemas" / "docs" / "__main__.py",
            # 0700 too, and it belongs to its user: tests/unit/test_kernels_compiled.py
            ROOT / "processors" / "kernels" / "cache.py",
        ):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in ("mkdir", "makedirs"):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not found, "use private_folder"
