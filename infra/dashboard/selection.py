"""Which rows of a list are shown and in which order: changed by keys, held within the list."""

from collections.abc import Sequence
from dataclasses import dataclass

SORTS = ("symbol", "last", "volume", "imbalance")
LONGEST_FILTER = 40


@dataclass(slots=True)
class Selection:
    """What the keys have chosen so far."""

    first: int = 0
    """The row at the top."""
    sort: str = SORTS[0]
    reverse: bool = False
    text: str = ""
    """Rows whose symbol has this text are shown."""
    typing: bool = False
    """Whether keys go into the text."""

    def press(self, key: str, page: int) -> None:
        """Take up a key; `page` rows are on the screen. A key without a meaning changes nothing."""
        if self.typing:
            self._type(key)
            return
        match key:
            case "up" | "k":
                self.first -= 1
            case "down" | "j":
                self.first += 1
            case "pgup":
                self.first -= page
            case "pgdn" | " ":
                self.first += page
            case "home" | "g":
                self.first = 0
            case "end" | "G":
                self.first = 1 << 30
            case "s":
                self.sort = SORTS[(SORTS.index(self.sort) + 1) % len(SORTS)]
                self.first = 0
            case "r":
                self.reverse = not self.reverse
                self.first = 0
            case "/":
                self.typing = True
            case "esc":
                self.text = ""
            case _:
                return

    def shown(self, count: int, page: int) -> range:
        """Return the rows that are on the screen of `page` rows, of a list of `count`."""
        self.first = max(0, min(self.first, count - page))
        return range(self.first, min(count, self.first + page))

    def matches(self, symbol: str) -> bool:
        """Return whether a symbol is one of those to show, whatever the case of its letters."""
        return self.text.casefold() in symbol.casefold()

    def _type(self, key: str) -> None:
        if key == "enter":
            self.typing = False
        elif key == "esc":
            self.text, self.typing = "", False
        elif key == "backspace":
            self.text = self.text[:-1]
        elif len(key) == 1 and key.isprintable() and len(self.text) < LONGEST_FILTER:
            self.text += key
        else:
            return
        self.first = 0


def help_text(selection: Selection, shown: range, matching: int, total: int) -> Sequence[str]:
    """Return what is on the screen of the list, and the keys, in pieces that stay whole."""
    rows = f"{shown.start + 1}-{shown.stop}" if shown else "none"
    found = f" with {selection.text!r}" if selection.text else ""
    of = f"{matching}{found} of {total}" if selection.text else str(total)
    order = f"by {selection.sort}{', reversed' if selection.reverse else ''}"
    if selection.typing:
        return (f"filter: {selection.text}_", "Enter keeps it", "Esc clears it")
    return (
        f"{rows} of {of}, {order}",
        "arrows scroll",
        "s sort",
        "r reverse",
        "/ filter",
        "^C end",
    )
