"""The lock of a data folder: refused at once beside a living stack, awaited while a killed one's
servers end."""

import os
import signal
import subprocess
import sys

import pytest

from infra.embedded import folder
from infra.embedded.folder import FolderInUse, lock_folder

# a server that needs half a second to end
SERVER = "trap 'sleep 0.5; touch ended; exit' TERM; touch started; while :; do sleep 0.05; done"
HOLDER = (
    "import sys, pathlib\nfrom infra.embedded.folder import lock_folder\nfrom "
    "infra.embedded.process import Server\n"
    "folder = pathlib.Path(sys.argv[1])\nlock = lock_folder(folder)\n"
    "server = Server('slow', ['sh', '-c', sys.argv[2]], folder, keeps=(lock.fileno(),))\n"
    "server.wait_ready((folder / 'started').exists, 30)\nprint('ready', "
    "flush=True)\nsys.stdin.read()"
)


def test_a_folder_in_use_is_refused_with_its_holder(tmp_path):
    with lock_folder(tmp_path):
        with pytest.raises(
            FolderInUse,
            match=rf"another embedded stack runs over {tmp_path} \(process {os.getpid()}\): "
            r"stop it",
        ):
            lock_folder(tmp_path)
    lock_folder(tmp_path).close()


def test_a_folder_is_free_once_the_servers_of_a_killed_process_have_ended(monkeypatch, tmp_path):
    monkeypatch.setattr(folder, "STOP_TIMEOUT", 60.0)
    command = [sys.executable, "-c", HOLDER, str(tmp_path), SERVER]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "ready\n"
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    with lock_folder(tmp_path):
        assert (tmp_path / "ended").exists()
