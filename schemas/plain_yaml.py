"""Reads YAML that somebody else may have written: plain data, of which a few lines cannot grow
without end."""

from typing import Any

import yaml


class _Values(yaml.SafeLoader):
    """No aliases (a few lines of them stand for gigabytes), no deep nesting (the parser takes the
    square of its depth), no tags (`!!bool x` is a KeyError of PyYAML's), no key twice."""

    deepest = 0
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _wrong_at(event, "an alias (*name) is not allowed: write out what it stands for")
        if event.tag is not None:
            raise _wrong_at(event, "a tag (!name) is not allowed: write the plain value")
        self.depth += 1
        if self.depth > self.deepest:
            raise _wrong_at(event, f"nested deeper than {self.deepest} levels")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _wrong_at(key, "a key is no plain text")
            if key.value in keys:
                raise _wrong_at(key, f"the key {key.value!r:.80} comes twice")
            keys.add(key.value)
        return super().construct_mapping(node, deep)


class _Texts(_Values):
    """Every value is a text, whatever it looks like."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 PyYAML's name, read and never written here


def plain_yaml(text: str, deepest: int, texts: bool = False) -> Any:
    """Return a document of lists and mappings of at most `deepest` levels; with `texts` every value
    is a text. Raises yaml.YAMLError."""
    loader = (_Texts if texts else _Values)(text)
    loader.deepest = deepest
    try:
        return loader.get_single_data()
    except RecursionError:
        raise yaml.YAMLError("nested too deep") from None
    finally:
        loader.dispose()


def _wrong_at(event: Any, reason: str) -> yaml.YAMLError:
    return yaml.YAMLError(f"line {event.start_mark.line + 1}: {reason}")
