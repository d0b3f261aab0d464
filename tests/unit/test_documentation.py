"""Pages name what is there: links, modules, functions, settings, metrics; what is made of the code
is of today; prose keeps to its width."""

import ast
import re
from functools import cache

import pytest
from documentation import PAGES, ROOT, WRITTEN, name_of, prose

from infra.docs import metrics, settings
from infra.runtime import exit_tables

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PLACE = re.compile(r"`([\w/.-]+\.py):([\w.]+)`")
PATH = re.compile(r"`((?:schemas|producers|processors|infra|tests|examples|docs)/[\w/.-]*)`")
PRODUCT = tuple(
    path
    for part in ("schemas", "producers", "processors", "infra")
    for path in (ROOT / part).rglob("*.py")
)


def headings(path):
    """The anchors of a page, as GitHub makes them of its headings."""
    found = re.findall(r"^#+ (.*)$", prose(path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def dead_links(page, text):
    for target in LINK.findall(prose(text)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        if not path.exists() or (anchor and anchor not in headings(path)):
            yield target


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    assert list(dead_links(page, page.read_text())) == []


def test_a_dead_link_is_found():
    page = ROOT / "README.md"
    text = (
        "[a](docs/nowhere.md) [b](docs/deploy.md#nowhere) [c](docs/deploy.md#workers) [d](#limits)"
    )
    assert list(dead_links(page, text)) == ["docs/nowhere.md", "docs/deploy.md#nowhere"]


def test_every_page_is_reached_from_the_readme():
    reached, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        reached.add(page)
        for target in LINK.findall(prose(page.read_text())):
            path = (page.parent / target.partition("#")[0]).resolve()
            if path.suffix == ".md" and path.is_file() and path not in reached:
                todo.append(path)
    assert [name_of(page) for page in PAGES if page not in reached] == []


@cache
def defined(path):
    """The names of a module, and of its classes with a dot."""
    found = set()
    for node in ast.parse((ROOT / path).read_text()).body:
        names = names_of(node)
        found |= names
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{name}" for each in node.body for name in names_of(each)}
    return found


def names_of(node):
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Assign):
        return {target.id for target in node.targets if isinstance(target, ast.Name)}
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return {node.target.id}
    return set()


def gone(text):
    """The paths and names in a text that are not in the project."""
    for path, name in PLACE.findall(text):
        if not (ROOT / path).is_file():
            yield path
        elif name not in defined(path):
            yield f"{path}:{name}"
    for path in PATH.findall(text):
        if not (ROOT / path).exists():
            yield path


@pytest.mark.parametrize("page", WRITTEN, ids=name_of)
def test_modules_and_names_on_a_page_are_in_the_code(page):
    assert sorted(set(gone(page.read_text()))) == []


def test_a_name_that_is_gone_is_found():
    text = (
        "`schemas/wire.py:compile_encoder` `schemas/wire.py:nothing` `schemas/nothing.py:x` "
        "`processors/engine/engine.py:Engine.handle` `processors/engine/engine.py:Engine.no` "
        "`infra/nothing/`"
    )
    assert list(gone(text)) == [
        "schemas/wire.py:nothing",
        "schemas/nothing.py",
        "processors/engine/engine.py:Engine.no",
        "infra/nothing/",
    ]


def test_the_page_of_settings_is_of_today():
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert page == settings.page(), "stale: run `make docs`"


def test_the_page_of_settings_has_every_variable_that_the_code_names():
    page = set(re.findall(r"INFOWAY_[A-Z_]+", settings.page()))
    named = {
        name
        for path in PRODUCT
        for name in re.findall(r"[\"' `]?(INFOWAY_[A-Z][A-Z_]*[A-Z])\b", path.read_text())
    }
    assert len(named) > 25
    assert named - page == set()


@pytest.mark.parametrize("page", WRITTEN, ids=name_of)
def test_settings_on_a_page_are_settings(page):
    known = set(re.findall(r"INFOWAY_[A-Z_]+", settings.page())) | {"INFOWAY_RECORDINGS"}
    assert set(re.findall(r"INFOWAY_[A-Z_]*[A-Z]", page.read_text())) <= known


def test_the_tables_of_operations_are_of_today():
    page = (ROOT / "docs" / "operations.md").read_text()
    assert page == metrics.updated(exit_tables.updated(page)), "stale: run `make docs`"


def samples():
    """Patterns of the names of all metrics that are no feed's, with their kind."""
    for path in (ROOT / "infra").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Sample":
                name, kind = node.args[:2]
                if isinstance(name, ast.Constant):
                    yield re.escape(name.value), kind.value
                elif isinstance(kind, ast.Constant):
                    parts = (getattr(each, "value", "") for each in name.values)
                    yield (
                        "".join(
                            re.escape(part) if isinstance(part, str) else r"\w+" for part in parts
                        ),
                        kind.value,
                    )


def test_operations_lists_every_metric_of_workers_and_no_other():
    page = (ROOT / "docs" / "operations.md").read_text()
    _, _, rest = page.partition("<!-- metrics of workers -->\n")
    rows = re.findall(r"^\| `(infoway_\w+)` \| (\w+) \|", rest.partition("<!-- end")[0], re.M)
    assert all(name.endswith("_total") == (kind == "counter") for name, kind in rows)
    listed = {(name.removesuffix("_total"), kind) for name, kind in rows}
    patterns = set(samples())
    assert len(patterns) > 14
    unlisted = {
        each
        for each in patterns
        if not any(re.fullmatch(each[0], name) and kind == each[1] for name, kind in listed)
    }
    unknown = {
        (name, kind)
        for name, kind in listed
        if not any(re.fullmatch(each, name) and kind == of for each, of in patterns)
    }
    assert (unlisted, unknown) == (set(), set())


@pytest.mark.parametrize("page", WRITTEN, ids=name_of)
def test_metrics_on_a_page_are_served(page):
    operations = (ROOT / "docs" / "operations.md").read_text()
    served = set(re.findall(r"^\| `(infoway_\w+)`", operations, re.MULTILINE))
    # tables of fields call counters by the names that the code gives them
    served |= {name.removesuffix("_total") for name in served}
    named = set(re.findall(r"\binfoway_(?!streams)[a-z]\w*", page.read_text()))
    assert named <= served


@pytest.mark.parametrize("page", WRITTEN, ids=name_of)
def test_prose_is_100_columns_wide_at_most(page):
    wide = [
        line
        for line in prose(page.read_text()).splitlines()
        if len(line) > 100 and not line.startswith(("|", "<!--"))
    ]
    assert wide == []


@pytest.mark.parametrize("page", WRITTEN, ids=name_of)
def test_code_within_prose_is_on_one_line(page):
    lines = prose(page.read_text()).splitlines()
    assert [line for line in lines if line.count("`") % 2] == []


def test_no_page_names_this_machine():
    for page in WRITTEN:
        assert not re.search(r"/work/|/tmp/|/home/|/root/", page.read_text()), name_of(page)


def test_there_are_pages():
    assert len(WRITTEN) > 25
