"""The live page's own scripts and styles: nothing becomes markup or code, and nothing comes from
elsewhere."""

import re
from pathlib import Path

import infra.page
from infra.page.assets import assets

STATIC = Path(infra.page.__file__).parent / "static"
FILES = sorted(STATIC.iterdir())
MARKUP = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|srcdoc|DOMParser|setHTML|"
    r"createContextualFragment|\beval\(|new Function|CustomJS|setTimeout\(\s*[\"'`]"
)
ELSEWHERE = re.compile(r"(?:https?:)?//[\w.-]+\.\w+|@import|url\(")
NAMESPACE = 'xmlns="http://www.w3.org/2000/svg"'


def test_nothing_becomes_markup_or_code():
    found = [(file.name, MARKUP.findall(file.read_text())) for file in FILES]
    assert [each for each in found if each[1]] == []
    assert MARKUP.search('row.innerHTML = "<b>"')


def test_nothing_comes_from_elsewhere():
    found = [
        (file.name, ELSEWHERE.findall(file.read_text().replace(NAMESPACE, ""))) for file in FILES
    ]
    assert [each for each in found if each[1]] == []


def test_pages_have_no_script_or_style_of_their_own():
    for file in STATIC.glob("*.html"):
        text = file.read_text()
        assert not re.search(r"<style|\son\w+=|\sstyle=|<script(?![^>]* src=)|javascript:", text)


def test_what_a_file_names_is_served():
    served = assets()
    for file in FILES:
        for name in re.findall(r"[\"'](/(?:static|bokeh)/[\w.-]+)[\"']", file.read_text()):
            assert name in served, (file.name, name)
        for name in re.findall(r"from \"\./([\w.-]+)\"", file.read_text()):
            assert f"/static/{name}" in served, (file.name, name)


def test_modules_are_read_in_one_sitting():
    assert [file.name for file in FILES if len(file.read_text().splitlines()) > 320] == []
