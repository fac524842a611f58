"""What an explanation tells of each chunk."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from haystack import Document

from modes.explaining import explanation_of
from modes.results import ExplainedChunk, Explanation, QueryResult
from registry import ModeRegistry
from settings import BUILTIN_PIPELINES
from tests.modes.conftest import TOWER, run
from tests.stub_llm import Behaviour, StubLLM

QUESTION = "How tall is the Eiffel Tower?"
LONG = (
    "Paris has many cafés and a long history. " * 50
    + TOWER
    + " It is painted in brown every seven years." * 30
)


@pytest.fixture(scope="module")
def long_tower(registry: ModeRegistry) -> str:
    """A tenant whose documents have more text than a prompt takes."""
    documents = [
        Document(content=LONG, meta={"document_id": "long", "title": "Eiffel Tower"}),
        Document(content="Bread is baked from flour and water.", meta={"document_id": "bread"}),
    ]
    registry.indexing["ingest"].run("long", documents)
    return "long"


def explained(
    registry: ModeRegistry, mode: str, tenant: str = "acme", question: str = QUESTION
) -> QueryResult:
    return run(registry, registry[mode].run_async(question, tenant_id=tenant, explain=True))


def of(result: QueryResult) -> tuple[Explanation, dict[str, ExplainedChunk]]:
    assert result.explanation is not None
    return result.explanation, {chunk.document_id: chunk for chunk in result.explanation.chunks}


@pytest.mark.parametrize("mode", ["standard", "crag", "structured", "crag_structured"])
def test_nothing_is_explained_unasked(registry: ModeRegistry, mode: str) -> None:
    """Without `explain` there is no explanation, and with it the answer is the same."""
    plain = run(registry, registry[mode].run_async(QUESTION, tenant_id="acme"))
    result = explained(registry, mode)
    assert plain.explanation is None
    assert result.explanation is not None
    assert (plain.answer, plain.citations, plain.documents) == (
        result.answer,
        result.citations,
        result.documents,
    )


@pytest.mark.parametrize("mode", ["crag", "crag_structured"])
def test_the_way_of_each_chunk_is_told(registry: ModeRegistry, mode: str) -> None:
    """A chunk that is kept has its place in the prompt and its citation; one that is dropped has the reason."""
    result = explained(registry, mode)
    explanation, chunks = of(result)
    assert [(search.query, search.chunks) for search in explanation.searches] == [(QUESTION, 2)]
    tower, lake = chunks["tower"], chunks["lake"]
    assert [(found.search, found.rank) for found in tower.found] == [(1, 1)]
    assert tower.found[0].score == result.documents[0].score
    assert (tower.kept, tower.label, tower.position, tower.citations) == (True, "CORRECT", 1, [0])
    assert [TOWER[part.start : part.end] for part in tower.shown or ()] == [TOWER]
    assert (lake.kept, lake.label, lake.position, lake.citations) == (False, "INCORRECT", None, [])
    assert (lake.why, lake.shown) == ("graded INCORRECT", None)
    assert (explanation.model, explanation.prompt_hash) == ("stub", result.prompt_hash)


def test_what_of_a_chunk_stood_in_the_prompt_is_told(
    registry: ModeRegistry, stub: StubLLM, long_tower: str, tmp_path: Path
) -> None:
    """Of a text that is cut down to sentences, the places are those of the words that the model was sent."""
    content = yaml.safe_load((BUILTIN_PIPELINES / "stages/cited_answer.yml").read_text("utf-8"))
    content["components"]["prompt_builder"]["init_parameters"] = {"max_context_chars": 200}
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages/cited_answer.yml").write_text(yaml.safe_dump(content), "utf-8")
    (tmp_path / "narrow.yml").write_text((BUILTIN_PIPELINES / "standard.yml").read_text("utf-8"), "utf-8")
    registry.add(tmp_path / "narrow.yml")
    explanation, _ = of(explained(registry, "narrow", long_tower))
    prompt = stub.requests[-1]["messages"][-1]["content"]
    shown = [
        LONG[part.start : part.end]
        for chunk in explanation.chunks
        if chunk.document_id == "long"
        for part in chunk.shown or ()
    ]
    assert TOWER in " ".join(shown)
    assert all(text in prompt for text in shown)
    assert sum(map(len, shown)) <= 200
    left_out = [chunk for chunk in explanation.chunks if chunk.shown == []]
    assert left_out
    assert all("left out of the prompt" in chunk.why for chunk in left_out)


def test_a_second_search_is_told(registry: ModeRegistry, stub: StubLLM) -> None:
    """When the question was put in other words, a chunk names both searches that found it."""
    stub.behaviour = Behaviour(text="What is the price of bread in Berlin?")
    explanation, chunks = of(explained(registry, "crag", question="What does bread cost in Berlin?"))
    assert [search.query for search in explanation.searches] == [
        "What does bread cost in Berlin?",
        "What is the price of bread in Berlin?",
    ]
    assert all([found.search for found in chunk.found] == [1, 2] for chunk in chunks.values())
    assert not any(chunk.kept for chunk in chunks.values())
    assert explanation.prompt_hash is None


def test_the_hash_of_the_prompt_is_that_of_what_is_asked(registry: ModeRegistry) -> None:
    """The same question has the same hash, whatever the code of its frame is, and another question another."""
    hashes = [
        explained(registry, "standard", question=question).prompt_hash
        for question in (QUESTION, QUESTION, "How high is the Eiffel Tower?")
    ]
    assert hashes[0] == hashes[1] != hashes[2]
    assert len(hashes[0] or "") == 64


def test_a_mode_that_tells_nothing_is_explained_from_its_result() -> None:
    """A mode of somebody's own components has at least the places of the chunks it gives."""
    document = {"chunk_id": "c1", "document_id": "d", "text": "text"}
    citation = {"index": 1, "document_id": "d", "chunk_id": "c1", "quote": "text", "start": 0, "end": 4}
    given: dict[str, Any] = {"documents": [document], "citations": [citation]}
    result = QueryResult(mode="own", answer="text [1]", **given)
    explanation = explanation_of([], result)
    assert explanation.searches == []
    (chunk,) = explanation.chunks
    assert (chunk.found, chunk.position, chunk.kept, chunk.shown, chunk.citations) == ([], 1, True, None, [0])
