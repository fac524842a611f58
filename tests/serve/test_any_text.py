"""Whatever stands in a request: it is refused clearly or kept exactly, and never an error that nobody foresaw."""

import copy
import json
import re
import time
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.serve.conftest import finished
from tests.serve.doors import QUESTION

MCP = {"accept": "application/json, text/event-stream", "authorization": "Bearer acme"}
_INTERNAL_ERROR = -32603
_ASKED = {"tenant_id": "acme", "k": 2, "model": None, "filters": None, "instructions": "Be brief."}
_RUN = {"query": QUESTION, "tenant_id": "acme", "top_k": 2, "filters": None, "instructions": "Be brief."}
_TURN = {"role": "user", "content": QUESTION}
# A request for each door, of which each value in turn is replaced by another.
BODIES: dict[str, dict[str, Any]] = {
    "/query/": {"q": QUESTION, "mode": "crag", "stream": False, "history": [_TURN], **_ASKED},
    "/query/batch": {"questions": [{"id": "1", "q": QUESTION, "history": [_TURN]}], "mode": "crag", **_ASKED},
    "/crag/run": {**_RUN, "history": [_TURN]},
    "/structured/run": {**_RUN, "json_schema": {"type": "object", "properties": {"a": {"type": "string"}}}},
    "/v1/chat/completions": {"model": "crag", "messages": [_TURN, _TURN], "tenant_id": "acme", "stop": "x"},
    "/v1/responses": {"model": "crag", "input": [_TURN], "instructions": "Be brief.", "metadata": {"a": "b"}},
    "/mcp": {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "crag", "arguments": {"query": QUESTION, "tenant_id": "acme"}},
    },
    "/ingest/": {
        "tenant_id": "any-text",
        "pipeline": "ingest",
        "documents": [{"id": "d", "title": "t", "text": "A text.", "meta": {"kind": "lake", "size": 1}}],
    },
}
SURROGATES = st.characters(categories=["Cs"])
TEXTS = st.text(st.characters() | SURROGATES | st.sampled_from("\0\x1b\r\n\u202e\ufeff/%.\\\"'"), max_size=40)
NUMBERS = st.integers() | st.floats() | st.sampled_from([2**63, -(2**63) - 1, 10**400, 1e308])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)


def places(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The ways to every value of a body, the body itself first."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [way, *(place for key, part in inside for place in places(part, (*way, key)))]


SLOTS = [(path, place) for path, body in BODIES.items() for place in places(body)]


def replaced(body: Any, place: tuple[Any, ...], value: Any) -> Any:
    """A body with one value replaced."""
    if not place:
        return value
    changed = copy.deepcopy(body)
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return changed


def check(answer: httpx.Response) -> None:
    """Refuse what is no answer and no clear refusal."""
    # Without a language model only the service's own schema can be filled.
    assert answer.status_code < 500 or "model-needed" in answer.text, answer.text
    assert answer.headers["x-request-id"]
    if answer.status_code >= 400:
        told = answer.json()
        assert "internal-error" not in answer.text
        assert "detail" in told or "error" in told
    elif answer.content and answer.headers["content-type"].startswith("application/json"):
        told = answer.json()
        for item in told.get("items") or []:
            assert (item.get("problem") or {}).get("status", 0) < 500, item
        assert (told.get("error") or {}).get("code") != _INTERNAL_ERROR, told


@pytest.mark.parametrize("path", BODIES)
@given(data=st.data())
def test_any_value_is_taken_or_refused(client: httpx.Client, path: str, data: st.DataObject) -> None:
    """Any JSON value in any place of a body, at every door, is taken or refused as a wrong request."""
    place = data.draw(st.sampled_from(places(BODIES[path])))
    body = replaced(BODIES[path], place, data.draw(VALUES))
    headers = {**MCP, "content-type": "application/json"}
    check(client.post(path, content=json.dumps(body), headers=headers))


@given(path=st.sampled_from(list(BODIES)), raw=st.binary(max_size=60))
@example("/query/", b"[" * 100_000)
@example("/v1/chat/completions", b'{"messages":' * 50_000)
@example("/ingest/", b'{"texts":' * 50_000)
@example("/mcp", b"[" * 100_000)
@example("/query/", b'{"q":"\xff"}')
@example("/query/", b'\xef\xbb\xbf{"q":"x"}')
@example("/ingest/", b'{"texts":["x"],"texts":[1e999]}')
@example("/query/", b'{"k":' + b"9" * 10_000 + b',"q":"x"}')
@example("/query/batch", b'{"questions":[NaN,Infinity,-Infinity]}')
def test_any_bytes_are_refused(client: httpx.Client, path: str, raw: bytes) -> None:
    """A body that is no JSON, or JSON of absurd depth or size, is refused as a wrong request, at every door."""
    check(client.post(path, content=raw, headers={**MCP, "content-type": "application/json"}))


PATHS = [
    "/modes/{}",
    "/ingest/{}",
    "/ingest/{}/sources",
    "/ingest/{}/events",
    "/documents/{}",
    "/v1/models/{}",
    "/status/{}",
    "/playground/{}",
]
QUERIES = [
    "/query/?q={}",
    "/query/?q=x&mode={}",
    "/query/?q=x&tenant_id={}",
    "/query/?q=x&k={}",
    "/query/?q=x&model={}",
    "/ingest/?cursor={}",
    "/ingest/?status={}",
    "/ingest/?limit={}",
    "/documents?tenant_id=acme&cursor={}",
    "/documents/tower?tenant_id=acme&cursor={}",
]


@given(route=st.sampled_from(PATHS + QUERIES), value=TEXTS | NUMBERS.map(str))
def test_any_url_is_answered_or_refused(client: httpx.Client, route: str, value: str) -> None:
    """Any text in a path or a parameter, percent-encoded, is found or refused."""
    encoded = quote(value.encode("utf-8", "surrogatepass"), safe="")
    check(client.get(route.format(encoded)))


@given(
    name=st.sampled_from(
        ["x-request-id", "x-request-timeout", "authorization", "idempotency-key", "accept", "last-event-id"]
    ),
    value=st.binary(max_size=60).map(lambda raw: raw.translate(None, b"\0\r\n").strip()),
)
def test_any_header_is_taken_or_refused(client: httpx.Client, name: str, value: bytes) -> None:
    """Any bytes that HTTP allows in a header are taken or refused, at a route that reads and one that writes."""
    headers = [(name.encode(), value), (b"content-type", b"application/json")]
    try:
        answers = [
            client.post("/query/?q=x&tenant_id=acme", headers=headers),
            client.post("/ingest/?tenant_id=any-header", content=b'{"texts":["x"]}', headers=headers),
        ]
    except httpx.LocalProtocolError:
        return  # no HTTP
    for answer in answers:
        if answer.status_code != 400 or answer.content != b"Invalid HTTP request received.":
            check(answer)


DOCUMENTS = st.lists(
    st.fixed_dictionaries(
        {"id": TEXTS, "text": TEXTS | st.text(min_size=200, max_size=2_000)},
        optional={
            "title": TEXTS,
            "meta": st.dictionaries(TEXTS, NUMBERS | TEXTS | st.booleans(), max_size=3),
        },
    ),
    min_size=1,
    max_size=5,
)
# docs/ingestion.md: one space for each, so that no text moves.
CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f\ufeff]")


def kept(value: Any) -> Any:
    """A value of metadata as it comes back: Chroma may change the last of a number's 17 digits."""
    return pytest.approx(value, rel=1e-15) if isinstance(value, float) else value


@given(documents=DOCUMENTS)
@example([{"id": "d", "text": "x", "meta": {"n": 1.1105237989155143e-199}}])
def test_what_is_accepted_is_kept_exactly(client: httpx.Client, documents: list[dict[str, Any]]) -> None:
    """A document's id, title, text and metadata come back as they were sent, or the request was refused."""
    body = json.dumps({"tenant_id": "exact", "documents": documents})
    answer = client.post("/ingest/", content=body, headers={"content-type": "application/json"})
    check(answer)
    if answer.status_code != 202:
        return
    job = finished(client, answer.json())
    assert (job["status"], job["documents_failed"]) == ("done", 0), job
    for sent, source in zip(documents, job["sources"], strict=True):
        url = f"/documents/{quote(sent['id'], safe='')}"
        held = client.get(url, params={"tenant_id": "exact", "limit": 500})
        if source["status"] == "skipped":
            # Nothing is left of it without what has no meaning.
            assert not CONTROL.sub("", sent["text"]).strip()
            assert held.status_code == 404
            continue
        found = held.json()
        assert (held.status_code, found["document_id"]) == (200, sent["id"])
        assert found["title"] == (sent.get("title") or found["title"])
        assert found["meta"] == {name: kept(value) for name, value in sent.get("meta", {}).items()}
        text = ""
        for chunk in found["items"]:
            text = text[: chunk["start"]] + chunk["text"]
        assert text == CONTROL.sub(" ", sent["text"])
        assert client.delete(url, params={"tenant_id": "exact"}).status_code == 200


def test_hostile_requests_are_quick(client: httpx.Client) -> None:
    """Nothing of what is refused above takes the service long."""
    begin = time.monotonic()
    for path in BODIES:
        check(
            client.post(path, content=b"[" * 2_000_000, headers={**MCP, "content-type": "application/json"})
        )
    assert time.monotonic() - begin < 20
