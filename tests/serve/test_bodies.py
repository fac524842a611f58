"""Bodies that are wrong in many ways, or have very many parts: refused in little time, with a short answer."""

import json
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.json_values import ValueCounter
from tests.serve.doors import QUESTION

JSON = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
_HALF = b'{"\\ud800":{}}'
_NAN = b'{"a":{"type":"number","maximum":NaN}}'


def _fields(count: int) -> bytes:
    return json.dumps(dict.fromkeys(map(str, range(count)), 0)).encode()


@pytest.mark.parametrize("path", ["/query/", "/query/batch", "/crag/run", "/ingest/", "/v1/responses"])
def test_only_the_first_of_many_faults_are_told(client: httpx.Client, path: str) -> None:
    """Thousands of unknown fields get a short answer, which says how many more there are."""
    answer = client.post(path, content=_fields(4_000), headers=JSON)
    assert answer.status_code in (400, 422)
    assert len(answer.content) < 10_000
    if not path.startswith("/v1"):
        assert len(answer.json()["errors"]) == 21
        assert " more" in answer.json()["errors"][-1]["message"]


def test_very_many_faults_are_counted_only(client: httpx.Client) -> None:
    """Where listing the faults would take long, the answer is their number."""
    content = json.dumps({"texts": [1] * 9_001}).encode()
    problem = client.post("/ingest/", content=content, headers=JSON).json()
    assert problem["status"] == 422
    assert problem["detail"] == "there are 9001 faults, too many to list"


@pytest.mark.parametrize(
    ("path", "most"),
    [
        ("/query/", 20_000),
        ("/crag/run", 20_000),
        ("/v1/responses", 20_000),
        ("/mcp", 20_000),
        ("/ingest/", 200_000),
    ],
)
def test_a_body_has_so_many_values(client: httpx.Client, path: str, most: int) -> None:
    """More lists, objects and entries than any honest body has are refused before they are read."""
    content = b'{"q":[' + b"[]," * (most // 2) + b"[]]}"
    answer = client.post(path, content=content, headers=JSON)
    assert answer.status_code == 413
    assert f"more than {most} values" in answer.text


_PARTS = st.recursive(
    st.none() | st.integers() | st.text(st.sampled_from('a,[{\\"é')),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.sampled_from(',"\\')), inner),
)


def _values(part: Any) -> int:
    if not isinstance(part, list | dict):
        return 0
    inner = part.values() if isinstance(part, dict) else part
    return max(1, len(part)) + sum(map(_values, inner))


@given(_PARTS, st.integers(1, 7))
def test_values_are_counted_however_a_body_arrives(body: Any, size: int) -> None:
    """What stands in texts does not count, wherever the parts of a body begin and end."""
    counter, sent = ValueCounter(), json.dumps(body, ensure_ascii=False).encode()
    for begin in range(0, len(sent), size):
        counter.add(sent[begin : begin + size])
    assert counter.values == _values(body)


@pytest.mark.parametrize("k", [b"true", b'"5"', b"2.5"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/query/", b'{"q":"x","k":%b}'),
        ("/standard/run", b'{"query":"x","top_k":%b}'),
        ("/v1/chat/completions", b'{"model":"standard","messages":[{"role":"user","content":"x"}],"k":%b}'),
    ],
)
def test_a_number_is_no_text_and_no_boolean(client: httpx.Client, path: str, body: bytes, k: bytes) -> None:
    """In JSON a whole number is one; only in a URL is it written as text."""
    answer = client.post(path, content=body % k, headers=JSON)
    assert answer.status_code in (400, 422)
    assert "must be a whole number" in answer.text
    assert client.get("/query/", params={"q": QUESTION, "k": "2", "tenant_id": "acme"}).status_code == 200


@pytest.mark.parametrize("wrong", [_HALF, _NAN], ids=["half", "NaN"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/query/", b'{"q":"x","mode":"structured","json_schema":{"properties":%b}}'),
        ("/query/batch", b'{"questions":["x"],"mode":"structured","json_schema":{"properties":%b}}'),
        ("/structured/run", b'{"query":"x","json_schema":{"properties":%b}}'),
        (
            "/v1/chat/completions",
            b'{"model":"structured","messages":[{"role":"user","content":"x"}],"response_format":'
            b'{"type":"json_schema","json_schema":{"name":"a","schema":{"properties":%b}}}}',
        ),
        (
            "/v1/responses",
            b'{"model":"structured","input":"x","text":{"format":{"type":"json_schema","name":"a","schema":'
            b'{"properties":%b}}}}',
        ),
    ],
)
def test_a_schema_holds_what_json_can(client: httpx.Client, path: str, body: bytes, wrong: bytes) -> None:
    """Half a character or NaN in a schema is the request's fault at every door, not the model's."""
    answer = client.post(path, content=body % wrong, headers=JSON | {"authorization": "Bearer acme"})
    assert answer.status_code == (200 if path == "/query/batch" else 400 if path.startswith("/v1") else 422)
    assert "invalid" in answer.text
    assert "lone surrogate" in answer.text or "not finite" in answer.text


def test_an_option_holds_what_json_can(client: httpx.Client) -> None:
    """Half a character in an option, or as its name, is the request's fault."""
    for options in (b'{"stop":["\\ud800"]}', b'{"\\ud800":1}'):
        body = b'{"q":"x","mode":"crag","tenant_id":"acme","generation_kwargs":%b}' % options
        answer = client.post("/query/", content=body, headers=JSON)
        assert answer.status_code == 422, answer.text
