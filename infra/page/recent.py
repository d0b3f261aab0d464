"""Values by key, each with when it last changed: what a client has not got yet is found without a
queue."""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """The newest value of each key, the last changed last. A client that falls behind makes nothing
    grow: it gets the newest value of whatever changed."""

    def __init__(self) -> None:
        self._values: OrderedDict[Key, tuple[int, Value]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[Key]:
        return iter(self._values)

    def get(self, key: Key) -> Value | None:
        """Return a key's value, None without one."""
        found = self._values.get(key)
        return None if found is None else found[1]

    def put(self, key: Key, value: Value, version: int) -> None:
        """Set a key's value; versions never go down."""
        self._values[key] = (version, value)
        self._values.move_to_end(key)

    def drop(self, key: Key) -> None:
        """Forget a key."""
        del self._values[key]

    def since(self, version: int) -> list[Value]:
        """Return the values that changed after a version, the oldest change first."""
        found: list[Value] = []
        for changed, value in reversed(self._values.values()):
            if changed <= version:
                break
            found.append(value)
        found.reverse()
        return found
