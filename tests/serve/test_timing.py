"""The header that tells what an answer's time went into."""

import re

import httpx
import pytest

from modes.results import QueryResult, Usage
from serve.timing import server_timing

ENTRY = re.compile(r'[A-Za-z0-9_.-]+;dur=[0-9.]+(;desc="[^"\\]*")?')


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/query/", {"q": "How long is the lake?", "tenant_id": "acme"}),
        ("/standard/run", {"query": "How long is the lake?", "tenant_id": "acme"}),
    ],
)
def test_an_answer_tells_the_time_of_its_stages(client: httpx.Client, path: str, body: dict) -> None:
    """Every door's answer has each stage, the model's calls and the total in milliseconds."""
    entries = client.post(path, json=body).headers["server-timing"].split(", ")
    assert all(ENTRY.fullmatch(entry) for entry in entries), entries
    assert {entry.split(";")[0] for entry in entries} >= {"vector_search", "cited_answer", "llm", "total"}


def test_an_answer_without_a_mode_has_no_times(client: httpx.Client) -> None:
    """What asked no mode has no such header."""
    assert "server-timing" not in client.get("/modes").headers


def test_names_that_a_header_cannot_hold_are_written_otherwise() -> None:
    """A stage or model may be called anything; the header stays well-formed, and many answers are summed up."""
    answer = QueryResult(
        mode="m",
        answer="",
        model='a,"b" \\ ü\r\nset-cookie: x',
        usage=Usage(prompt_tokens=3, completion_tokens=2),
        timings={"my stage;ö": 0.001, "llm": 0.25},
    )
    written = server_timing([answer, answer])
    assert written == ('my_stage__;dur=2.0, llm;dur=500.0;desc="a??b? ? ???set-cookie: x 6+4 tokens"')


def answered(model: str | None, tokens: int, **timings: float) -> QueryResult:
    usage = Usage(prompt_tokens=tokens, completion_tokens=tokens)
    return QueryResult(mode="m", answer="", model=model, usage=usage, timings=timings)


def test_each_model_that_answered_is_named_once() -> None:
    """The tokens of many answers are those of all models that gave them."""
    answers = [answered(model, 10, llm=1) for model in ("small", "large", None, "small")]
    assert server_timing(answers) == 'llm;dur=4000.0;desc="small and large 40+40 tokens"'


def test_no_name_comes_twice() -> None:
    """Stages whose names a header can't tell apart are one entry."""
    assert (
        server_timing([answered(None, 0, **{"ä b": 1, "a_b": 2, "é b": 3})])
        == "__b;dur=4000.0, a_b;dur=2000.0"
    )
