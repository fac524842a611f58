"""The layer that knows who calls, and refuses who may not, before anything of a request's body is read."""

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.routing import BaseRoute, Match, get_route_path
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.access.asking import KEY_HEADERS, Access
from serve.access.callers import Caller
from serve.access.errors import AccessError, ForbiddenError
from serve.access.rules import NOT_ALLOWED, OPEN, Rule, rules_of
from serve.errors import describe, problem_response
from serve.http_middleware import HttpMiddleware


class AccessMiddleware(HttpMiddleware):
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
        super().__init__(app)
        self._access = access
        self._routes = routes

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = scope.setdefault("state", {})
        rules = self._rules(scope)
        try:
            # Before the check, for the access line also tells whom it was that was refused.
            caller = state["caller"] = self._caller(scope, rules)
            for rule in rules:
                rule.check(caller)
        except AccessError as error:
            headers = {"WWW-Authenticate": error.challenge} if error.challenge else None
            await problem_response(scope, *describe(error), headers)(scope, receive, send)
            return
        state["checked_path"] = get_route_path(scope)
        if self._access.is_on:
            # In place: layers around this one read what the router puts into the scope.
            scope["headers"] = [
                header for header in scope["headers"] if header[0].decode("latin-1") not in KEY_HEADERS
            ]
        await self.app(scope, receive, send)

    def _rules(self, scope: Scope) -> list[Rule]:
        # A browser asks so before it sends a page's request, and can't show a key. No route answers it.
        if not self._access.is_on or scope["method"] == "OPTIONS":
            return [OPEN]
        rules = list(rules_of(scope["method"], get_route_path(scope) or "/"))
        return [NOT_ALLOWED] if not rules and self._is_a_route(scope) else rules

    def _caller(self, scope: Scope, rules: list[Rule]) -> Caller:
        headers = Headers(scope=scope)
        is_open = bool(rules) and all(rule.is_open for rule in rules)
        return self._access.known_caller(headers) if is_open else self._access.caller(headers)

    def _is_a_route(self, scope: Scope) -> bool:
        return any(route.matches(scope)[0] is Match.FULL for route in self._routes)


class RouteGuard(HttpMiddleware):
    """
    Lets no request to the routes with another path than the one whose rules `AccessMiddleware` has checked.

    The last layer before the routes, for whatever is between the two could change what they find.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        """
        Wrap an application.

        :param app: the application.
        :param access: tells whether callers need keys.
        """
        super().__init__(app)
        self._access = access

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        checked = scope.get("state", {}).get("checked_path")
        if self._access.is_on and checked != get_route_path(scope):
            error = ForbiddenError.without_role(())
            await problem_response(scope, *describe(error))(scope, receive, send)
            return
        await self.app(scope, receive, send)
