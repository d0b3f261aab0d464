"""One processors' worker as the supervisor starts it: `faust -A processors.app worker`, ended when its supervisor ends."""

import os
import sys
import threading

from faust.cli.faust import cli


def main() -> None:
    """Run the worker of the slot that the environment names."""
    threading.Thread(target=_end_with_supervisor, name="supervisor-pipe", daemon=True).start()
    sys.argv = ["faust", "-A", "processors.app", "worker", "-l", "info", "--without-web"]
    cli()


def _end_with_supervisor() -> None:
    # stdin is the supervisor's pipe: it ends with the supervisor, SIGKILL included
    while os.read(0, 1):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
