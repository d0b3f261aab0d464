"""Whether the proxy of the environment can carry the vendor's WebSocket; connects to nothing.

websocket-client passes over a proxy or an exception that it cannot read, and takes any scheme for
an HTTP proxy.
"""

import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from websocket._url import get_proxy_info

from schemas.errors import SettingsWrong

_OTHERS = ("https", "socks4", "socks4a", "socks5", "socks5h")


class BadProxy(SettingsWrong):
    """A proxy setting of the environment that would be misread; the message shows no
    credentials."""

    def __init__(self, setting: str, problem: str) -> None:
        super().__init__(f"{setting} {problem}")
        self.setting = setting


def check_proxy(base_url: str) -> None:
    """Raise BadProxy where the environment's HTTPS_PROXY (HTTP_PROXY for ws://) or NO_PROXY would
    not do what it says."""
    parts = urlsplit(base_url)
    host, secure = parts.hostname or "", parts.scheme == "wss"
    name, proxy = _setting("https_proxy" if secure else "http_proxy", os.environ)
    # what the library returns of a proxy that is handed to it, unless NO_PROXY excepts the host
    if not proxy or get_proxy_info(host, secure, "any", 1)[0] is None:
        return
    exceptions, listed = _setting("no_proxy", os.environ)
    if any(
        _is_meant(entry, host, parts.port or (443 if secure else 80)) for entry in listed.split(",")
    ):
        raise BadProxy(
            exceptions,
            f"excepts {host} in a form that the WebSocket does not read: write {host}, without "
            "*, scheme or port",
        )
    scheme = proxy.partition("://")[0].lower()
    if scheme in _OTHERS:
        raise BadProxy(
            name,
            f"names a proxy of {scheme}, which the WebSocket cannot use: write "
            "http://HOST:PORT, an HTTP proxy",
        )
    if scheme != "http" or not _is_address(proxy):
        raise BadProxy(
            name,
            "is no address of an HTTP proxy: write http://HOST:PORT, or "
            "http://USER:PASSWORD@HOST:PORT, percent-encoded",
        )


def _setting(name: str, environment: Mapping[str, str]) -> tuple[str, str]:
    # the library's order: a lower-case one counts, even if it is empty
    found = name if name in environment else name.upper()
    return found, environment.get(found, "").replace(" ", "")


def _is_meant(entry: str, host: str, port: int) -> bool:
    meant = entry.lower().rpartition("://")[2]
    if meant.count(":") == 1:
        meant, _, of_port = meant.partition(":")
        if of_port != str(port):
            return False
    meant = meant.removeprefix("*").lstrip(".")
    return bool(meant) and (host == meant or host.endswith(f".{meant}"))


def _is_address(proxy: str) -> bool:
    try:
        parts = urlsplit(proxy)
        # a # or / in a password ends the host
        return bool(parts.hostname) and parts.port != 0 and ("@" in parts.netloc) == ("@" in proxy)
    except ValueError:
        return False
