"""Served under a prefix, as a proxy does: what may not be done without it may not be done with it."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI

from serve.access import Role
from serve.access.key_file import KeyFile
from serve.access.keys import new_key
from serve.app import build_app
from serve.hayhooks_door import library
from serve.service import Service
from tests.serve.access.test_doors import ACCEPT, HOLDERS, OPEN, REQUESTS
from tests.serve.conftest import (
    KeyedServer,
    RunningServer,
    finished,
    log_lines,
    make_keys,
    told_in,
    without_llm,
)
from tests.serve.doors import DOORS

PREFIX = "/rag"


@pytest.fixture(scope="module")
def prefixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeyedServer]:
    settings = without_llm(tmp_path_factory.mktemp("prefixed"), max_body_bytes=2_000, max_upload_bytes=50_000)
    keys = KeyFile(settings.keys_file)
    secrets = make_keys(keys)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "ROOT_PATH", "rag/")
        server = RunningServer(settings)
    with server as running:
        service = KeyedServer(running, secrets, keys, {})
        running.headers.update({**ACCEPT, **service.shown("acme")})
        job = running.post(
            f"{PREFIX}/ingest/", json={"texts": ["The Eiffel Tower is 330 metres tall."]}
        ).json()
        running.base_url = f"{server.url}{PREFIX}"
        assert finished(running, job)["status"] == "done"
        del running.headers["Authorization"]
        running.base_url = server.url
        yield service


@pytest.mark.parametrize("before", [PREFIX, ""], ids=["passed on", "taken off by the proxy"])
def test_each_route_needs_its_role_under_a_prefix(prefixed: KeyedServer, before: str) -> None:
    """Every route is refused without a key and to a key with another role, and open routes stay open."""
    for method, path, body, roles in [*REQUESTS, ("GET", "/metrics", None, "")]:
        assert prefixed.client.request(method, before + path, json=body).status_code == 401
        for role, holder in HOLDERS.items():
            answer = prefixed.client.request(method, before + path, json=body, headers=prefixed.shown(holder))
            assert answer.status_code != 500
            assert (answer.status_code == 403) == (role not in roles.split()), (
                role,
                method,
                path,
                answer.text,
            )
    for path in OPEN:
        assert prefixed.client.get(before + path).status_code == 200
    assert prefixed.client.get(f"{before}/nowhere", headers=prefixed.shown("operator")).status_code == 404
    assert prefixed.client.put(f"{before}/query/", headers=prefixed.shown("operator")).status_code == 405


def test_every_layer_knows_the_routes_under_a_prefix(prefixed: KeyedServer) -> None:
    """The limits of bodies, the other form of a path, the check for foreign pages, and the names in the log."""
    ask, operator = prefixed.client, prefixed.shown("operator")
    headers = prefixed.shown("acme")
    large = "x" * 10_000
    assert ask.post(f"{PREFIX}/ingest/", json={"texts": [large]}, headers=headers).status_code == 413
    files = {"files": ("tower.txt", large.encode())}
    assert ask.post(f"{PREFIX}/ingest/files", files=files, headers=headers).status_code == 202
    foreign = {**headers, "Origin": "https://evil.example"}
    assert ask.post(f"{PREFIX}/mcp", json={}, headers=foreign).status_code == 403
    with log_lines() as lines:
        assert ask.get(f"{PREFIX}/documents/", headers=headers).status_code == 200
        assert ask.delete(f"{PREFIX}/tenants/secret", headers=headers).status_code == 403
    assert {line["route"] for line in told_in(lines) if "route" in line} == {
        "/documents",
        "/tenants/{tenant_id}",
    }
    shown = ask.get(f"{PREFIX}/metrics", headers=operator).text
    assert 'route="/documents"' in shown
    assert "/rag" not in shown


def test_addresses_in_answers_have_the_prefix(prefixed: KeyedServer) -> None:
    """What a client follows leads back through the proxy: to a job, a document, the page, and every route."""
    ask, headers = prefixed.client, prefixed.shown("acme")
    job = ask.post(f"{PREFIX}/ingest/", json={"texts": ["Lake Constance."]}, headers=headers)
    assert ask.get(job.headers["location"], headers=headers).json()["job_id"] == job.json()["job_id"]
    assert job.headers["location"].startswith(f"{PREFIX}/ingest/")
    chat = next(door.body for door in DOORS if door.name == "chat")
    answer = ask.post(f"{PREFIX}/v1/chat/completions", json=chat, headers=headers).json()
    url = answer["choices"][0]["message"]["annotations"][0]["url_citation"]["url"]
    assert urlsplit(url).path.startswith(f"{PREFIX}/documents/")
    assert "Eiffel" in ask.get(url, headers=headers).text
    assert ask.get(PREFIX).headers["location"] == f"{PREFIX}/"
    assert ask.get("/openapi.json", headers=headers).json()["servers"] == [{"url": PREFIX}]


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Callable[..., int]]:
    """:returns: What asks with a key that may only ask, and gives the status."""
    secret, key = new_key(["acme"], [Role.QUERY])
    kept = json.loads(key.model_dump_json(exclude_none=True))
    service = Service(without_llm(tmp_path, api_keys=json.dumps({"keys": [kept]})))
    app: Any = build_app(service)

    def asks(method: str, path: str, root_path: str = "", inner_root_path: str = "") -> int:
        inner = app
        while not isinstance(inner, FastAPI):
            inner = inner.app
        inner.root_path = inner_root_path

        async def asked() -> int:
            transport = httpx.ASGITransport(app, root_path=root_path)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                return (await client.request(method, path, headers={"X-API-Key": secret})).status_code

        return asyncio.run(asked())

    yield asks
    service.registry.close()
    service.lock.release()


def test_the_servers_root_path_is_a_prefix_too(reader: Callable[..., int]) -> None:
    """What uvicorn's `--root-path` or an application around this one puts before the path is taken off as well."""
    assert reader("GET", f"{PREFIX}/modes", root_path=PREFIX) == 200
    assert reader("DELETE", f"{PREFIX}/tenants/acme", root_path=PREFIX) == 403


def test_no_route_is_found_by_a_path_that_was_not_checked(reader: Callable[..., int]) -> None:
    """Where something between the check and the routes changes the path, the request is refused, not let in."""
    assert reader("DELETE", f"{PREFIX}/tenants/acme", inner_root_path=PREFIX) == 403
