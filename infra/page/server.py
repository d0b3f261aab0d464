"""The page's server: routes, what each answer says to a browser about safety, and who may ask."""

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Middleware

from infra.page.access import COOKIE, COOKIE_S, Access
from infra.page.assets import Asset, assets
from infra.page.clients import MOST_BYTES, MOST_CLIENTS, PageClient
from infra.page.market import Market
from schemas.errors import InfowayError

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        # BokehJS has its style sheets in <style> elements of its shadow trees
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
OPEN_PATHS = frozenset(("/login", "/static/login.css", "/static/icon.svg"))
"""What is served without the token."""
FAILED_LOGIN_S = 1.0
MOST_FAILED = 20
"""Wrong tokens that wait for their answer at once; more are refused without one."""
HEARTBEAT_S = 20.0
CLOSE_S = 2.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class PageUnusable(InfowayError):
    """The page's address cannot be had."""


class PageServer:
    """Answers browsers for one market."""

    def __init__(self, market: Market, access: Access) -> None:
        self.market, self.access = market, access
        self.clients = 0
        self._failed = 0
        """Wrong tokens that wait for their answer."""
        self._files = assets()

    def app(self) -> web.Application:
        """Return the application."""
        made = web.Application(middlewares=[self._guard()], client_max_size=MOST_BYTES)
        made.router.add_get("/", self._index)
        made.router.add_get("/login", self._login_form)
        made.router.add_post("/login", self._login)
        made.router.add_get("/live", self._live)
        for path, asset in self._files.items():
            made.router.add_get(path, _serve(asset))
        return made

    def _guard(self) -> Middleware:
        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            try:
                response = await self._checked(request, handler)
            except web.HTTPException as error:
                error.headers.update(HEADERS)
                raise
            if not response.prepared:
                response.headers.update(HEADERS)
            return response

        return guard

    async def _checked(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        host = request.headers.get("Host", "")
        if not self.access.host_is_ours(host):
            raise web.HTTPForbidden(
                text="this server is not asked by that name: open the address that it printed, "
                "or allow the name by --name\n"
            )
        origin = request.headers.get("Origin")
        changes = request.method != "GET" or request.path == "/live"
        if (origin is not None or changes) and not self.access.origin_is_ours(origin, host):
            raise web.HTTPForbidden(text="another site's page may not ask this server\n")
        if request.path not in OPEN_PATHS and not self.access.may_see(
            request.headers.get("Authorization", ""), request.cookies.get(COOKIE, "")
        ):
            if request.path == "/":
                raise web.HTTPSeeOther("/login")
            raise web.HTTPUnauthorized(text="open /login, or send the token as a bearer token\n")
        return await handler(request)

    async def _index(self, request: web.Request) -> web.StreamResponse:
        return await _serve(self._files["/static/index.html"])(request)

    async def _login_form(self, request: web.Request) -> web.StreamResponse:
        if not self.access.asks_for_token:
            raise web.HTTPSeeOther("/")
        return await _serve(self._files["/static/login.html"])(request)

    async def _login(self, request: web.Request) -> web.StreamResponse:
        if not self.access.asks_for_token:
            raise web.HTTPSeeOther("/")
        shown = (await request.post()).get("token", "")
        if not isinstance(shown, str) or not self.access.token_is_right(shown):
            if self._failed >= MOST_FAILED:
                raise web.HTTPTooManyRequests(text="too many wrong tokens: try again later\n")
            self._failed += 1
            try:
                await asyncio.sleep(FAILED_LOGIN_S)
            finally:
                self._failed -= 1
            raise web.HTTPForbidden(text="that is not the token: go back and try again\n")
        answer = web.HTTPSeeOther("/")
        answer.set_cookie(
            COOKIE,
            self.access.cookie(),
            max_age=COOKIE_S,
            httponly=True,
            samesite="Strict",
            # behind a proxy with TLS the browser's own word for it
            secure=request.headers.get("Origin", "").startswith("https:"),
        )
        raise answer

    async def _live(self, request: web.Request) -> web.StreamResponse:
        if self.clients >= MOST_CLIENTS:
            raise web.HTTPServiceUnavailable(text=f"{MOST_CLIENTS} pages are open already\n")
        socket = web.WebSocketResponse(
            max_msg_size=MOST_BYTES, heartbeat=HEARTBEAT_S, timeout=CLOSE_S, compress=False
        )
        self.clients += 1
        try:
            await socket.prepare(request)
            sockets = request.app[SOCKETS]
            sockets.add(socket)
            try:
                await PageClient(self.market, socket).serve()
            finally:
                sockets.discard(socket)
        finally:
            self.clients -= 1
        return socket


SOCKETS: web.AppKey[set[web.WebSocketResponse]] = web.AppKey("sockets", set)


def _serve(asset: Asset) -> Handler:
    async def serve(request: web.Request) -> web.StreamResponse:
        if request.headers.get("If-None-Match") == asset.tag:
            return web.Response(status=304, headers={"ETag": asset.tag})
        response = web.Response(
            body=asset.body, headers={"Content-Type": asset.type, "ETag": asset.tag}
        )
        # BokehJS is 1.3 MB
        response.enable_compression()
        return response

    return serve
