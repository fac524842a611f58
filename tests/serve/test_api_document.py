"""The OpenAPI document: which errors it names."""

import re

import httpx

from serve.api_document import PROBLEMS
from serve.errors import _PROBLEMS


def test_every_route_says_its_problems(client: httpx.Client) -> None:
    """Each route of the document has its line in the table of problems, and the table has no other."""
    paths = client.get("/openapi.json").json()["paths"]
    operations = {
        f"{method.upper()} {path}"
        for path, methods in paths.items()
        for method in methods
        if not path.endswith("/run")
    }
    assert operations == set(PROBLEMS)


def test_every_problem_is_described(client: httpx.Client) -> None:
    """Each kind of problem that an error turns into is named at a route, with the form that its body has."""
    paths = client.get("/openapi.json").json()["paths"]
    told = set()
    for path, methods in paths.items():
        for method in methods.values():
            for status, response in method["responses"].items():
                if status < "400":
                    continue
                kinds = set(re.findall("`([a-z-]+)`", response["description"]))
                told |= kinds
                form = "application/json" if path.startswith("/v1") else "application/problem+json"
                assert not kinds or form in response["content"], (path, status)
    assert {kind for _, _, kind in _PROBLEMS} - told == set()
