"""The wheel, built and installed into an empty folder: what is in it, that it works from there, and
what shadows it."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("schemas", "producers", "processors", "infra")
LOAD = """
import json, schemas, processors.model.sessions
from schemas.topics import contract, load_example, load_schema
names = sorted({topic.schema for topic in contract() if topic.schema})
processors.model.sessions.Calendars()
found = {name: [load_schema(name)["name"], len(load_example(name))] for name in names}
print(json.dumps([schemas.__file__, found]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
    ]
    subprocess.run([*pip, "--wheel-dir", folder, ROOT], check=True, timeout=200)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("installed")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
    ]
    subprocess.run([*pip, "--target", folder, wheel], check=True, timeout=200)
    return folder


def run(*arguments, path, cwd):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def test_the_wheel_bears_the_four_packages_whole_and_nothing_else(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    here = {
        path
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        # compiled kernels are this machine's own
        if path.is_file() and path.suffix != ".pyc" and ".compiled" not in path.parts
    }
    assert names == {path.relative_to(ROOT).as_posix() for path in here}
    assert {
        "schemas/topics.yaml",
        "schemas/bar.avsc",
        "schemas/examples/bar.json",
        "processors/model/sessions.yaml",
    } <= names


def test_it_works_from_where_it_is_installed(installed, tmp_path):
    helped = run("-m", "infra.cli.main", "--help", path=[installed], cwd=tmp_path)
    assert (helped.returncode, helped.stderr) == (0, "")
    assert "replay" in helped.stdout
    loaded = run("-c", LOAD, path=[installed], cwd=tmp_path)
    assert loaded.returncode == 0, loaded.stderr
    place, schemas = json.loads(loaded.stdout)
    assert Path(place).parents[1] == installed
    assert {path.stem for path in (ROOT / "schemas").glob("*.avsc")} == set(schemas)
    assert schemas["bar"][0] == "Bar"


@pytest.mark.parametrize("command", ["infra.cli.main --help", "faust -A processors.app worker"])
def test_another_package_named_schemas_ends_the_start_in_one_line(installed, tmp_path, command):
    fake = tmp_path / "other" / "schemas" / "__init__.py"
    fake.parent.mkdir(parents=True)
    fake.write_text("raise SystemExit('imported')")
    done = run("-m", *command.split(), path=[fake.parents[1], installed], cwd=tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert str(fake) in line
    assert "an environment of its own" in line
