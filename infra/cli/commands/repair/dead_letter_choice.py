"""Which dead letters `dead-letter list` prints: the newest, those of a time, a symbol or a
reason."""

import argparse
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from infra.cli.options import moment, whole


class Written(Protocol):
    """What of a letter it is chosen by."""

    @property
    def written_ms(self) -> int: ...

    @property
    def record(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class LetterChoice:
    """What the options say; None chooses all."""

    last: int | None = None
    since: int | None = None
    """Milliseconds UTC."""
    symbol: str | None = None
    reason: str | None = None

    def matches(self, letter: Written) -> bool:
        """Return whether a letter is one of those to print, whichever are the newest."""
        record = letter.record
        return (
            (self.since is None or letter.written_ms >= self.since)
            and (self.symbol is None or is_of(self.symbol, record))
            and (self.reason is None or self._has_reason(record))
        )

    def _has_reason(self, record: Mapping[str, Any]) -> bool:
        text = f"{record['error_class']}: {record['error_text']}".casefold()
        return (self.reason or "").casefold() in text


def is_of(symbol: str, record: Mapping[str, Any]) -> bool:
    """Return whether a letter is of a symbol: by its key, or of a frame, which has none, by the
    symbol's text in quotes."""
    name = symbol.encode()
    if record["key"] is not None:
        return bool(record["key"] == name)
    return b'"' + name + b'"' in record["value"]


def add_choice(command: argparse.ArgumentParser) -> None:
    """Add the options that choose among letters."""
    command.add_argument(
        "--last", type=whole(1, 1_000_000), metavar="N", help="the N that were written last"
    )
    command.add_argument(
        "--since",
        type=moment,
        help="those written since: 10m for ten minutes ago, or 2026-11-20T01:30Z",
    )
    command.add_argument("--symbol", help="those of a symbol")
    command.add_argument("--reason", help="those whose error has this text")


def chosen(letters: Iterable[Any], choice: LetterChoice) -> Iterable[Any]:
    """Return the letters to print: in the order of the topic, with `last` in that of time."""
    found = (letter for letter in letters if choice.matches(letter))
    if choice.last is None:
        return found
    newest: deque[Any] = deque(maxlen=choice.last)
    newest.extend(sorted(found, key=lambda letter: letter.written_ms))
    return newest
