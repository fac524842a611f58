"""The path under which a proxy serves the application, as `/rag`: no layer and no route has to know of it."""

from fastapi import FastAPI
from starlette.datastructures import URL, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send


def take_prefix(app: FastAPI) -> str:
    """
    Take an application's root path over from it, for it would know of the prefix and the layers around it would not.

    :param app: the application; its OpenAPI document names the prefix from now on.
    :returns: the prefix, with a slash before it and none behind; empty where there is none.
    """
    prefix = "/".join(["", *filter(None, app.root_path.split("/"))])
    app.root_path = ""
    if prefix:
        app.servers = [{"url": prefix}]
    return prefix


class PrefixMiddleware:
    """
    Takes the prefix off each request's path, and puts it before the addresses of ours that answers send clients to.

    It has to be the outermost layer. A proxy that takes the prefix off itself is as good as one that passes it on.
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        """
        Wrap an application.

        :param app: the application.
        :param prefix: what `take_prefix` gave; where it is empty, what the server calls its root path.
        """
        self.app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Handle one connection.

        :param scope: the ASGI scope.
        :param receive: gives the request's messages.
        :param send: takes the response's messages.
        """
        prefix = self._prefix or scope.get("root_path", "")
        if not prefix or "path" not in scope:
            await self.app(scope, receive, send)
            return
        # Starlette makes absolute addresses with `app_root_path`.
        inner = {**scope, "root_path": "", "app_root_path": prefix}
        if _is_under(prefix, scope["path"]):
            inner["path"] = scope["path"].removeprefix(prefix)
            inner["raw_path"] = (scope.get("raw_path") or b"").removeprefix(prefix.encode())

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if location := headers.get("location"):
                    headers["location"] = _prefixed(prefix, location, inner)
            await send(message)

        await self.app(inner, receive, told)


def _is_under(prefix: str, path: str) -> bool:
    return path == prefix or path.startswith(f"{prefix}/")


def _prefixed(prefix: str, location: str, scope: Scope) -> str:
    ours = str(URL(scope={**scope, "path": "", "query_string": b""}))
    path = location.removeprefix(ours)
    is_path = path.startswith("/") and not path.startswith("//")
    return f"{prefix}{path}" if is_path and not _is_under(prefix, path) else location
