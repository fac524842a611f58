"""Pages of other websites, which a browser shows on a machine that reaches the service."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from serve.access import Role
from serve.access.asking import Access
from serve.access.keys import new_key
from serve.guarding import PageGuard, PageGuardMiddleware
from tests.serve.conftest import RunningServer, without_llm

FORM = {"files": ("note.txt", b"The tower is 90 m tall.")}
CROSS = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
REBOUND = {"Host": "evil.example:8000", "Origin": "http://evil.example:8000", "Sec-Fetch-Site": "same-origin"}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A service on loopback that asks for no key."""
    with RunningServer(
        without_llm(tmp_path_factory.mktemp("guarded"), allowed_hosts="rag.example.com")
    ) as client:
        yield client


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 202),
        ({"Origin": "http://localhost:5173"}, 202),
        ({"Origin": "https://rag.example.com", "Sec-Fetch-Site": "cross-site"}, 202),
        # Through a proxy that gives the service another name.
        ({"Origin": "https://other.example", "Sec-Fetch-Site": "same-origin"}, 202),
        ({"Host": "rag.example.com", "Origin": "https://rag.example.com"}, 202),
        (
            {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
            403,
        ),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost.evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 403),
        (REBOUND, 403),
        ({"Host": "evil.example"}, 403),
    ],
)
def test_a_form_of_another_website_is_not_taken(
    plain: httpx.Client, headers: dict[str, str], status: int
) -> None:
    """A page of a website can't upload a file by a form, which browsers send without asking; programs can."""
    answer = plain.post("/ingest/files", files=FORM, headers=headers)
    assert answer.status_code == status
    if status == 403:
        assert answer.json()["type"] == "urn:thresher:problem:untrusted-origin"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/documents"),
        ("GET", "/query/?q=why"),
        ("POST", "/query/"),
        ("POST", "/query/batch"),
        ("POST", "/ingest/"),
        ("DELETE", "/tenants/default"),
        ("DELETE", "/documents/tower"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/standard/run"),
        ("POST", "/mcp"),
    ],
)
def test_no_route_answers_a_foreign_page(plain: httpx.Client, method: str, path: str) -> None:
    """Neither a foreign name for this machine nor a request out of a foreign page gets further than the door."""
    for headers in (REBOUND, CROSS, {"Origin": "https://evil.example"}):
        assert plain.request(method, path, headers=headers).status_code == 403


def test_links_of_other_websites_lead_here(plain: httpx.Client) -> None:
    """Who follows a link to something sees it."""
    followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert plain.get("/modes", headers=followed).status_code == 200


@pytest.mark.parametrize("path", ["/", "/docs", "/playground/app.js", "/health", "/ready"])
def test_what_tells_nothing_is_open_to_every_page(plain: httpx.Client, path: str) -> None:
    """The playground's files and the probes pass, for behind a proxy any name and origin may be the service's own."""
    for headers in (REBOUND, CROSS, {"Origin": "http://rag.example"}):
        assert plain.get(path, headers=headers).status_code in ((200, 503) if path == "/ready" else (200,))
        assert plain.head(path, headers=headers).status_code != 403
        assert plain.post(path, headers=headers).status_code == 403


def test_refusal_says_what_helps(plain: httpx.Client) -> None:
    """A setting is named where it helps, and not where only the browser's mark was seen."""
    for headers in (REBOUND, {"Origin": "https://evil.example"}):
        assert "ALLOWED_HOSTS" in plain.get("/modes", headers=headers).json()["detail"]
    told = plain.get("/modes", headers=CROSS).json()["detail"]
    assert "a page of another website sent this" in told
    assert "ALLOWED_HOSTS" not in told


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"])
@pytest.mark.parametrize("auth", ["auto", "off"])
def test_a_proxy_is_told_of_unless_it_is_meant(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, header: str, auth: str
) -> None:
    """Each header that proxies send is noticed once; AUTH=off says that the proxy decides who may come in."""
    guarded = PageGuardMiddleware(
        PlainTextResponse("here"), Access(without_llm(tmp_path, auth=auth)), PageGuard([], only_local=True)
    )
    client = TestClient(guarded, "http://localhost")
    for _ in range(2):
        assert client.get("/modes", headers={header: "192.0.2.1"}).text == "here"
    assert [record.levelname for record in caplog.records if "proxy" in record.message] == (
        ["WARNING"] if auth == "auto" else []
    )


def test_where_keys_are_asked_for_the_key_counts(tmp_path: Path) -> None:
    """A page that has a key is as good as a program, but for MCP, whose specification wants the check."""
    secret, kept = new_key(["*"], [Role.QUERY])
    given = json.dumps({"keys": [kept.model_dump(mode="json")]})
    with RunningServer(without_llm(tmp_path, api_keys=given)) as client:
        headers = {**REBOUND, "Authorization": f"Bearer {secret}"}
        assert client.get("/modes", headers=REBOUND).status_code == 401
        assert client.get("/modes", headers=headers).status_code == 200
        assert client.post("/mcp", headers=headers).status_code == 403


@pytest.mark.parametrize("path", ["/", "/health", "/documents", "/nothing", "/v1/models"])
def test_answers_say_how_a_browser_should_treat_them(plain: httpx.Client, path: str) -> None:
    """No answer is taken for another type, shown in another site's frame, or kept by a cache that was not told so."""
    headers = plain.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cache-control"] == ("no-cache" if path == "/" else "no-store")
