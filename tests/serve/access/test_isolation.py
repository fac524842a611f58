"""One tenant's key at every route, naming another tenant in every place: nothing of it is seen, told or changed."""

import copy
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.access.rules import RULES
from tests.serve.conftest import CANARY, KeyedServer
from tests.serve.doors import QUESTION

FOREIGN, NOBODY = "globex", "nosuch"
"""A tenant that there is, and one that there is not: what is answered about both must be the same."""
ACCEPT = {"accept": "application/json, text/event-stream"}
_TURNS = [{"role": "user", "content": QUESTION}]
_ID = re.compile(
    r'("?(?:request_id|id|created|created_at|job_id|timings?|[a-z_]*_at)"?:? ?)("[^"]*"|[0-9.]+|\{[^}]*\})'
)


def tool(name: str, **arguments: Any) -> dict[str, Any]:
    """A call of an MCP tool."""
    parameters = {"name": name, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": parameters}


@dataclass(frozen=True)
class Asked:
    """A good request of a route, and where in its body the tenant may be named."""

    method: str
    path: str
    body: Any = None
    slots: tuple[tuple[str | int, ...], ...] = ()
    form: bool = False


_QUERY = {"q": QUESTION, "stream": False}
ROUTES = [
    Asked("POST", "/query/", _QUERY, ((),)),
    Asked("POST", "/query/", {**_QUERY, "stream": True}, ((),)),
    Asked("GET", f"/query/?q={quote(QUESTION)}"),
    Asked("POST", "/query/batch", {"questions": [{"q": QUESTION}]}, ((), ("questions", 0))),
    Asked("POST", "/standard/run", {"query": QUESTION}, ((),)),
    Asked("POST", "/v1/chat/completions", {"model": "standard", "messages": _TURNS}, ((),)),
    Asked("POST", "/v1/responses", {"model": "standard", "input": QUESTION}, ((), ("metadata",))),
    Asked("POST", "/mcp", tool("standard", query=QUESTION), (("params", "arguments"), ("params",))),
    Asked("POST", "/mcp", tool("search", query=QUESTION), (("params", "arguments"),)),
    Asked("POST", "/mcp", tool("list_documents"), (("params", "arguments"),)),
    Asked("POST", "/mcp", tool("ingest_text", text="x", id="tower"), (("params", "arguments"),)),
    Asked("GET", "/documents"),
    Asked("GET", "/documents/tower"),
    Asked("DELETE", "/documents/{name}"),
    Asked("DELETE", "/documents/gone"),
    Asked(
        "POST", "/ingest/", {"documents": [{"id": "d", "text": "A text."}]}, ((), ("documents", 0, "meta"))
    ),
    Asked("POST", "/ingest/files", {}, ((),), form=True),
    Asked("GET", "/ingest/"),
    Asked("GET", "/ingest/{job}"),
    Asked("GET", "/ingest/{job}/sources"),
    Asked("GET", "/ingest/{job}/events"),
    Asked("POST", "/ingest/{job}/retry"),
    Asked("DELETE", "/ingest/{job}"),
    Asked("DELETE", "/tenants/{name}"),
    Asked("POST", "/tenants/{name}/reindex"),
    Asked("GET", "/modes"),
    Asked("GET", "/pipelines"),
    Asked("GET", "/v1/models"),
    Asked("GET", "/v1/models/{name}"),
    Asked("GET", "/status/{name}"),
    Asked("GET", "/ready"),
    Asked("GET", "/metrics"),
    Asked("GET", "/traces/{job}"),
]
# What a name becomes: as it is, and everything that somewhere might be taken for it.
WORDINGS: dict[str, Callable[[str], Any]] = {
    "plain": str,
    "upper": str.upper,
    "title": str.title,
    "spaces": lambda name: f" {name} ",
    "full width": lambda name: "".join(chr(ord(letter) + 0xFEE0) for letter in name),
    "invisible": lambda name: f"{name}\u200b",
    "zero byte": lambda name: f"{name}\0",
    "percent": lambda name: f"%{ord(name[0]):02x}{name[1:]}",
    "line break": lambda name: f"{name}\n",
    "collection": lambda name: f"tenant_{name}",
    "generation": lambda name: f"{name}.g1",
    "path": lambda name: f"acme/../{name}",
    "comma": lambda name: f"acme,{name}",
    "list": lambda name: ["acme", name],
    "only in a list": lambda name: [name],
    "object": lambda name: {"$eq": name},
    "any": lambda name: "*",
    "empty": lambda name: "",
}
FILTERED = ("tenant_id", "meta.tenant_id", "meta.place", "content", "id", "meta.job_id")
HEADERS = ("X-Tenant-ID", "tenant_id", "X-Forwarded-User", "Idempotency-Key", "Last-Event-ID", "X-Request-ID")
PLACES = (
    "path",
    "query",
    "query twice",
    "query first",
    "body",
    "body twice",
    "header",
    "bearer",
    "filter",
    "cursor",
)


def request_of(
    route: Asked, place: str, wording: str, extra: str, name: str, job: str, key: str
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The request that names a tenant in one place; nothing where the route has no such place."""
    said = WORDINGS[wording](name)
    text = said if isinstance(said, str) else json.dumps(said)
    path = route.path.format(name=quote(text if place == "path" else name, safe=""), job=job)
    body = copy.deepcopy(route.body)
    headers = [("x-api-key", key), *ACCEPT.items()]
    parameters: list[tuple[str, str]] = []
    if place.startswith("query"):
        parameters = [("tenant_id", text)]
        parameters += [("tenant_id", "acme")] if place == "query first" else []
        parameters = [("tenant_id", "acme"), *parameters] if place == "query twice" else parameters
    elif place == "cursor":
        parameters = [("cursor", text), ("tenant_id", name)]
    elif place == "header":
        headers.append((extra, quote(text) or "x"))
    elif place == "bearer":
        headers.append(("authorization", f"Bearer {quote(text) or 'x'}"))
    elif place in ("body", "body twice", "filter") and body is not None:
        for slot in route.slots:
            inner = body
            for step in slot:
                inner = inner.setdefault(step, {}) if isinstance(inner, dict) else inner[step]
            if place == "filter":
                operator = "in" if isinstance(said, list) else "=="
                inner["filters"] = {
                    "field": extra,
                    "operator": operator,
                    "value": said,
                }
            else:
                inner["tenant_id"] = said
    elif place != "path":
        return
    joint = "&" if "?" in path else "?"
    query = "&".join(f"{key}={quote(value, safe='')}" for key, value in parameters)
    sent: dict[str, Any] = {"headers": headers}
    if route.form:
        files = [
            ("files", ("tower.txt", b"A text.")),
            ("tenant_id", (None, text if place == "body" else "acme")),
        ]
        sent["files"] = files if place != "body twice" else [*files, ("tenant_id", (None, text))]
    elif body is not None:
        # Written by hand, for a dictionary has no name twice.
        raw = json.dumps(body)
        raw = f'{{"tenant_id": "acme", {raw[1:]}' if place == "body twice" else raw
        sent |= {"content": raw}
        headers.append(("content-type", "application/json"))
    yield route.method, f"{path}{joint}{query}" if query else path, sent


def told(answer: httpx.Response, *names: str) -> tuple[int, str]:
    """Status and body without what differs from request to request, and without the names that were sent."""
    text = _ID.sub(r"\1", answer.text)
    for name in names:
        for wording in WORDINGS.values():
            said = wording(name)
            forms = {str(said), json.dumps(said), json.dumps(str(said))[1:-1], quote(str(said), safe="")}
            for form in sorted(forms - {"", "*", '""', '"*"'}, key=len, reverse=True):
                text = text.replace(form, "NAME")
    return answer.status_code, text


def test_the_routes_above_are_all_that_ask_for_a_role(keyed: KeyedServer) -> None:
    """No route with a rule is left out of the search."""
    known = {(route.method, route.path.partition("?")[0]) for route in ROUTES}
    shapes = {(method, re.sub(r"\{[^}]*\}|standard|tower|gone", "*", path)) for method, path in known}
    described = {"/openapi.json", "/docs", "/status", "/modes/{mode}"}
    for (method, path), rule in RULES.items():
        if not rule.is_open and path not in described:
            assert (method, re.sub(r"\{[^}]*\}", "*", path)) in shapes, (method, path)


@given(
    route=st.sampled_from(ROUTES),
    place=st.sampled_from(PLACES),
    wording=st.sampled_from(sorted(WORDINGS)),
    header=st.sampled_from(HEADERS),
    filtered=st.sampled_from(FILTERED),
    who=st.sampled_from(["acme", "admin"]),
)
def test_naming_another_tenant_is_like_naming_none_that_exists(
    keyed: KeyedServer, route: Asked, place: str, wording: str, header: str, filtered: str, who: str
) -> None:
    """Whatever names another tenant shows nothing of it, and is answered as for one that does not exist."""
    answers = []
    extra = filtered if place == "filter" else header
    for name, job in ((FOREIGN, keyed.jobs[FOREIGN]), (NOBODY, "0" * 32)):
        for method, url, sent in request_of(route, place, wording, extra, name, job, keyed.secrets[who]):
            answer = keyed.client.request(method, url, **sent)
            assert CANARY not in answer.text
            assert CANARY not in str(answer.headers)
            assert answer.status_code < 500
            answers.append(told(answer, name, job))
    # A stream of a job's own events, or an answer from one's own documents, may differ in what is made anew.
    assert len({status for status, _ in answers}) <= 1
    if answers and answers[0][0] >= 400:
        assert answers[0] == answers[1]


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_another_tenant_named_as_it_is_called_is_not_found(keyed: KeyedServer, route: Asked) -> None:
    """Where a route takes a tenant, a foreign one is 404 `unknown-tenant`, and its jobs are 404 `unknown-job`."""
    job = keyed.jobs[FOREIGN]
    place = "body" if route.slots else "path" if "{name}" in route.path else "query"
    for who in ("acme", "admin"):
        [(method, url, sent)] = request_of(route, place, "plain", "", FOREIGN, job, keyed.secrets[who])
        answer = keyed.client.request(method, url, **sent)
        assert CANARY not in answer.text
        if answer.status_code == 403 or route.path.startswith(
            ("/modes", "/pipelines", "/v1/models", "/status", "/ready")
        ):
            continue
        assert "unknown" in answer.text, answer.text


def test_what_the_other_tenant_has_is_as_it_was(keyed: KeyedServer) -> None:
    """The other tenant still has its document and its job, sees them, and has nothing that was sent by others."""
    headers = keyed.shown(FOREIGN)
    held = {
        item["document_id"]: item["chunks"]
        for item in keyed.client.get("/documents", headers=headers).json()["items"]
    }
    assert held["tower"] == 1
    assert held.keys().isdisjoint({"d", "tower.txt"})
    assert keyed.client.get(f"/ingest/{keyed.jobs[FOREIGN]}", headers=headers).json()["status"] == "done"
    assert CANARY in keyed.client.post("/query/", json=_QUERY, headers=headers).text


def test_an_idempotency_key_of_another_tenant_is_ones_own(keyed: KeyedServer) -> None:
    """The same key and content give each tenant a job of its own, and no tenant another's."""
    jobs = {}
    for who in ("acme", FOREIGN):
        headers = {**keyed.shown(who), "Idempotency-Key": "shared"}
        job = keyed.client.post("/ingest/", json={"texts": [f"Of {who}."]}, headers=headers).json()
        assert job["tenant_id"] == who
        jobs[who] = job["job_id"]
    assert jobs["acme"] != jobs[FOREIGN]
    assert keyed.client.get(f"/ingest/{jobs[FOREIGN]}", headers=keyed.shown("acme")).status_code == 404


def test_a_cursor_of_another_tenants_list_shows_nothing_of_it(keyed: KeyedServer) -> None:
    """A cursor goes on in the lists of whoever uses it."""
    for path in ("/documents", "/ingest/"):
        for secret in ("x", "y"):
            keyed.client.post("/ingest/", json={"texts": [f"{secret} {path}"]}, headers=keyed.shown(FOREIGN))
        page = keyed.client.get(path, params={"limit": 1}, headers=keyed.shown(FOREIGN)).json()
        if page["next"] is None:
            continue
        answer = keyed.client.get(path, params={"cursor": page["next"]}, headers=keyed.shown("acme"))
        assert answer.status_code in (200, 422)
        assert CANARY not in answer.text
        assert all(item.get("tenant_id", "acme") == "acme" for item in answer.json().get("items", []))
