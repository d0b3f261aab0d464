"""One meaning a name: no two types of the product bear the same one."""

import ast
from collections import defaultdict

from documentation import ROOT

PACKAGES = ("schemas", "producers", "processors", "infra")


def test_no_two_types_have_one_name():
    places = defaultdict(list)
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef):
                    places[node.name].append(str(path.relative_to(ROOT)))
    assert len(places) > 300
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
