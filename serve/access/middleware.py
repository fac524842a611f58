"""The layer that knows who calls, before anything of a request's body is read."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.access.callers import Caller


class AccessMiddleware:
    """Puts the caller at `request.state.caller`."""

    def __init__(self, app: ASGIApp) -> None:
        """
        Wrap an application.

        :param app: the application.
        """
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Handle one connection.

        :param scope: the ASGI scope.
        :param receive: gives the request's messages.
        :param send: takes the response's messages.
        """
        if scope["type"] == "http":
            token = bearer_token(Headers(scope=scope))
            scope.setdefault("state", {})["caller"] = Caller(named_tenant=token)
        await self.app(scope, receive, send)


def bearer_token(headers: Headers) -> str | None:
    """
    Read a request's bearer token.

    :param headers: its headers.
    :returns: the token of `Authorization: Bearer`; None without one, and for another scheme.
    """
    scheme, _, given = headers.get("authorization", "").strip().partition(" ")
    return (given.strip() if scheme.lower() == "bearer" else "") or None
