"""The layer that knows who calls, and refuses who may not, before anything of a request's body is read."""

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.routing import BaseRoute, Match, get_route_path
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.access.asking import KEY_HEADERS, Access
from serve.access.callers import Caller
from serve.access.errors import AccessError
from serve.access.rules import NOT_ALLOWED, rules_of
from serve.errors import describe, problem_response


class AccessMiddleware:
    """
    Puts the caller at `request.state.caller`, or answers 401 or 403.

    The key itself goes no further: nothing behind this layer can log it, repeat it, or send it on.
    """

    def __init__(self, app: ASGIApp, access: Access, routes: Sequence[BaseRoute]) -> None:
        """
        Wrap an application.

        :param app: the application.
        :param access: tells who calls.
        :param routes: the application's routes.
        """
        self.app = app
        self._access = access
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Handle one connection.

        :param scope: the ASGI scope.
        :param receive: gives the request's messages.
        :param send: takes the response's messages.
        """
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            caller = self._admitted(scope)
        except AccessError as error:
            headers = {"WWW-Authenticate": error.challenge} if error.challenge else None
            await problem_response(scope, *describe(error), headers)(scope, receive, send)
            return
        scope.setdefault("state", {})["caller"] = caller
        if self._access.is_on:
            # In place: layers around this one read what the router puts into the scope.
            scope["headers"] = [
                header for header in scope["headers"] if header[0].decode("latin-1") not in KEY_HEADERS
            ]
        await self.app(scope, receive, send)

    def _admitted(self, scope: Scope) -> Caller:
        headers = Headers(scope=scope)
        # A browser asks so before it sends a page's request, and can't show a key. No route answers it.
        if not self._access.is_on or scope["method"] == "OPTIONS":
            return self._access.known_caller(headers)
        rules = list(rules_of(scope["method"], get_route_path(scope)))
        if rules and all(rule.is_open for rule in rules):
            return self._access.known_caller(headers)
        caller = self._access.caller(headers)
        if not rules and self._is_a_route(scope):
            rules = [NOT_ALLOWED]
        for rule in rules:
            rule.check(caller)
        return caller

    def _is_a_route(self, scope: Scope) -> bool:
        return any(route.matches(scope)[0] is Match.FULL for route in self._routes)
