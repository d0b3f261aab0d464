"""Kernels are compiled once, ahead, and what was compiled of other sources is never loaded."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from processors.kernels import compiled

pytestmark = pytest.mark.skipif(not compiled.AVAILABLE, reason="numba has no wheel here")
ROOT = Path(__file__).parents[2]
CALLEE = """from processors.kernels.compiled import part
@part
def more(number):
    return number + {}
"""
CALLER = """from processors.kernels.callee import more
from processors.kernels.compiled import INT, kernel
@kernel(INT)
def run(number):
    return more(number)
"""
ASKS = """import logging, sys
logging.basicConfig(level="INFO", stream=sys.stdout, format="%(message)s")
from processors.kernels.build import make_ready
make_ready()
from processors.kernels.caller import run
hits = sum(run.stats.cache_hits.values()), sum(run.stats.cache_misses.values())
print("RESULT", run(40), *hits)
"""


@pytest.fixture
def tree(tmp_path):
    """A small project that has the real machinery and kernels of its own."""
    folder = tmp_path / "tree" / "processors" / "kernels"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    for name in ("__init__", "compiled", "cache", "exact_types", "build"):
        shutil.copy(ROOT / "processors" / "kernels" / f"{name}.py", folder)
    (folder / "callee.py").write_text(CALLEE.format(2))
    (folder / "caller.py").write_text(CALLER)
    return tmp_path / "tree"


AS_SOMEBODY = """import importlib.metadata, fcntl, numba, os, pkgutil, platform, subprocess
import logging, sys, tempfile
numba.config.CPU_NAME, numba.config.CPU_FEATURES = "generic", ""
numba.njit(lambda number: number)(1)  # the interpreter's folders may be root's alone
os.setgid(10001), os.setuid(10001)
"""


def start(tree, first="", **environment):
    return subprocess.Popen(
        [sys.executable, "-c", first + ASKS],
        cwd=tree,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(tree), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def result(process):
    """Return what the kernel returned, and how often it was loaded and compiled in the process."""
    output, _ = process.communicate(timeout=280)
    lines = [line for line in output.splitlines() if line.startswith("RESULT")]
    assert len(lines) == 1, output
    [line] = lines
    return [int(each) for each in line.split()[1:]], output


def test_a_kernel_is_compiled_once_in_another_process_and_anew_if_what_it_calls_changed(tree):
    kept = str(tree.parent / "kept")
    first, output = result(start(tree, INFOWAY_KERNELS=kept))
    assert (first, "kernels were compiled" in output) == ([42, 1, 0], True)
    second, output = result(start(tree, INFOWAY_KERNELS=kept))
    assert (second, "compiled" in output) == ([42, 1, 0], False)
    [folder] = [each for each in Path(kept).iterdir() if each.is_dir()]
    assert folder.stat().st_mode & 0o77 == 0
    (tree / "processors" / "kernels" / "callee.py").write_text(CALLEE.format(3))
    assert result(start(tree, INFOWAY_KERNELS=kept))[0] == [43, 1, 0]


def test_of_four_workers_that_start_at_once_one_compiles(tree):
    kept = str(tree.parent / "kept")
    started = [start(tree, INFOWAY_KERNELS=kept) for _ in range(4)]
    found = [result(each) for each in started]
    assert [numbers for numbers, _ in found] == [[42, 1, 0]] * 4
    assert sum(output.count("compiling kernels into") for _, output in found) == 1


def test_what_computes_with_a_float_is_not_built(tree):
    """In a kernel, in what it calls, and where an earlier build was cut off: what comes out of the
    cache has no types."""
    (tree / "processors" / "kernels" / "callee.py").write_text(CALLEE.format("0.5"))
    environment = {"PYTHONPATH": str(tree), "INFOWAY_KERNELS": str(tree.parent / "kept")}
    build = [sys.executable, "-m", "processors.kernels.build"]
    for _ in range(2):
        ended = subprocess.run(
            build, cwd=tree, env=environment, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 1
        assert "NotExact: more: " in ended.stderr
        assert "float64" in ended.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_user_without_a_home_reads_what_the_image_has_and_cannot_write(tree):
    with tempfile.TemporaryDirectory() as open_folder:  # pytest's are root's alone
        Path(open_folder).chmod(0o755)
        _reads_what_the_image_has(shutil.copytree(tree, Path(open_folder) / "tree"))


def _reads_what_the_image_has(tree):
    # as the Dockerfile's build does
    build = [sys.executable, "-m", "processors.kernels.build"]
    subprocess.run(build, cwd=tree, env={"PYTHONPATH": str(tree)}, check=True, timeout=280)
    for path in tree.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    numbers, output = result(start(tree, AS_SOMEBODY, TMPDIR="/nowhere"))
    assert (numbers, "compiled" in output) == ([42, 1, 0], False), output
    # of nothing that is there, and with nowhere to write, it is compiled in the process
    shutil.rmtree(tree / "processors" / "kernels" / ".compiled")
    numbers, output = result(start(tree, AS_SOMEBODY, INFOWAY_KERNELS="/proc/nowhere"))
    assert numbers[0] == 42, output


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_folder_that_others_can_write_to_is_not_used(tree, mode):
    from processors.kernels.cache import digest, find

    folder = tree / "kept" / digest({})
    folder.mkdir(parents=True)
    (folder / "complete").touch()
    folder.chmod(0o700)
    assert find({"INFOWAY_KERNELS": str(tree / "kept")}) == folder
    folder.chmod(mode)
    assert find({"INFOWAY_KERNELS": str(tree / "kept")}) is None


def test_without_numba_one_line_says_so(tree):
    (tree / "numba.py").write_text("raise ImportError\n")
    (tree / "processors" / "kernels" / "caller.py").write_text(
        CALLER + "run.stats = type('', (), {'cache_hits': {}, 'cache_misses': {}})\n"
    )
    numbers, output = result(start(tree))
    assert numbers == [42, 0, 0]
    assert output.count("numba has no wheel for this machine") == 1


def test_every_kernel_of_the_product_is_loaded_from_its_folder_by_a_new_process():
    """A part that calls itself, by way of another one too, is compiled and cannot be loaded."""
    build = "from processors.kernels import build; build.fill(); build.make_ready(); print('ready')"
    for _ in range(2):
        ended = subprocess.run(
            [sys.executable, "-c", build], capture_output=True, text=True, timeout=280, check=False
        )
        assert (ended.returncode, ended.stdout.strip()[-5:]) == (0, "ready"), ended.stderr
