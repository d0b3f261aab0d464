"""The files that a browser gets: our own, and BokehJS out of Bokeh's wheel. Read once, served by
name; no request ever becomes a path."""

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from importlib.resources.abc import Traversable

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
_COMMENT = re.compile(r"/\*.*?\*/|(?:^[ \t]*//[^\n]*\n)+", re.DOTALL | re.MULTILINE)
_NOTICE = re.compile("copyright|licen[sc]e", re.IGNORECASE)
BOKEH = ("bokeh.min.js", "bokeh-api.min.js")


@dataclass(frozen=True, slots=True)
class Asset:
    """A file, and what a browser is told of it."""

    body: bytes
    type: str
    tag: str
    """An ETag."""


@cache
def assets() -> dict[str, Asset]:
    """Return every file by the path that it is asked for by."""
    own = files("infra.page").joinpath("static")
    found = {f"/static/{file.name}": _asset(file.name, file.read_bytes()) for file in _of(own)}
    bokeh = files("bokeh")
    for name in BOKEH:
        script = bokeh.joinpath("server", "static", "js", name).read_bytes()
        found[f"/bokeh/{name}"] = _asset(name, script)
    found["/third-party.txt"] = _asset("third-party.txt", _notices(bokeh).encode())
    return found


def _of(folder: Traversable) -> list[Traversable]:
    return [
        file for file in folder.iterdir() if file.is_file() and f".{_ending(file.name)}" in TYPES
    ]


def _ending(name: str) -> str:
    return name.rpartition(".")[2]


def _asset(name: str, body: bytes) -> Asset:
    return Asset(body, TYPES[f".{_ending(name)}"], f'"{hashlib.sha256(body).hexdigest()[:32]}"')


def _notices(bokeh: Traversable) -> str:
    """Return the notices of what is served and is not ours."""
    licence = bokeh.joinpath("LICENSE.txt").read_text(encoding="utf-8")
    # the minified files lack most of the notices of what they include
    source = bokeh.joinpath("server", "static", "js", "bokeh.js").read_text(encoding="utf-8")
    included = dict.fromkeys(
        "\n".join(line.strip() for line in comment.strip().splitlines())
        for comment in _COMMENT.findall(source)
        if _NOTICE.search(comment)
    )
    return (
        "Third-party notices of the live page\n\n"
        f"BokehJS {version('bokeh')} ({', '.join(BOKEH)}) is served unchanged out of the Python "
        f"package bokeh.\n\n{licence}\n\nBokehJS includes work with these notices:\n\n"
        + "\n\n".join(included)
        + "\n"
    )
