"""Writes the documents of the contract, for `make docs`: `python -m schemas.docs FOLDER`; what no
topic has any more is removed."""

import sys
from pathlib import Path

import yaml

from schemas.docs.asyncapi import document
from schemas.docs.pages import NOTICE, index, page, page_name
from schemas.topics import contract

TOPICS = "topics"


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        # the same decimal type in every field stands written out
        return True


def documents() -> dict[str, str]:
    """Return the text of every document by its path in the folder."""
    asyncapi = yaml.dump(document(), Dumper=_Plain, sort_keys=False, allow_unicode=True, width=120)
    return {
        "asyncapi.yaml": f"# {NOTICE.strip('<!->')[1:-1]}\n{asyncapi}",
        f"{TOPICS}/README.md": index(),
        **{f"{TOPICS}/{page_name(topic)}": page(topic) for topic in contract()},
    }


def write(folder: Path) -> None:
    """Write every document, and remove pages of topics that are no more."""
    texts = documents()
    (folder / TOPICS).mkdir(parents=True, exist_ok=True)
    for path in (folder / TOPICS).glob("*.md"):
        if path.relative_to(folder).as_posix() not in texts:
            path.unlink()
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
