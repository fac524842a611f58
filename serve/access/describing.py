"""Keys in the OpenAPI document, as long as the service asks for some."""

import copy
from typing import Any

from fastapi import FastAPI

from serve.access.asking import Access
from serve.access.rules import rules_of

_SCHEMES = {
    "Bearer": {"type": "http", "scheme": "bearer", "description": "An API key of `thresher keys`."},
    "Header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


def describe_access(app: FastAPI, access: Access) -> None:
    """
    Tell in an application's OpenAPI document which routes need a key.

    :param app: the application.
    :param access: knows whether keys are asked for.
    """
    make = app.openapi
    kept: tuple[dict[str, Any], dict[str, Any]] | None = None

    def openapi() -> dict[str, Any]:
        nonlocal kept
        document = make()
        if not access.is_on:
            return document
        if kept is None or kept[0] is not document:
            kept = document, _with_keys(document)
        return kept[1]

    app.openapi = openapi  # type: ignore[method-assign]


def _with_keys(document: dict[str, Any]) -> dict[str, Any]:
    document = copy.deepcopy(document)
    document["components"]["securitySchemes"] = _SCHEMES
    document["security"] = [{name: []} for name in _SCHEMES]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if any(rule.is_open for rule in rules_of(method.upper(), path)):
                operation["security"] = []
    return document
