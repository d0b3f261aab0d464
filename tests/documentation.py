"""The pages of the project, and what they show: commands, names of the code, links."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]

PAGES = tuple(
    path
    for path in sorted(
        (
            *ROOT.glob("*.md"),
            *(ROOT / "docs").rglob("*.md"),
            *(ROOT / "examples").glob("*.md"),
            *(ROOT / "infra").rglob("*.md"),
        )
    )
)
WRITTEN = tuple(
    path
    for path in PAGES
    if path.name != "CHANGELOG.md" and path.parent != ROOT / "docs" / "topics"
)
"""Without the changelog, which names what is gone, and the pages that are made from the schemas."""


def name_of(path: Path) -> str:
    """A page's path in the project."""
    return path.relative_to(ROOT).as_posix()


def blocks(text: str, language: str) -> list[str]:
    """The code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def prose(text: str) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[str]:
    """The commands of a page: lines of its blocks in sh, and code in its prose that begins with
    a program of the project."""
    lines = [
        line.partition("  # ")[0].strip()
        for block in blocks(text, "sh")
        for line in block.replace("\\\n", " ").splitlines()
    ]
    quoted = re.findall(r"`((?:infoway-streams|make) [^`\n]+(?:\n[^`\n]+)?)`", prose(text))
    return [" ".join(line.split()) for line in (*lines, *quoted) if line]
