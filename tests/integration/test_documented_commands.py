"""The commands of the pages that need a cluster, as they stand there, in a folder as a clone is."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import drill
import pytest
from documentation import ROOT, blocks
from documented_commands import COMMANDS, ON_A_CLUSTER

from infra.embedded.ports import free_ports


@pytest.fixture
def folder(tmp_path):
    """A folder with `.venv`, and with the files that the pages show."""
    (tmp_path / ".venv").symlink_to(Path(sys.prefix), target_is_directory=True)
    shown = (ROOT / "docs" / "live-data.md").read_text()
    [script] = [block for block in blocks(shown, "yaml") if "do: stall" in block]
    (tmp_path / "faults.yaml").write_text(script)
    [recording] = [
        block
        for block in blocks((ROOT / "docs" / "quickstart.md").read_text(), "json")
        if block.count("\n") == 3
    ]
    (tmp_path / "day.jsonl").write_text(recording)
    return tmp_path


@pytest.fixture
def environment(stack, namespace):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("INFOWAY_")}
    return kept | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "INFOWAY_BOOTSTRAP": stack.bootstrap,
        "INFOWAY_REGISTRY": stack.registry_url,
        "INFOWAY_PREFIX": namespace,
    }


def typed(command, folder, environment):
    """What a command prints that is typed into a shell."""
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def of(part):
    """The documented commands with a part."""
    return [each for each, how in COMMANDS.items() if how == ON_A_CLUSTER and part in each]


def test_topology_dead_letters_and_export_run_as_documented(folder, environment):
    done = []
    for part in ("topology plan", "topology apply", "dead-letter", "export"):
        assert of(part), part
        for command in of(part):
            done.append(typed(command, folder, environment))
    assert "to create" in done[0]
    assert (folder / "export").is_dir()


def ended(process):
    """Ctrl-C; returns the exit code."""
    process.send_signal(signal.SIGINT)
    return process.wait(60)


@pytest.mark.timeout(600)
def test_what_the_simulator_sends_is_recorded_and_replayed_as_documented(folder, environment):
    [port] = map(str, free_ports(0))
    [simulate], [record] = of("simulate"), of(" record ")
    replays = of(" replay ")
    assert len(replays) == 2
    processes = []
    try:
        for command in (simulate, record):
            # the shell makes way for the program, which then gets the signal
            shell = ["bash", "-c", f"exec {command.replace('8090', port)}"]
            processes.append(
                subprocess.Popen(
                    shell, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
                )
            )
            if command == simulate:
                assert processes[0].stdout.readline().startswith("simulator at ")
        assert drill.wait_until(lambda: any(map(recorded, folder.glob("recorded/*.gz"))), 120)
        codes = [ended(process) for process in reversed(processes)]
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stdout.close()
    assert codes == [0, 0]
    for command in replays:
        assert "frames in" in typed(command, folder, environment)
        shutil.rmtree(folder / "out")


def recorded(file):
    return file.stat().st_size > 2_000
