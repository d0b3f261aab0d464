"""Where `infoway-streams` begins: a Ctrl-C while the modules are imported ends it without a
traceback. So nothing is imported before `main` that could be later."""

import signal

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def main() -> None:
    """Run the command line."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # until the command line takes it over
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # ends the start if another package named `schemas` is found first
    import processors as processors  # isort: skip
    import logging
    import sys

    from infra.cli.hold import asked_to_hold, hold

    if asked_to_hold(sys.argv[1:]):
        # the child has all that a command imports: this process is to stay small
        logging.basicConfig(level=logging.WARNING, format=LOG_FORMAT)
        sys.exit(hold(sys.argv[1:]))
    from infra.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
