"""Where feeds connect to, and what the vendor refuses there for good."""

from dataclasses import dataclass, field
from urllib.parse import urlencode, urlsplit

from producers.vendor.codes import advice
from producers.vendor.secret import Secret
from schemas.errors import SettingsWrong, VendorRefused

LIVE_URL = "wss://data.infoway.io/ws"


class KeyRefused(VendorRefused):
    """The vendor refused the API key at the handshake. Never to be retried: the vendor bans
    keys."""

    def __init__(self, feed: str, status: int) -> None:
        super().__init__(
            f"{feed}: the API key was refused (HTTP {status}): check INFOWAY_API_KEY and the "
            "plan of the key"
        )
        self.feed = feed
        self.status = status
        self.reason = f"HTTP {status}: key refused"


class FeedRefused(VendorRefused):
    """The vendor ended a feed with an answer that forbids another try."""

    def __init__(self, feed: str, code: int | None, reason: str) -> None:
        super().__init__(f"{feed}: {reason}: {advice(code)}")
        self.feed = feed
        self.code = code
        self.reason = reason


class BadAddress(SettingsWrong):
    """A base URL that is no WebSocket address."""

    def __init__(self, base_url: str) -> None:
        super().__init__(
            f"{base_url.partition('?')[0]!r} is no WebSocket address: write ws://HOST:PORT/ws "
            f"or {LIVE_URL}"
        )


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to connect to and with which key. Raises BadAddress."""

    base_url: str
    api_key: str = field(repr=False)

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.base_url)
            sound = (
                parts.scheme in ("ws", "wss")
                and parts.hostname
                and not parts.query
                and parts.port != 0
            )
        except ValueError:
            sound = False
        if not sound:
            raise BadAddress(self.base_url)

    def url(self, business: str) -> str:
        """Return the address of a business, the key included: for the socket only."""
        return f"{self.base_url}?{urlencode({'business': business, 'apikey': self.api_key})}"

    @property
    def secret(self) -> Secret:
        """The key, to be taken out of texts."""
        return Secret(self.api_key)
