import asyncio
import math
import threading
from typing import Any

import pytest
from haystack import Document
from haystack.components.generators.chat import MockChatGenerator
from haystack.dataclasses import ChatMessage

from components.extracting import ExtractiveChatGenerator
from components.grading import AMBIGUOUS, CORRECT, INCORRECT
from components.llm_grading import LogprobGrader, yes_probability
from components.models.llama_cpp import LlamaCppChatGenerator

QUESTION = "How deep is the lake?"
DOCUMENTS = [Document(content=f"Passage {n}", meta={"document_id": str(n)}) for n in range(5)]


def reply(text: str, probabilities: dict[str, float] | None = None, model: str = "m") -> ChatMessage:
    meta: dict[str, Any] = {"model": model}
    if probabilities is not None:
        top = [{"token": token, "logprob": math.log(value)} for token, value in probabilities.items()]
        meta["logprobs"] = {"content": [{**top[0], "top_logprobs": top}]}
    return ChatMessage.from_assistant(text, meta=meta)


@pytest.mark.parametrize(
    ("message", "probability"),
    [
        (reply("Yes", {"Yes": 0.6, " yes": 0.2, "No": 0.2}), 0.8),
        (reply("Well", {"Well": 0.9, "No": 0.03, "yes": 0.01}), 0.25),
        (reply("No", {"Maybe": 1.0}), 0.0),
        (reply("yes."), 1.0),
        (reply("No, it does not."), 0.0),
        (reply("No lake is that deep"), None),
        (reply("maybe"), None),
        (reply(""), None),
        (None, None),
    ],
)
def test_yes_is_read_from_probabilities_or_text(
    message: ChatMessage | None, probability: float | None
) -> None:
    """Spellings of yes and no add up; without probabilities the word counts; anything else tells nothing."""
    assert yes_probability(message) == (None if probability is None else pytest.approx(probability))


def test_labels_follow_the_probability() -> None:
    """Sure is CORRECT, unsure AMBIGUOUS, a no INCORRECT and dropped, nonsense AMBIGUOUS."""
    replies = [reply("Yes", {"Yes": p, "No": 1 - p}) for p in (0.9, 0.6, 0.2)] + [reply("42"), reply("no")]
    grader = LogprobGrader(MockChatGenerator(responses=replies), 0.8, 0.5, concurrency=1)
    result = grader.run(QUESTION, DOCUMENTS)
    labels = [grade["label"] for grade in result["grades"]]
    assert labels == [CORRECT, AMBIGUOUS, INCORRECT, AMBIGUOUS, INCORRECT]
    assert result["documents"] == [DOCUMENTS[0], DOCUMENTS[1], DOCUMENTS[3]]


@pytest.mark.parametrize(
    ("asked", "answered", "label"),
    [(None, "tiny-1b", CORRECT), ("Tiny:1B-q4", "m", CORRECT), (None, "m", INCORRECT)],
)
def test_thresholds_belong_to_the_model(asked: str | None, answered: str, label: str) -> None:
    """The model that the request names, else the one that replied, decides which thresholds hold."""
    generator = MockChatGenerator(responses=reply("x", {"Yes": 0.4, "No": 0.6}, model=answered))
    grader = LogprobGrader(generator, thresholds_by_model={"tiny-1b": {"correct": 0.4, "ambiguous": 0.2}})
    assert grader.run(QUESTION, DOCUMENTS[:1], model=asked)["grades"][0]["label"] == label


def test_all_documents_are_asked_about_at_once() -> None:
    """No call of run or run_async ends before all five are in flight."""
    together = threading.Barrier(5, timeout=30)

    def wait(messages: list[ChatMessage]) -> str:
        together.wait()
        return "yes"

    assert len(LogprobGrader(MockChatGenerator(response_fn=wait)).run(QUESTION, DOCUMENTS)["documents"]) == 5
    counting = CountingGenerator()
    asyncio.run(LogprobGrader(counting).run_async(QUESTION, DOCUMENTS))
    assert counting.most == 5


def test_concurrency_is_limited() -> None:
    """Never more calls than `concurrency` are in flight."""
    counting = CountingGenerator()
    asyncio.run(LogprobGrader(counting, concurrency=2).run_async(QUESTION, DOCUMENTS))
    assert counting.most == 2


class CountingGenerator:
    """Counts how many calls are in flight together."""

    def __init__(self, failing: bool = False) -> None:
        self.failing = failing
        self.now = self.most = self.begun = 0

    async def run_async(
        self, messages: list[ChatMessage], generation_kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        self.begun += 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            for _ in range(10):  # lets every other call begin
                await asyncio.sleep(0)
            if self.failing:
                raise ConnectionError("down")
            return {"replies": [reply("yes")]}
        finally:
            self.now -= 1


def test_one_failure_cancels_the_other_calls() -> None:
    """An error of the model reaches the caller, and no call is left running or waiting."""
    counting = CountingGenerator(failing=True)
    with pytest.raises(ConnectionError):
        asyncio.run(LogprobGrader(counting, concurrency=2).run_async(QUESTION, DOCUMENTS))
    assert counting.now == 0
    assert counting.begun < 5


def test_order_of_grades_is_that_of_documents() -> None:
    """Whichever reply comes first, each grade belongs to its document."""

    def judge(messages: list[ChatMessage]) -> str:
        return "yes" if "Passage 3" in (messages[-1].text or "") else "no"

    grader = LogprobGrader(MockChatGenerator(response_fn=judge))
    for result in (grader.run(QUESTION, DOCUMENTS), asyncio.run(grader.run_async(QUESTION, DOCUMENTS))):
        assert result["documents"] == [DOCUMENTS[3]]
        assert [grade["document_id"] for grade in result["grades"]] == list("01234")


def test_without_a_model_all_is_ambiguous() -> None:
    """When only extractive answers are to be had, nothing is dropped."""
    grader = LogprobGrader(ExtractiveChatGenerator())
    for result in (grader.run(QUESTION, DOCUMENTS), asyncio.run(grader.run_async(QUESTION, DOCUMENTS))):
        assert {grade["label"] for grade in result["grades"]} == {AMBIGUOUS}
        assert result["documents"] == DOCUMENTS


def test_no_documents_no_calls() -> None:
    """Nothing retrieved, nobody asked."""
    counting = CountingGenerator()
    assert asyncio.run(LogprobGrader(counting).run_async(QUESTION, [])) == {"documents": [], "grades": []}
    assert counting.begun == 0


@pytest.mark.model
def test_a_real_model_tells_the_answer_from_the_rest(small_model: LlamaCppChatGenerator) -> None:
    """The small model is surer of "yes" for the passage that answers than for another."""
    documents = [
        Document(content="The lake is 40 metres deep and 3 km long."),
        Document(content="Bread is baked from flour, water and salt."),
    ]
    right, other = LogprobGrader(small_model).run(QUESTION, documents)["grades"]
    assert right["score"] > other["score"]
