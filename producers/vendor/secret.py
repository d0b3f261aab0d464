"""The API key, and how it is taken out of what others wrote, however a server, a proxy or a library
spells it."""

import re
from dataclasses import dataclass, field
from functools import cached_property

SHORTEST = 6
"""Characters below which a word is no key: it stands in data by chance, and taking it out would
falsify prices."""

_HIDDEN = "***"


@dataclass(frozen=True)
class Secret:
    """A key that no `repr` shows. One of fewer than SHORTEST characters is not taken out of
    anything."""

    value: str = field(repr=False)

    @property
    def sound(self) -> bool:
        """Whether this can be a key: printable ASCII without spaces, long enough."""
        return (
            len(self.value) >= SHORTEST
            and self.value.isascii()
            and self.value.isprintable()
            and " " not in self.value
        )

    def scrub(self, text: str) -> str:
        """Return a text without the key, its percent-encoded and JSON-escaped spellings
        included."""
        return self._spellings.sub(_HIDDEN, text) if self.sound else text

    def scrub_frame(self, frame: bytes) -> bytes:
        """Return a frame without the key as `scrub` does; quick where there is nothing to take
        out."""
        if self.sound and (self._plain in frame or b"\\" in frame or b"%" in frame):
            return self._spellings_in_bytes.sub(_HIDDEN.encode(), frame)
        return frame

    @cached_property
    def _plain(self) -> bytes:
        return self.value.encode()

    @cached_property
    def _spellings(self) -> re.Pattern[str]:
        # either may have been encoded again: `%253D`, `\\u003d`; the longest spelling first: a `u`
        # or `%` begins others
        return re.compile(
            "".join(
                rf"(?:\\*u00(?i:{ord(each):02x})|%(?:25)*(?i:{ord(each):02x})|\\*{re.escape(each)})"
                for each in self.value
            )
        )

    @cached_property
    def _spellings_in_bytes(self) -> re.Pattern[bytes]:
        return re.compile(self._spellings.pattern.encode())
