"""Who comes through which door: without a key, with a wrong one, with one that is not for it."""

import asyncio
import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import Route

from serve.access import Role
from serve.access.keys import new_key
from serve.access.rules import RULES, rules_of
from serve.app import build_app
from serve.service import Service
from tests.serve.conftest import KeyedServer, log_lines, told_in, without_llm
from tests.serve.doors import DOORS, QUESTION, Door

OPEN = ["/", "/playground/app.js", "/health", "/ready"]
ACCEPT = {"accept": "application/json, text/event-stream"}
# A request for each route that takes more than a path, and the roles that its answer needs.
REQUESTS: list[tuple[str, str, Any, str]] = [
    ("POST", "/query/", {"q": QUESTION}, "query"),
    ("GET", "/query/?q=x", None, "query"),
    ("POST", "/query/batch", {"questions": ["x"]}, "query"),
    ("POST", "/standard/run", {"query": "x"}, "query"),
    ("POST", "/v1/chat/completions", DOORS[6].body, "query"),
    ("POST", "/v1/responses", DOORS[8].body, "query"),
    ("GET", "/documents", None, "query"),
    ("GET", "/documents/tower", None, "query"),
    ("DELETE", "/documents/none", None, "ingest"),
    ("POST", "/ingest/", {"texts": []}, "ingest"),
    ("POST", "/ingest/files", None, "ingest"),
    ("POST", "/ingest/0/retry", None, "ingest"),
    ("DELETE", "/ingest/0", None, "ingest"),
    ("DELETE", "/tenants/other", None, "admin"),
    ("POST", "/tenants/other/reindex", None, "admin"),
    ("GET", "/ingest/", None, "query ingest admin"),
    ("GET", "/ingest/0", None, "query ingest admin"),
    ("GET", "/modes", None, "query ingest admin"),
    ("GET", "/v1/models", None, "query ingest admin"),
    ("GET", "/openapi.json", None, "query ingest admin"),
    ("POST", "/mcp", {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, "query ingest"),
]
HOLDERS = {Role.QUERY: "reader", Role.INGEST: "writer", Role.ADMIN: "admin"}


def kind_of(answer: httpx.Response) -> str:
    """The kind of problem, in whichever form it is told."""
    body = answer.json()
    return str(body["error"]["code"] if "error" in body else body["type"].rpartition(":")[2]).replace(
        "_", "-"
    )


def routes_of(router: Any) -> Iterator[tuple[str, str]]:
    """Every route of an application or router as method and path, those of included routers too."""
    for route in router.routes:
        if (inner := getattr(route, "original_router", None)) is not None:
            yield from routes_of(inner)
        else:
            # Anything else, as a socket or a mounted application, would come in beside the table.
            assert isinstance(route, Route | APIRoute), route
            yield from ((method, route.path) for method in route.methods or ())


def test_every_route_has_a_rule(tmp_path: Any) -> None:
    """The table names each route of the application; none takes `OPTIONS`, which asks nobody for a key."""
    service = Service(without_llm(tmp_path))
    app: Any = build_app(service)
    while not isinstance(app, FastAPI):
        app = app.app
    routes = {("GET" if method == "HEAD" else method, path) for method, path in routes_of(app.router)}
    runs = {("POST", f"/{mode}/run") for mode in service.registry}
    service.registry.close()
    service.lock.release()
    assert runs <= routes
    assert {route for route in routes - runs if route not in RULES} == set()
    assert all(list(rules_of(*run)) == [RULES["POST", "/{name}/run"]] for run in runs)
    assert "OPTIONS" not in {method for method, _ in routes}


WRAPPER = """\
from hayhooks import BasePipelineWrapper

class PipelineWrapper(BasePipelineWrapper):
    def setup(self):
        pass

    def run_api(self, headers: dict | None = None) -> dict:
        return {"seen": sorted(dict(headers or {}))}

    def run_chat_completion(self, model, messages, body):
        return "said"
"""


def test_what_is_given_no_tenant_is_for_keys_of_every_one(tmp_path: Any) -> None:
    """A wrapper runs for a key of every tenant only, and sees no key; a route without a rule refuses even that one."""
    (tmp_path / "pipelines" / "mine").mkdir(parents=True)
    (tmp_path / "pipelines" / "mine" / "pipeline_wrapper.py").write_text(WRAPPER, "utf-8")
    made = {tenant: new_key([tenant], list(Role)) for tenant in ("*", "acme")}
    kept = [json.loads(key.model_dump_json(exclude_none=True)) for _, key in made.values()]
    service = Service(
        without_llm(tmp_path, api_keys=json.dumps({"keys": kept}), pipelines_dir=tmp_path / "pipelines")
    )
    app: Any = build_app(service)
    inner = app
    while not isinstance(inner, FastAPI):
        inner = inner.app
    inner.add_api_route("/forgotten", lambda: "secret")

    async def asked(tenant: str, method: str, path: str, body: Any = None) -> httpx.Response:
        headers = {"X-API-Key": made[tenant][0], "Authorization": f"Bearer {made[tenant][0]}"}
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, json=body, headers=headers)

    chat = {"model": "mine", "messages": [{"role": "user", "content": "x"}]}
    for path, body, good in (("/mine/run", {}, "seen"), ("/v1/chat/completions", chat, "said")):
        answer = asyncio.run(asked("*", "POST", path, body))
        assert answer.status_code == 200, answer.text
        assert good in answer.text
        assert "authorization" not in answer.text
        assert "x-api-key" not in answer.text
        assert kind_of(asyncio.run(asked("acme", "POST", path, body))) == "forbidden"
    assert kind_of(asyncio.run(asked("*", "GET", "/forgotten"))) == "forbidden"
    assert kind_of(asyncio.run(asked("*", "GET", "/nowhere"))) == "not-found"
    service.registry.close()
    service.lock.release()


@pytest.mark.parametrize("path", OPEN)
def test_some_routes_are_open(keyed: KeyedServer, path: str) -> None:
    """Probes and the page need no key, and a wrong one does no harm there."""
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        assert keyed.client.get(path, headers=headers).status_code in (200, 503)


def test_no_other_route_answers_without_a_good_key(keyed: KeyedServer) -> None:
    """Every other route, and what is no route, is 401 with a challenge; a wrong key is not repeated or logged."""
    paths = [(method, path, body) for method, path, body, _ in REQUESTS]
    others = [
        ("GET", "/nowhere", None),
        ("PUT", "/query/", None),
        ("GET", "/metrics", None),
        ("HEAD", "/openapi.json", None),
    ]
    with log_lines() as lines:
        for method, path, body in [*paths, *others]:
            for headers, kind in (
                ({}, "missing-key"),
                ({"Authorization": "Basic eDp5"}, "missing-key"),
                ({"Authorization": "Bearer thr_wrongsecret"}, "invalid-key"),
                ({"X-API-Key": "thr_wrongsecret"}, "invalid-key"),
                ({"Authorization": f"{keyed.shown('acme')['Authorization']}x"}, "invalid-key"),
            ):
                answer = keyed.client.request(method, path, json=body, headers={**ACCEPT, **headers})
                assert answer.status_code == 401, (method, path, headers)
                assert answer.headers["www-authenticate"].startswith("Bearer")
                assert answer.headers["x-request-id"]
                if method != "HEAD":
                    assert kind_of(answer) == kind
                assert "wrongsecret" not in answer.text
    assert "wrongsecret" not in "".join(lines)
    assert keyed.secrets["acme"] not in "".join(lines)


@pytest.mark.parametrize(
    ("method", "path", "body", "roles"), REQUESTS, ids=[f"{r[0]} {r[1]}" for r in REQUESTS]
)
def test_each_route_needs_one_of_its_roles(
    keyed: KeyedServer, method: str, path: str, body: Any, roles: str
) -> None:
    """A key with another role is refused with 403, and one with the right role gets past that."""
    for role, holder in HOLDERS.items():
        answer = keyed.client.request(method, path, json=body, headers={**ACCEPT, **keyed.shown(holder)})
        assert answer.status_code not in (401, 500)
        assert (answer.status_code == 403) == (role not in roles.split()), (role, answer.text)
        if answer.status_code == 403:
            assert kind_of(answer) == "forbidden"
            assert all(f"'{needed}'" in answer.text for needed in roles.split())


def test_the_log_names_the_key_that_is_refused(keyed: KeyedServer) -> None:
    """The access line of a 403 has the id of the key whose role does not do."""
    ids = {key.name: key.id for key in keyed.keys.read()}
    with log_lines() as lines:
        assert keyed.client.get("/metrics", headers=keyed.shown("reader")).status_code == 403
    assert [line["key_id"] for line in told_in(lines) if "route" in line] == [ids["reader"]]


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
def test_the_key_decides_the_tenant_at_every_door(keyed: KeyedServer, door: Door) -> None:
    """A key of one tenant need not name it, and gives its documents, whichever header brings it."""
    method = "GET" if door.body is None else "POST"
    for headers in (keyed.shown("reader"), {"X-API-Key": keyed.secrets["reader"]}):
        answer = keyed.client.request(method, door.path, json=door.body, headers={**ACCEPT, **headers})
        assert answer.status_code == 200
        assert "Eiffel" in answer.text


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
def test_a_key_of_several_tenants_has_to_name_one(keyed: KeyedServer, door: Door) -> None:
    """What names no tenant is refused then, and not guessed."""
    method = "GET" if door.body is None else "POST"
    for holder in ("both", "operator"):
        answer = keyed.client.request(
            method, door.path, json=door.body, headers={**ACCEPT, **keyed.shown(holder)}
        )
        assert "name the one that is meant in 'tenant_id'" in answer.text
        assert "Eiffel" not in answer.text


def test_a_body_is_not_waited_for_without_a_key(keyed: KeyedServer) -> None:
    """Who has no key is refused before a byte of the body has come."""
    address = urlsplit(str(keyed.client.base_url))
    with socket.create_connection((str(address.hostname), address.port or 80), timeout=5) as connection:
        head = f"POST /ingest/ HTTP/1.1\r\nhost: {address.netloc}\r\ncontent-length: 1000000\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 401 ")


def test_a_key_is_revoked_and_made_without_a_restart(keyed: KeyedServer) -> None:
    """The next request after a change of the file goes by it."""
    secret, key = new_key(["acme"], [Role.QUERY])
    headers = {"X-API-Key": secret}
    assert keyed.client.get("/documents", headers=headers).status_code == 401
    keyed.keys.add(key)
    assert keyed.client.get("/documents", headers=headers).status_code == 200
    keyed.keys.remove(key.id)
    assert keyed.client.get("/documents", headers=headers).status_code == 401


def test_a_broken_file_is_told_by_the_probe(keyed: KeyedServer) -> None:
    """`GET /ready` warns of it without its path, and stays as it is; the keys go on."""
    good = keyed.keys.path.read_bytes()
    keyed.keys.path.write_bytes(b"{")
    try:
        [warning] = keyed.client.get("/ready").json()["warnings"]
        assert "API keys" in warning
        assert str(keyed.keys.path.parent) not in warning
        assert keyed.client.get("/modes", headers=keyed.shown("acme")).status_code == 200
    finally:
        keyed.keys.path.write_bytes(good)
    assert keyed.client.get("/ready").json()["warnings"] == []


def test_a_file_that_is_gone_is_told_by_the_probe(
    keyed: KeyedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Without any key nobody comes in, and `GET /ready` and the log warn of it until there are some again."""
    away = keyed.keys.path.rename(keyed.keys.path.with_suffix(".away"))
    try:
        assert keyed.client.get("/modes", headers=keyed.shown("acme")).status_code == 401
        [warning] = keyed.client.get("/ready").json()["warnings"]
        assert "nobody can come in" in warning
        told = [record for record in caplog.records if "nobody can come in" in record.getMessage()]
        assert [record.levelname for record in told] == ["WARNING"]
    finally:
        away.rename(keyed.keys.path)
    assert keyed.client.get("/modes", headers=keyed.shown("acme")).status_code == 200
    assert keyed.client.get("/ready").json()["warnings"] == []


def test_a_browser_may_ask_before_it_sends_a_key(keyed: KeyedServer) -> None:
    """A preflight can't show a key, so it is answered without one."""
    asked = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
    assert keyed.client.options("/query/", headers=asked).status_code not in (401, 403)


def mcp(keyed: KeyedServer, holder: str, method: str, **parameters: Any) -> Any:
    """The result of an MCP request."""
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
    answer = keyed.client.post("/mcp", json=body, headers={**ACCEPT, **keyed.shown(holder)})
    assert answer.status_code == 200
    return json.loads(answer.text[answer.text.index("{") :])["result"]


def test_mcp_lists_and_runs_the_tools_of_a_keys_roles(keyed: KeyedServer) -> None:
    """A tool that a key may not call is not listed, and refuses when it is called anyway."""
    listed = {
        holder: {tool["name"] for tool in mcp(keyed, holder, "tools/list")["tools"]}
        for holder in ("reader", "writer", "acme")
    }
    assert listed["writer"] == {"ingest_text"}
    assert "ingest_text" not in listed["reader"]
    assert listed["acme"] == listed["reader"] | listed["writer"]
    for holder, tool, arguments in (
        ("writer", "standard", {"query": QUESTION}),
        ("reader", "ingest_text", {"text": "x"}),
    ):
        refused = mcp(keyed, holder, "tools/call", name=tool, arguments=arguments)
        assert refused["isError"]
        assert "role" in refused["content"][0]["text"]
        assert refused["_meta"]["thresher/problem"]["type"].endswith(":forbidden")


def test_the_openapi_document_tells_how_to_come_in(keyed: KeyedServer, client: httpx.Client) -> None:
    """With keys the document has their schemes, and tells where none is needed; without keys it has no schemes."""
    document = keyed.client.get("/openapi.json", headers=keyed.shown("reader")).json()
    schemes = document["components"]["securitySchemes"]
    assert {scheme["type"] for scheme in schemes.values()} == {"http", "apiKey"}
    assert document["security"] == [{name: []} for name in schemes]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            is_open = any(rule.is_open for rule in rules_of(method.upper(), path))
            assert (operation.get("security") == []) == is_open, path
            assert ("401" in operation["responses"]) != is_open, path
    without = client.get("/openapi.json").json()
    assert "securitySchemes" not in without["components"]
    assert "security" not in without
