"""Who may ask the page's server: names of hosts (DNS rebinding), origins, and the token."""

import hashlib
import hmac
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from schemas.errors import SettingsWrong

TOKEN = "INFOWAY_PAGE_TOKEN"
VARIABLES = {
    TOKEN: "token that the live page asks for; default none on loopback, needed with --host; or "
    "INFOWAY_PAGE_TOKEN_FILE, a file with it alone",
}
COOKIE = "infoway_page"
COOKIE_S = 12 * 3_600
"""Seconds for which a browser that has shown the token need not show it again."""
SHORTEST_TOKEN = 16
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


class TokenWrong(SettingsWrong):
    """The page's token is missing, too short, or cannot be read."""


def token_of(environment: Mapping[str, str]) -> str:
    """Return the token, empty for none. Raises TokenWrong, and never shows it."""
    token, path = environment.get(TOKEN, ""), environment.get(f"{TOKEN}_FILE", "")
    if not token and path:
        try:
            token = Path(path).read_text(encoding="utf-8").strip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise TokenWrong(
                f"{TOKEN}_FILE={path}: {getattr(error, 'strerror', None) or 'no text'}: name a "
                "file with the token alone"
            ) from error
    if token and (len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable()):
        raise TokenWrong(
            f"{TOKEN}: expected at least {SHORTEST_TOKEN} printable ASCII characters, such as "
            "`openssl rand -hex 16` writes"
        )
    return token


class Access:
    """What a request has to show."""

    def __init__(self, names: Iterable[str], port: int, token: str = "") -> None:
        """`names` are the hosts by which the server may be asked: one with a port by just that;
        one without by `port`, and by none, as through a proxy at a scheme's own port."""
        allowed: set[str] = set()
        for name in map(str.lower, names):
            allowed |= {name} if _has_port(name) else {name, f"{name}:{port}"}
        self._hosts = frozenset(allowed)
        self._token = token

    @property
    def asks_for_token(self) -> bool:
        """Whether a token is needed."""
        return bool(self._token)

    def host_is_ours(self, host: str) -> bool:
        """Return whether a request's Host names this server, and not a name that somebody else
        resolves to its address."""
        return host.lower() in self._hosts

    def origin_is_ours(self, origin: str | None, host: str) -> bool:
        """Return whether a page of this very server sent the request."""
        if origin is None:
            return False
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()

    def token_is_right(self, shown: str) -> bool:
        """Return whether this is the token, in a time that says nothing of it."""
        return hmac.compare_digest(shown.encode(), self._token.encode())

    def may_see(self, authorization: str, cookie: str) -> bool:
        """Return whether a request with this header and this cookie may see the page."""
        if not self._token:
            return True
        scheme, _, shown = authorization.partition(" ")
        if scheme.lower() == "bearer":
            return self.token_is_right(shown)
        return self._is_cookie(cookie)

    def cookie(self) -> str:
        """Return the value of a cookie for a browser that has shown the token: the token does not
        follow from it, and another token makes it void."""
        until = str(int(time.time()) + COOKIE_S)
        return f"{until}.{self._sign(until)}"

    def _is_cookie(self, cookie: str) -> bool:
        until, _, signature = cookie.partition(".")
        return (
            until.isascii()
            and until.isdecimal()
            and len(until) < 20
            and hmac.compare_digest(signature.encode(), self._sign(until).encode())
            and int(until) > time.time()
        )

    def _sign(self, until: str) -> str:
        text = f"infoway-streams page until {until}"
        return hmac.new(self._token.encode(), text.encode(), hashlib.sha256).hexdigest()


def _has_port(name: str) -> bool:
    _, colon, port = name.rpartition(":")
    return bool(colon) and port.isdecimal()
