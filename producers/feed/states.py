"""The states of a feed's protocol, and the transitions that are legal between them."""

from enum import Enum


class State(Enum):
    """Where a feed is with its connection."""

    DOWN = "no connection"
    OPEN = "connected"
    BROKEN = "connected, but a new connection is needed"
    REFUSED = "the vendor's answer forbids another try"
    ENDED = "ended in order"


TRANSITIONS: dict[tuple[State, State], str] = {
    (State.DOWN, State.OPEN): "connected",
    (State.OPEN, State.DOWN): "connection lost",
    (State.OPEN, State.BROKEN): "silence, no answers, a symbol not let go, or such an error",
    (State.OPEN, State.REFUSED): "an error that forbids another try",
    (State.BROKEN, State.DOWN): "connection closed",
    (State.BROKEN, State.REFUSED): "a recording goes on: an error that forbids another try",
    (State.REFUSED, State.BROKEN): "a recording goes on: an error that calls for a reconnect",
    (State.DOWN, State.ENDED): "ended",
    (State.OPEN, State.ENDED): "ended",
    (State.BROKEN, State.ENDED): "ended",
    (State.REFUSED, State.ENDED): "ended",
}
"""Every legal transition with its cause. A live transport reads nothing more once a connection is
BROKEN or REFUSED; a recording may have more frames."""


class IllegalTransition(RuntimeError):
    """A transition that TRANSITIONS does not have: a bug."""

    def __init__(self, feed: str, old: State, new: State) -> None:
        super().__init__(
            f"{feed}: a bug: the feed cannot go from {old.name} to {new.name}; please report it"
        )
        self.feed = feed
        self.old = old
        self.new = new


def check_transition(feed: str, old: State, new: State) -> None:
    """Raise IllegalTransition unless a feed may go from one state to the other, or stays."""
    if old is not new and (old, new) not in TRANSITIONS:
        raise IllegalTransition(feed, old, new)


def diagram() -> str:
    """Return the transitions as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", "    [*] --> DOWN"]
    lines += [f"    {state.name}: {state.name} ({state.value})" for state in State]
    lines += [
        f"    {old.name} --> {new.name}: {cause}" for (old, new), cause in TRANSITIONS.items()
    ]
    return "\n".join([*lines, "    ENDED --> [*]", ""])
