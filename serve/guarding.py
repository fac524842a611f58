"""Keeping pages of other websites out: a browser sends what they ask for to any service that it can reach."""

import logging
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.access.asking import Access
from serve.access.rules import rules_of
from serve.errors import UntrustedOriginError, describe, problem_response
from serve.http_middleware import HttpMiddleware

logger = logging.getLogger("thresher.access.keys")

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_EVERY = "*"
_OWN_PAGES = ("same-origin", "none")
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_FORWARDING = frozenset({b"x-forwarded-for", b"forwarded", b"x-real-ip", b"via"})


class PageGuard:
    """
    Tells requests of programs and of our own pages from those of pages that have no business here.

    A page of any website may send a form here, or load an address as a picture, and no browser asks us before. It may
    also give its own name the address 127.0.0.1 (DNS rebinding), and then even reads the answers. Browsers say which
    page asks, in `Origin` and `Sec-Fetch-Site`, and by which name it does, in `Host`. Programs send neither of the
    first two, and may call a service that machines share by any name.

    Usage example:
    ```python
    guard = PageGuard(["rag.example.com"], only_local=True)
    guard.check("POST", Headers({"host": "localhost:8000"}))
    ```
    """

    def __init__(self, allowed: Iterable[str], only_local: bool) -> None:
        """
        Say which names are good.

        :param allowed: host names, besides this machine's own; `*` for every one.
        :param only_local: whether the service is bound to this machine alone, so that `Host` must be a good name too.
        """
        self._allowed = frozenset(name.lower() for name in (*_LOOPBACK, *allowed))
        self._only_local = only_local

    def check(self, method: str, headers: Headers) -> None:
        """
        Let a request pass, or not.

        :param method: its method.
        :param headers: its headers.
        :raises UntrustedOriginError: if it comes from a page of another host, or calls this one by another name.
        """
        hosts = headers.getlist("host") or [""]
        if self._only_local:
            for host in hosts:
                if not self._is_allowed(f"//{host}"):
                    raise UntrustedOriginError("Host", host)
        site = headers.get("sec-fetch-site")
        if site in _OWN_PAGES:
            # No script can say this in a browser's place, and it holds behind a proxy that changes the name too.
            return
        if origins := headers.getlist("origin"):
            for origin in origins:
                if not (self._is_allowed(origin) or origin.partition("://")[2] == hosts[0]):
                    raise UntrustedOriginError("Origin", origin)
        elif site == "cross-site" and not _follows_a_link(method, headers):
            raise UntrustedOriginError("Sec-Fetch-Site", site)

    def _is_allowed(self, url: str) -> bool:
        if _EVERY in self._allowed:
            return True
        try:
            return urlsplit(url).hostname in self._allowed
        except ValueError:
            return False


def _follows_a_link(method: str, headers: Headers) -> bool:
    return method in _SAFE_METHODS and headers.get("sec-fetch-mode") == "navigate"


class PageGuardMiddleware(HttpMiddleware):
    """
    Answers 403 to pages of other websites where nobody asks for a key; no such page has one of ours.

    What is open even where keys are asked for is open to every page, too: it does nothing and tells no secret. Says
    once when a proxy seems to bring others to a service that takes every caller for somebody on this machine.
    """

    def __init__(self, app: ASGIApp, access: Access, guard: PageGuard, always: Iterable[str] = ()) -> None:
        """
        Wrap an application.

        :param app: the application.
        :param access: tells whether callers need keys.
        :param guard: tells the pages.
        :param always: paths that are guarded even where callers need keys, for their protocol asks for it.
        """
        super().__init__(app)
        self._access = access
        self._guard = guard
        self._always = frozenset(always)
        self._has_warned = False

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._look_for_a_proxy(scope)
        try:
            if self._is_guarded(scope):
                self._guard.check(scope["method"], Headers(scope=scope))
        except UntrustedOriginError as error:
            await problem_response(scope, *describe(error))(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _is_guarded(self, scope: Scope) -> bool:
        method, path = scope["method"], scope["path"]
        # Browsers ask so whether a page may; the answer is no, or what HAYHOOKS_CORS_ALLOW_ORIGINS says.
        if method == "OPTIONS" or (self._access.is_on and path not in self._always):
            return False
        rules = list(rules_of(method, path))
        return not rules or not all(rule.is_open for rule in rules)

    def _look_for_a_proxy(self, scope: Scope) -> None:
        if self._has_warned or self._access.is_on or self._access.is_off_by_choice:
            return
        if any(name in _FORWARDING for name, _ in scope["headers"]):
            self._has_warned = True
            logger.warning(
                "a proxy passes requests on to this service, which asks nobody for a key: whoever reaches the proxy "
                "may read, change and delete every tenant's documents; make a key with `thresher keys create --tenant "
                "NAME --role query --role ingest`, or set AUTH=off if the proxy decides who may come in"
            )


class AnswerHeadersMiddleware(HttpMiddleware):
    """Tells browsers and proxies how to treat answers that do not say it themselves."""

    _HEADERS = (
        # What a document says is never run, whatever a browser takes it for.
        ("X-Content-Type-Options", "nosniff"),
        ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
        ("Referrer-Policy", "no-referrer"),
        ("Cache-Control", "no-store"),
    )

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._HEADERS:
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, told)
