"""A program in a pseudo-terminal of some size, with what it has drawn there."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import threading
import time

_CODE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1b[=>]")
_HOME = "\x1b[H"


class Terminal:
    """Runs a command with stdin, stdout and stderr in a terminal of its own."""

    def __init__(self, command, rows, columns, **how):
        self._ours, theirs = pty.openpty()
        self.resize(rows, columns)
        environment = {**(how.pop("env", None) or os.environ), "TERM": "xterm-256color"}
        for name in ("COLUMNS", "LINES", "NO_COLOR"):
            environment.pop(name, None)
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0), env=environment, **how,
        )  # fmt: skip
        os.close(theirs)
        self._said = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._reader.join(5)
        os.close(self._ours)

    def resize(self, rows, columns):
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def press(self, keys):
        os.write(self._ours, keys.encode())

    def everything(self):
        """All text so far, without what moves cursors and sets colours."""
        return _CODE.sub("", self._said.decode(errors="replace")).replace("\r", "")

    def frame(self):
        """The lines of the last whole screen."""
        frames = self._said.decode(errors="replace").split(_HOME)
        if len(frames) < 3:
            return []
        return [line.rstrip() for line in _CODE.sub("", frames[-2]).replace("\r", "").split("\n")]

    def wait_for(self, condition, seconds=30):
        """The first frame of which the condition holds."""
        until = time.monotonic() + seconds
        while True:
            frame = self.frame()
            if frame and condition(frame):
                return frame
            assert time.monotonic() < until, "\n".join(frame) or self.everything()[-3000:]
            assert self.process.poll() is None, self.everything()[-3000:]
            time.sleep(0.05)

    def ended(self, seconds):
        """The exit code."""
        return self.process.wait(seconds)

    def _read(self):
        while True:
            try:
                some = os.read(self._ours, 65_536)
            except OSError:
                return
            if not some:
                return
            self._said += some
