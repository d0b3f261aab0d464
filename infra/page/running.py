"""Runs the live page until it is told to stop: the server's event loop, and the thread that follows
the topics."""

import asyncio
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from infra.page.access import LOOPBACK, Access
from infra.page.follow import Follower
from infra.page.history import History
from infra.page.market import Market, handed_over
from infra.page.server import SOCKETS, PageServer, PageUnusable
from schemas.topics import Topology

DEFAULT_PORT = 8642
READY = "page http"
"""How the line begins that says where the page is."""
_LOOK_S = 0.2


@dataclass(frozen=True, slots=True)
class Address:
    """Where the page is served, and by which names."""

    host: str
    port: int
    """0 for any that is free."""
    names: tuple[str, ...]
    """Names that browsers may use beside those of loopback and the host itself."""
    token: str

    def access(self, port: int) -> Access:
        """Return what requests have to show once the port is known."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return Access((*LOOPBACK, host, *self.names), port, self.token)


def run(
    bootstrap: str,
    registry_url: str,
    names: Topology,
    address: Address,
    stop: threading.Event,
    ready: Callable[[str], None],
) -> None:
    """Serve the page until `stop` is set; `ready` gets its URL. Raises PageUnusable."""
    asyncio.run(_serve(bootstrap, registry_url, names, address, stop, ready))


async def _serve(
    bootstrap: str,
    registry_url: str,
    names: Topology,
    address: Address,
    stop: threading.Event,
    ready: Callable[[str], None],
) -> None:
    loop = asyncio.get_running_loop()
    market = Market(names, History(bootstrap, registry_url, names))
    sockets: set[web.WebSocketResponse] = set()
    server = PageServer(market, address.access(address.port))
    app = server.app()
    app[SOCKETS] = sockets
    runner = web.AppRunner(app, access_log=None, keepalive_timeout=30.0, shutdown_timeout=2.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, address.host, address.port)
        try:
            await site.start()
        except OSError as error:
            raise PageUnusable(
                f"the page's address {address.host}:{address.port}: "
                f"{os.strerror(error.errno) if error.errno else error}: name another by --port"
            ) from error
        port = runner.addresses[0][1]
        server.access = address.access(port)

        def say(trouble: str) -> None:
            loop.call_soon_threadsafe(market.say, trouble)

        follower = Follower(bootstrap, registry_url, names, handed_over(loop, market.take), say)
        market.unreadable_before = lambda: follower.unreadable
        with follower:
            host = f"[{address.host}]" if ":" in address.host else address.host
            ready(f"http://{'127.0.0.1' if address.host in ('0.0.0.0', '::') else host}:{port}/")
            while not stop.is_set():
                await asyncio.sleep(_LOOK_S)
            for socket in list(sockets):
                await socket.close(code=1001, message=b"the server ends")
            # its thread may be handing over a batch
            await asyncio.sleep(0)
    finally:
        await runner.cleanup()
        await market.close()
