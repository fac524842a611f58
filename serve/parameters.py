"""Refusing query parameters that a route does not have, so that a misspelt one is not silently ignored."""

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError


async def only_known_parameters(request: Request) -> None:
    """
    Check a request's query parameters; a dependency of all our routes, which does not read the body.

    :param request: the request.
    :raises RequestValidationError: if the route does not have one of them.
    """
    if not request.query_params:
        return
    known = list(dict.fromkeys(_names(request.scope["route"].dependant)))
    faults = [
        {
            "type": "extra_forbidden",
            "loc": ("query", name[:64]),
            "msg": "",
            "ctx": {"known": known or ["none here"]},
        }
        for name in request.query_params
        if name not in known
    ]
    if faults:
        raise RequestValidationError(faults)


def _names(dependant: Dependant) -> list[str]:
    own = [parameter.alias for parameter in dependant.query_params]
    return own + [name for part in dependant.dependencies for name in _names(part)]
