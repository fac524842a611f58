"""Names of routes for the log and for Prometheus: what of a request's path is ours, and nothing of the caller's."""

from starlette.routing import compile_path
from starlette.types import Scope

from serve.access.rules import RULES

NO_ROUTE = "(none)"
_METHODS = frozenset({"GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH"})
_PATHS = dict.fromkeys(path for _, path in RULES)
_PATTERNS = [(pattern, shown) for path in _PATHS for pattern, shown, _ in [compile_path(path)] if "{" in path]


def route_of(scope: Scope) -> str:
    """
    Name the route of a request, whether the request came so far or not.

    :param scope: the request's ASGI scope.
    :returns: the path with the names of its parameters in braces; `(none)` where there is no such route.
    """
    path: str = scope["path"]
    for candidate in (path, f"{path}/", path.removesuffix("/")):
        if candidate in _PATHS:
            return candidate
    return next((shown for pattern, shown in _PATTERNS if pattern.match(path)), NO_ROUTE)


def method_of(scope: Scope) -> str:
    """
    Name the method of a request.

    :param scope: the request's ASGI scope.
    :returns: one of HTTP's usual methods, or `other`.
    """
    method: str = scope["method"]
    return method if method in _METHODS else "other"
