import asyncio
from typing import Any, Literal

import pytest
from haystack import Document
from haystack.components.generators.chat import MockChatGenerator
from haystack.dataclasses import ChatMessage

from components.extracting import ExtractiveChatGenerator
from components.grading import AMBIGUOUS, CORRECT, INCORRECT
from components.json_grading import JsonScoreGrader, read_json
from components.models.llama_cpp import LlamaCppChatGenerator

QUESTION = "How deep is the lake?"
DOCUMENTS = [Document(content=f"Passage {n}", meta={"document_id": str(n)}) for n in range(3)]


def labels(result: dict[str, Any]) -> list[str]:
    return [grade["label"] for grade in result["grades"]]


def both_ways(grader: JsonScoreGrader) -> list[dict[str, Any]]:
    return [grader.run(QUESTION, DOCUMENTS), asyncio.run(grader.run_async(QUESTION, DOCUMENTS))]


def test_each_document_has_a_call_of_its_own() -> None:
    """By default the score in each reply grades the document that was asked about."""
    scores = {"Passage 0": "0.9", "Passage 1": "0.5", "Passage 2": "0.1"}

    def judge(messages: list[ChatMessage]) -> str:
        text = messages[-1].text or ""
        return next(f'{{"score": {score}}}' for name, score in scores.items() if name in text)

    for result in both_ways(JsonScoreGrader(MockChatGenerator(response_fn=judge))):
        assert labels(result) == [CORRECT, AMBIGUOUS, INCORRECT]
        assert result["documents"] == DOCUMENTS[:2]


def test_one_call_grades_all() -> None:
    """In mode one_call a single prompt holds every document."""
    prompts: list[str] = []

    def judge(messages: list[ChatMessage]) -> str:
        prompts.append(messages[-1].text or "")
        return 'Here you go:\n```json\n{"scores": [1, 0.4, 0]}\n```'

    for result in both_ways(JsonScoreGrader(MockChatGenerator(response_fn=judge), mode="one_call")):
        assert labels(result) == [CORRECT, AMBIGUOUS, INCORRECT]
    assert len(prompts) == 2
    assert all(f"Passage {n}" in prompts[0] for n in range(3))


@pytest.mark.parametrize("mode", ["concurrent", "one_call"])
@pytest.mark.parametrize(
    "text",
    [
        "",
        "good",
        "{",
        "[]",
        '{"score": "high", "scores": "all"}',
        '{"score": 7, "scores": [7, -1, 1e999]}',
        '{"score": NaN, "scores": [NaN, null, true]}',
        '{"score": true, "scores": [0.9]}',
        '{"scores": [0, 0, 0, 0], "grade": 0}',
        '{"a":' * 5000 + "}" * 5000,
    ],
)
def test_what_cannot_be_read_is_ambiguous(mode: Literal["concurrent", "one_call"], text: str) -> None:
    """Prose, broken JSON, numbers out of range and a wrong count of scores drop nothing."""
    for result in both_ways(JsonScoreGrader(MockChatGenerator(responses=text), mode=mode)):
        assert labels(result) == [AMBIGUOUS] * 3
        assert result["documents"] == DOCUMENTS


@pytest.mark.parametrize("mode", ["concurrent", "one_call"])
def test_without_a_model_all_is_ambiguous(mode: Literal["concurrent", "one_call"]) -> None:
    """When only extractive answers are to be had, nothing is dropped."""
    for result in both_ways(JsonScoreGrader(ExtractiveChatGenerator(), mode=mode)):
        assert labels(result) == [AMBIGUOUS] * 3


@pytest.mark.parametrize("mode", ["concurrent", "one_call"])
def test_no_documents_no_calls(mode: Literal["concurrent", "one_call"]) -> None:
    """Nothing retrieved, nobody asked."""

    def refuse(messages: list[ChatMessage]) -> str:
        raise AssertionError("asked")

    grader = JsonScoreGrader(MockChatGenerator(response_fn=refuse), mode=mode)
    assert grader.run(QUESTION, []) == {"documents": [], "grades": []}


def test_another_mode_is_refused() -> None:
    """A misspelt mode is an error when the grader is made."""
    with pytest.raises(ValueError, match="'one_call'"):
        JsonScoreGrader(MockChatGenerator(), mode="all")  # type: ignore[arg-type]


@pytest.mark.model
@pytest.mark.parametrize("mode", ["concurrent", "one_call"])
def test_a_real_model_writes_scores_that_can_be_read(
    small_model: LlamaCppChatGenerator, mode: Literal["concurrent", "one_call"]
) -> None:
    """With the schema as a constraint even the small model's reply is a score for each document."""
    grader = JsonScoreGrader(small_model, mode=mode, correct_threshold=0, ambiguous_threshold=0)
    assert labels(grader.run(QUESTION, DOCUMENTS)) == [CORRECT] * 3


@pytest.mark.timeout(20)
def test_brackets_without_end_are_no_score():
    """A reply that opens brackets and closes none is read once."""
    assert read_json(ChatMessage.from_assistant("{" * 1_000_000)) == {}
