"""Refusing what a route does not read, so that it is not silently ignored: query parameters, a body of another kind."""

import difflib
from collections.abc import Iterable

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError

_FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")


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


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """
    Guess which name was meant.

    :param name: one that is not known.
    :param known: those that are.
    :returns: a sentence that asks so, to follow on another; empty where none is near.
    """
    near = difflib.get_close_matches(name, list(known), n=1)
    return f". Did you mean '{near[0]}'?" if near else ""


async def only_forms(request: Request) -> None:
    """
    Check that a body is a form; a dependency of routes that take one, for FastAPI reads of another body nothing.

    :param request: the request.
    :raises RequestValidationError: if its body is something else.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in _FORMS and (kind or await request.body()):
        message = "this route takes a form (multipart/form-data)"
        raise RequestValidationError([{"type": "form_type", "loc": ("body",), "msg": message}])


def _names(dependant: Dependant) -> list[str]:
    own = [parameter.alias for parameter in dependant.query_params]
    return own + [name for part in dependant.dependencies for name in _names(part)]
