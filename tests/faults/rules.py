"""Rules of the engine that a test takes out, to be seen to fail: by `make drill`, since that takes
as long as the test itself."""

import os

LONG = bool(os.environ.get("DRILL_LONG"))


def whole_and_without(*rules: str) -> list[str]:
    """Return the empty name, for the whole engine, and in a long run each rule that is taken
    out."""
    return ["", *rules] if LONG else [""]
