"""Writes the tables of exit codes into docs/operations.md: `python -m infra.runtime.exit_tables
docs/operations.md`."""

import ast
import inspect
import sys
from enum import IntEnum
from pathlib import Path

from infra.runtime.exit_codes import Code, may_restart
from processors.engine.transactions.exits import Exit

TABLES: dict[str, type[IntEnum]] = {"commands": Code, "workers": Exit}


def updated(page: str) -> str:
    """Return the page with its tables as the code has them now."""
    for name, codes in TABLES.items():
        begin, end = f"<!-- exit codes of {name} -->\n", f"<!-- end of exit codes of {name} -->\n"
        before, _, rest = page.partition(begin)
        page = f"{before}{begin}{_table(codes)}{end}{rest.partition(end)[2]}"
    return page


def _table(codes: type[IntEnum]) -> str:
    meanings = _meanings(codes)
    rows = [
        f"| {code.value} | {code.name} | {meanings[code.name]} | "
        f"{'yes' if may_restart(code) else 'no'} |"
        for code in codes
    ]
    return "\n".join(["| code | name | meaning | restarted |", "|---|---|---|---|", *rows, ""])


def _meanings(codes: type[IntEnum]) -> dict[str, str]:
    """Return the text under each member, which Python does not keep."""
    (definition,) = ast.parse(inspect.getsource(codes)).body
    assert isinstance(definition, ast.ClassDef)
    found: dict[str, str] = {}
    for member, text in zip(definition.body, definition.body[1:], strict=False):
        if (
            isinstance(member, ast.Assign)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        ):
            found[ast.unparse(member.targets[0])] = " ".join(str(text.value.value).split())
    return found


def main(path: Path) -> None:
    """Replace the tables of the page."""
    path.write_text(updated(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
