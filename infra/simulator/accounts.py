"""What the vendor keeps of a key over its connections: their symbols, and how many were closed for
too many frames; no sockets."""

from collections.abc import Collection
from dataclasses import dataclass, field

from infra.simulator.protocol import ByScript, ClientSession, Limits


@dataclass
class Account:
    """One key's sessions. Once `limits.closures` of them were closed for too many frames the key is
    banned, for the simulator's life."""

    limits: Limits
    sessions: list[ClientSession] = field(default_factory=list)
    closures: int = 0

    @property
    def banned(self) -> bool:
        """Whether the vendor takes this key no more. REST is not refused to it: that the vendor's
        pages do not say."""
        return self.closures >= self.limits.closures

    @property
    def full(self) -> bool:
        """Whether the key has as many connections as it may have."""
        return len(self.sessions) >= self.limits.connections

    def session(self, business: str, now: float, by_script: ByScript) -> ClientSession:
        """Return a session of this key that is not yet counted."""

        def elsewhere() -> int:
            return sum(len(other.symbols()) for other in self.sessions if other is not session)

        session = ClientSession(business, now, self.limits, elsewhere, by_script)
        return session


class Accounts:
    """Every key's account, from its first connection on."""

    def __init__(self, limits: Limits, refused_keys: Collection[str]) -> None:
        self._limits = limits
        self._refused_keys = refused_keys
        self._accounts: dict[str, Account] = {}

    def refuses(self, key: str) -> bool:
        """Return whether a handshake with this key is HTTP 401."""
        return not key or key in self._refused_keys or self.of(key).banned

    def of(self, key: str) -> Account:
        """Return the account of a key."""
        return self._accounts.setdefault(key, Account(self._limits))
