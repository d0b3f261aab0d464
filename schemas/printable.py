"""Text of others for a terminal or a log: one line, and no character that moves a cursor, sets a
colour or turns the text around."""

import logging
from datetime import UTC, datetime
from typing import Any


def printable(text: str) -> str:
    """Return the text with every control, format and separator character but the space as its
    escape, `\\x1b` for instance."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def utc_text(ms: int, form: str) -> str:
    """Return a time in ms UTC by a form of strftime; the number where no calendar has it, as anyone
    may stamp a record."""
    return (
        datetime.fromtimestamp(ms // 1000, UTC).strftime(form)
        if 0 <= ms < 253_402_300_800_000
        else str(ms)
    )


class _Record(logging.LogRecord):
    """A log record whose message is one printable line."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.exc_info:
            lines = logging.Formatter().formatException(self.exc_info).splitlines()
            self.exc_text = "\n".join(map(printable, lines))

    def getMessage(self) -> str:  # noqa: N802 - logging's name
        return printable(super().getMessage())


def guard_logs() -> None:
    """Make every log record of this process printable from now on, whoever logs it and whatever it
    quotes."""
    logging.setLogRecordFactory(_Record)
