"""Options and settings are checked before anything starts: all mistakes at once, a line each, and
no traceback."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from infra.cli import main as cli
from infra.cli.commands.running.up import topology_over
from infra.cli.main import parser
from infra.cli.options import topology_of
from infra.runtime.exit_codes import Code
from infra.runtime.made_with import MadeWith
from processors.engine.state import StateNotReadable
from schemas.numbers import whole_number
from schemas.topics import Topology

CLUSTER = {"INFOWAY_BOOTSTRAP": "127.0.0.1:1", "INFOWAY_REGISTRY": "http://127.0.0.1:1"}


@pytest.fixture
def mistakes(monkeypatch, capsys):
    """Runs a command, whose work must not begin, and returns its mistakes."""
    for name in [name for name in os.environ if name.startswith("INFOWAY_")]:
        monkeypatch.delenv(name)

    def begun(*_):
        raise AssertionError("the command has begun")

    monkeypatch.setattr(cli, "begin", begun)

    def run(*arguments, **environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            cli.main([*map(str, arguments)])
        assert ended.value.code == Code.SETTINGS_WRONG
        return [
            line.removeprefix("infoway-streams: ") for line in capsys.readouterr().err.splitlines()
        ]

    return run


def test_all_mistakes_come_at_once_a_line_each(mistakes):
    found = mistakes(
        *(
            "up",
            "--rate",
            "nan",
            "--symbols",
            "",
            "--prefix",
            "a b/",
            "--intervals",
            "7m",
            "--partitions",
            "0",
            "--workers",
            "x",
        ),
        INFOWAY_UPDATE_MS="abc",
        INFOWAY_HTTP="foo",
        INFOWAY_SPOOL_MIB="-3",
        INFOWAY_SILENCE_S="5m",
        INFOWAY_API_KEY_FILE="/nowhere",
        INFOWAY_SECURITY_PROTOCOL="TLS",
        **CLUSTER,
    )
    beginnings = [
        "--workers 'x': expected a whole number from 1 to 256",
        "--rate 'nan': expected a number above 0 to 100000",
        "--partitions '0': expected a whole number from 1 to 1000000",
        "--prefix 'a b/': expected letters, digits, '.', '_' and '-' alone",
        "--intervals '7m': bar intervals: '7m'; allowed",
        "INFOWAY_SECURITY_PROTOCOL='TLS': one of PLAINTEXT",
        "--symbols '': expected at least one symbol",
        "INFOWAY_API_KEY_FILE=/nowhere: No such file",
        "INFOWAY_SILENCE_S='5m': expected a whole number of seconds from 1 to 86400",
        "INFOWAY_SPOOL_MIB='-3': expected a whole number of MiB from 1 to",
        "INFOWAY_HTTP='foo': expected host:port",
        "INFOWAY_UPDATE_MS='abc': expected a whole number from 1 to 86400000",
    ]
    assert len(found) == len(beginnings)
    for line, beginning in zip(found, beginnings, strict=True):
        assert line.startswith(beginning)


@pytest.mark.parametrize(
    "text", ["nan", "inf", "-1", "0", "1e3", " 5 ", "١٢", "1_0", "9" * 400, "", "0x5", "1000000"]
)
@pytest.mark.parametrize("command", [("up", "--rate"), ("simulate", "--rate")])
def test_a_rate_is_a_plain_number_above_0(mistakes, command, text):
    (line,) = mistakes(*command[:1], f"{command[1]}={text}")
    assert line.startswith(f"--rate {text[:60]!r}: expected a number above 0")


@pytest.mark.parametrize("text", ["-1", "1e3", " 5 ", "١٢", "²", "9" * 5_000, "", "5.0", "+5"])
@pytest.mark.parametrize(
    ("arguments", "setting"),
    [
        (("up",), "INFOWAY_SPOOL_MIB"),
        (("up",), "INFOWAY_SILENCE_S"),
        (("up",), "INFOWAY_UPDATE_MS"),
        (("up",), "INFOWAY_EMIT_MS"),
        (("up",), "INFOWAY_WATERMARK_DELAY_MS"),
        (("up",), "INFOWAY_REVISION_HORIZON_MS"),
        (("up",), "INFOWAY_BATCH_RECORDS"),
        (("replay", "f", "--out", "out"), "INFOWAY_EMIT_MS"),
        (("worker",), "INFOWAY_BATCH_RECORDS"),
        (("produce", "--url", "ws://h/ws"), "INFOWAY_PARTITIONS"),
        (("topology", "apply"), "INFOWAY_REPLICATION"),
    ],
)
def test_a_setting_that_is_a_whole_number_is_ascii_digits_alone(mistakes, arguments, setting, text):
    if text:
        (line,) = mistakes(*arguments, **{setting: text}, **CLUSTER)
        assert line.startswith(f"{setting}={text[:20]!r}"[:-1])
        assert "expected a whole number" in line


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("up",), "--kafka-port"), (("up",), "--registry-port"), (("simulate",), "--port"),
        (("up",), "--workers"),
        (("replay", "f", "--out", "out"), "--workers"),
        (("record", "--out", "out", "--url", "ws://h/ws"), "--rotate-mib"),
        (("up",), "--seconds"), (("record", "--out", "out", "--url", "ws://h/ws"), "--seconds"),
        (("simulate",), "--speed"),
        (("up",), "--partitions"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("text", ["-1", "x", "١٢", "1e400", "99999999999999999999", ""])
def test_an_option_that_is_a_number_says_what_is_expected(mistakes, arguments, option, text):
    (line,) = mistakes(*arguments, f"{option}={text}")
    assert line.startswith(f"{option} {text!r}: expected a")


@pytest.mark.parametrize(
    "value",
    [
        "foo",
        ":8080",
        "127.0.0.1:",
        "127.0.0.1:99999",
        "127.0.0.1:٨٠",
        "nohost.invalid:1",
        "a" * 300 + ":1",
    ],
)
@pytest.mark.parametrize("arguments", [("up",), ("produce", "--url", "ws://h/ws"), ("worker",)])
def test_the_address_to_serve_at_can_be_had(mistakes, arguments, value):
    (line,) = mistakes(*arguments, INFOWAY_HTTP=value, **CLUSTER)
    assert line.startswith(f"INFOWAY_HTTP={value!r}: ")


@pytest.mark.parametrize("prefix", ["a b", "a/", "ü.", "a\n", "x" * 250])
def test_a_prefix_makes_names_that_kafka_takes(mistakes, prefix):
    (line,) = mistakes("tail", "t", "--prefix", prefix, **CLUSTER)
    assert line.startswith(f"--prefix {prefix!r}: expected ")
    (line,) = mistakes("tail", "t", INFOWAY_PREFIX=prefix, **CLUSTER)
    assert line.startswith(f"INFOWAY_PREFIX={prefix!r}: expected ")


def test_the_longest_prefix_leaves_room_for_the_longest_topic_and_for_a_replays_own(mistakes):
    longest = 249 - max(len(topic.name) for topic in Topology().topics())
    (line,) = mistakes("tail", "t", "--prefix", "x" * (longest + 1), **CLUSTER)
    assert f"expected {longest} characters at most: Kafka takes 249" in line
    (line,) = mistakes("replay", "f", "--out", "out", "--prefix", "x" * longest)
    assert f"expected {longest - len('replay-0123456789ab.')} characters at most" in line


@pytest.mark.parametrize(
    "value", ["a:0", "a:99999", "a b:1", "http://a:1", "a:1,,b:2", "a:x", ":9092", "a:1/"]
)
def test_brokers_are_hosts_and_ports(mistakes, value):
    (line,) = mistakes("tail", "t", INFOWAY_BOOTSTRAP=value, INFOWAY_REGISTRY="http://r")
    assert line.startswith(f"INFOWAY_BOOTSTRAP={value!r}: expected HOST:PORT")


@pytest.mark.parametrize(
    "value", ["registry:8080", "ftp://r", "http://", "http://r:99999", "http://r r", "//r"]
)
def test_the_registry_and_the_rest_api_are_urls_and_no_secret_is_shown(mistakes, value):
    (line,) = mistakes("tail", "t", INFOWAY_BOOTSTRAP="b:1", INFOWAY_REGISTRY=value)
    assert line.startswith(f"INFOWAY_REGISTRY={value!r}: expected http://")
    lines = mistakes(
        "produce", "--url", "ws://h/ws", "--rest-url", "ftp://user:secret@h", **CLUSTER
    )
    assert [line.partition(":")[0] for line in lines] == ["--rest-url 'ftp"]
    assert "secret" not in lines[0]


def test_an_option_overrules_a_setting_that_is_wrong(monkeypatch):
    monkeypatch.setenv("INFOWAY_PARTITIONS", "x")
    monkeypatch.setenv("INFOWAY_INTERVALS", "7m")
    parsed = cli.parser().parse_args(["up", "--partitions", "3", "--intervals", "1m"])
    assert (topology_of(parsed).partitions, topology_of(parsed).intervals) == (3, ("1m",))
    cli.check(parsed)


def test_settings_stand_in_for_options(monkeypatch):
    for name, value in {
        "PREFIX": "p.",
        "INTERVALS": "1m",
        "WINDOWS": "5m",
        "ACTIVITY": "tick-5",
        "PARTITIONS": "2",
    }.items():
        monkeypatch.setenv(f"INFOWAY_{name}", value)
    assert topology_of(cli.parser().parse_args(["up"])) == Topology(
        "p.", ("1m",), ("5m",), 2, ("tick-5",)
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("up", "--data"), ("replay", "f", "--out"), ("record", "--url", "ws://h/ws", "--out"),
        ("export", "--out"),
        ("backfill", "--symbols", "BTCUSDT", "--from", "2026-01-01T00:00Z", "--state"),
    ],
)  # fmt: skip
def test_a_folder_that_cannot_be_written_is_named(mistakes, arguments, tmp_path):
    file = tmp_path / "file"
    file.touch()
    cluster = CLUSTER if arguments[0] in ("export", "backfill") else {}
    for place in (file, file / "below"):
        (line,) = mistakes(*arguments, place, **cluster)
        assert line == f"{arguments[-1]} '{place}': {file} is no folder: name a folder"
    # where nothing can be written, not by root either
    (line,) = mistakes(*arguments, "/proc/infoway", **cluster)
    assert line.startswith(f"{arguments[-1]} '/proc/infoway': it cannot be written")
    (line,) = mistakes(*arguments, "a" * 300, **cluster)
    assert line.startswith(f"{arguments[-1]} 'aaa")


def test_every_bad_symbol_is_a_line_and_a_file_of_symbols_is_read_first(mistakes, tmp_path):
    lines = mistakes("backfill", "--symbols", "700.HK,btcusdt", "--from", "yesterday", **CLUSTER)
    assert [line.partition(":")[0].partition(" (")[0] for line in lines][:2] == [
        "symbol '700.HK' does not have the 5 digits of a .HK code",
        "symbol 'btcusdt' is not in the vendor's spelling",
    ]
    assert lines[2].startswith("--from yesterday")
    file = tmp_path / "symbols"
    file.write_bytes(b"\xff")
    for named in (file, tmp_path, tmp_path / "none"):
        (line,) = mistakes("up", "--symbols-file", named)
        assert line.startswith(f"--symbols-file {named}: ")


@pytest.mark.parametrize("host", ["nohost.invalid", "192.0.2.1", "a" * 300])
def test_an_address_that_cannot_be_listened_at_is_named(mistakes, host):
    (line,) = mistakes("simulate", "--host", host)
    assert line.startswith(f"--host {host!r} --port 0: ")


def test_a_folder_without_room_is_named(mistakes, tmp_path, monkeypatch):
    class Status:
        f_bavail, f_frsize = 1 << 20, 16

    monkeypatch.setattr("infra.cli.checks.os.fstatvfs", lambda _: Status)
    (line,) = mistakes("up", "--data", tmp_path)
    assert (
        line == f"--data '{tmp_path}': 16 MiB are free there, 64 are needed: make room, or name "
        "another folder"
    )


def test_a_spool_whose_records_have_filled_the_disk_is_no_mistake(mistakes, tmp_path, monkeypatch):
    class Full:
        f_bavail, f_frsize = 0, 16

    monkeypatch.setattr("infra.cli.checks.os.fstatvfs", lambda _: Full)
    monkeypatch.chdir(tmp_path)
    url = ("--url", "ws://127.0.0.1:1/ws")
    (line,) = mistakes("produce", *url, **CLUSTER)
    assert (
        line
        == "INFOWAY_SPOOL 'data/spool': 0 MiB are free there, 64 are needed: make room, or name "
        "another folder"
    )
    for folder in (tmp_path / "data" / "spool", tmp_path / "named"):
        folder.mkdir(parents=True)
        (folder / "001000000.spool").touch()
    for environment in ({}, {"INFOWAY_SPOOL": str(tmp_path / "named")}):
        # it would end for good, and those records wait for it
        with pytest.raises(AssertionError, match="has begun"):
            mistakes("produce", *url, **environment)


def test_a_data_folder_of_other_intervals_or_partitions_is_named_and_so_is_the_way_out(
    mistakes, tmp_path
):
    folder = tmp_path / "simulated"
    folder.mkdir()
    MadeWith(folder, Topology(intervals=("1m",), partitions=2)).note()
    lines = mistakes("up", "--data", tmp_path, "--intervals", "1m,5m", "--partitions", "6")
    assert lines == [
        f"--intervals 1m,5m: the data in {folder} was made with 1m: give --intervals 1m, or "
        "another folder by --data",
        f"--partitions 6: the data in {folder} was made with 2: give --partitions 2, or another "
        "folder by --data",
    ]
    (folder / "made-with.json").write_text("[")
    (line,) = mistakes("up", "--data", tmp_path)
    assert "made-with.json cannot be read" in line
    (folder / "made-with.json").write_text('{"": {"intervals": "7m", "partitions": "2"}}')
    lines = mistakes("up", "--data", tmp_path)
    assert "made-with.json: intervals: bar intervals: '7m'; allowed" in lines[0]


def test_what_up_is_not_told_is_as_the_data_folder_was_made(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("INFOWAY_")]:
        monkeypatch.delenv(name)
    folder = tmp_path / "simulated"
    folder.mkdir()
    made = Topology("a.", ("5s", "1m"), ("30s",), 3, ("tick-10",))
    MadeWith(folder, made).note()

    def asked(*arguments):
        return topology_over(parser().parse_args(["up", "--data", str(tmp_path), *arguments]))

    assert asked("--prefix", "a.") == made
    assert asked("--prefix", "a.", "--windows", "1m") == replace(made, windows=("1m",))
    assert asked() == Topology()
    monkeypatch.setenv("INFOWAY_INTERVALS", "1h")
    assert asked("--prefix", "a.").intervals == ("1h",)


def test_a_data_folder_is_taken_again_with_the_settings_that_it_was_made_with(tmp_path):
    names = Topology(intervals=("1m",), partitions=2)
    MadeWith(tmp_path, names).note()
    MadeWith(tmp_path, Topology(prefix="other.")).note()
    assert MadeWith(tmp_path, names).mistakes() == []
    assert MadeWith(tmp_path, Topology(prefix="third.", intervals=("5m",))).mistakes() == []


def test_a_wrong_setting_of_a_plan_is_no_difference(monkeypatch):
    for name, value in {**CLUSTER, "INFOWAY_REPLICATION": "x"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        cli.main(["topology", "plan", "--detailed-exitcode"])
    assert ended.value.code == Code.FAILED


@pytest.mark.parametrize(
    ("text", "found"),
    [("5", 5), ("005", 5), ("6", None), ("", None), ("٥", None), ("5 ", None), ("9" * 5_000, None)],
)
def test_whole_numbers(text, found):
    assert whole_number(text, 0, 5) == found


def test_a_place_that_fails_later_is_named_without_a_traceback(monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device", "/data/x")

    monkeypatch.setattr(cli, "begin", full)
    with pytest.raises(SystemExit) as ended:
        cli.main(["simulate"])
    assert ended.value.code == Code.FAILED
    assert (
        capsys.readouterr().err
        == "infoway-streams: /data/x: No space left on device: make room, allow it, or name "
        "another place\n"
    )


def test_a_ctrl_c_while_modules_are_imported_shows_no_traceback(tmp_path):
    # a module of the imports that waits, as a slow disk would
    (tmp_path / "rich").mkdir()
    (tmp_path / "rich" / "__init__.py").write_text(
        "import sys, time\nprint('importing', flush=True)\ntime.sleep(60)\n"
    )
    for program in (["-m", "infra"], ["-c", "from infra.__main__ import main; main()"]):
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        child = subprocess.Popen(
            [sys.executable, *program, "up"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert child.stdout.readline() == b"importing\n"
        child.send_signal(2)
        _, said = child.communicate(timeout=30)
        assert (said, child.returncode) == (b"", -2)


def test_nothing_is_imported_before_a_ctrl_c_is_taken_care_of():
    code = (
        "import sys, signal; before = set(sys.modules); import infra.__main__; "
        "print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['infra', 'infra.__main__']\n"


def test_the_numbers_of_skip_and_redrive_are_plain_digits_too(mistakes):
    place = ("--agent", "vwap", "--topic", "infoway.raw.trade")
    lines = mistakes("skip", *place, "--partition", "1_0", "--offset", "-1", **CLUSTER)
    assert lines == [
        "--partition '1_0': expected a whole number from 0 to 2147483647",
        "--offset '-1': expected a whole number from 0 to 9223372036854775807",
    ]
    (line,) = mistakes("dead-letter", "redrive", "--max-attempts", "1e3")
    assert line == "--max-attempts '1e3': expected a whole number from 1 to 1000000"


def test_a_transaction_that_hangs_before_a_skip_is_told_in_a_line(monkeypatch, capsys):
    def hangs(*_):
        raise StateNotReadable("nothing more to be read for 30 s")

    for name, value in CLUSTER.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(cli, "begin", hangs)
    with pytest.raises(SystemExit) as ended:
        cli.main(
            [
                "skip",
                "--agent",
                "vwap",
                "--topic",
                "infoway.raw.trade",
                "--partition",
                "1",
                "--offset",
                "2",
            ]
        )
    assert ended.value.code == Code.FAILED
    assert capsys.readouterr().err == "infoway-streams: nothing more to be read for 30 s\n"
