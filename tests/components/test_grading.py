import asyncio
import json
import os
from pathlib import Path

import pytest
from haystack import Document

from components.embedding import OnnxEmbeddingModel
from components.grading import AMBIGUOUS, CORRECT, INCORRECT, EvidenceGrader, Thresholds, grade_documents

QUESTION = "How deep is Lake Mjøsa?"


def chunk(text: str, title: str = "") -> Document:
    return Document(content=text, meta={"document_id": "d", "title": title})


DOCUMENTS = [
    chunk("Mjøsa is the largest lake of Norway. It is 453 metres deep.", "Lake Mjøsa"),
    chunk("Bread is baked from flour and water.", "Bread"),
    chunk(""),
]


def test_scores_are_labelled_by_thresholds() -> None:
    """At a threshold the better label holds; a score that could not be told is AMBIGUOUS."""
    thresholds = Thresholds(correct=0.7, ambiguous=0.3)
    labels = [thresholds.label(score) for score in (1.0, 0.7, 0.69, 0.3, 0.29, 0.0, None)]
    assert labels == [CORRECT, CORRECT, AMBIGUOUS, AMBIGUOUS, INCORRECT, INCORRECT, AMBIGUOUS]


@pytest.mark.parametrize(("correct", "ambiguous"), [(0.3, 0.7), (1.1, 0.5), (0.5, -0.1), (float("nan"), 0.1)])
def test_thresholds_out_of_order_are_refused(correct: float, ambiguous: float) -> None:
    """A grader that could not label sensibly is not made."""
    with pytest.raises(ValueError, match="ambiguous <= correct"):
        EvidenceGrader(correct_threshold=correct, ambiguous_threshold=ambiguous)


def test_each_document_has_a_grade_and_the_incorrect_are_dropped() -> None:
    """Grades stand in the order of the documents and say what they belong to."""
    result = grade_documents(DOCUMENTS, [0.9, 0.1, None], Thresholds(0.7, 0.3))
    assert result["documents"] == [DOCUMENTS[0], DOCUMENTS[2]]
    assert result["grades"] == [
        {"chunk_id": DOCUMENTS[0].id, "document_id": "d", "label": CORRECT, "score": 0.9, "kept": True},
        {"chunk_id": DOCUMENTS[1].id, "document_id": "d", "label": INCORRECT, "score": 0.1, "kept": False},
        {"chunk_id": DOCUMENTS[2].id, "document_id": "d", "label": AMBIGUOUS, "score": 0.5, "kept": True},
    ]


def test_evidence_tells_the_answer_from_the_rest(embedding_model: OnnxEmbeddingModel) -> None:
    """The chunk that answers is CORRECT; another subject and an empty chunk are dropped."""
    result = EvidenceGrader(embedding_model).run(QUESTION, DOCUMENTS)
    assert [grade["label"] for grade in result["grades"]] == [CORRECT, INCORRECT, INCORRECT]
    assert result["documents"] == DOCUMENTS[:1]


def test_a_doubtful_document_needs_a_better_one(embedding_model: OnnxEmbeddingModel) -> None:
    """A document between the thresholds is AMBIGUOUS beside one that reaches context_threshold, else INCORRECT."""
    doubtful = chunk("Norway has a deep fjord.", "")
    grader = EvidenceGrader(embedding_model, ambiguous_threshold=0.01, context_threshold=0.35)
    alone = grader.run(QUESTION, [doubtful])["grades"]
    beside = grader.run(QUESTION, [doubtful, DOCUMENTS[0]])["grades"]
    assert alone[0]["score"] == beside[0]["score"]
    assert [grade["label"] for grade in alone] == [INCORRECT]
    assert [grade["label"] for grade in beside] == [AMBIGUOUS, CORRECT]


def test_evidence_works_without_an_embedding_model() -> None:
    """Terms alone tell a chunk that answers from another subject."""
    result = EvidenceGrader().run(QUESTION, DOCUMENTS)
    assert [grade["kept"] for grade in result["grades"]] == [True, False, False]


def test_evidence_grades_the_same_in_both_ways(embedding_model: OnnxEmbeddingModel) -> None:
    """run and run_async agree, also for many requests at once on one instance."""
    grader = EvidenceGrader(embedding_model)

    async def many() -> list[dict[str, object]]:
        return await asyncio.gather(*(grader.run_async(QUESTION, DOCUMENTS) for _ in range(20)))

    assert all(result == grader.run(QUESTION, DOCUMENTS) for result in asyncio.run(many()))


@pytest.mark.parametrize("query", ["", "?", "\ud800", "who is it", "x" * 100_000])
def test_any_question_can_be_graded(embedding_model: OnnxEmbeddingModel, query: str) -> None:
    """Odd questions give grades between 0 and 1, no error."""
    result = EvidenceGrader(embedding_model).run(query, DOCUMENTS)
    assert all(0 <= grade["score"] <= 1 for grade in result["grades"])


def test_no_documents_need_no_grades(embedding_model: OnnxEmbeddingModel) -> None:
    """Nothing retrieved, nothing graded."""
    assert EvidenceGrader(embedding_model).run(QUESTION, []) == {"documents": [], "grades": []}


@pytest.mark.data
def test_evidence_beats_the_baseline_on_judged_pairs(embedding_model: OnnxEmbeddingModel) -> None:
    """Of the judged pairs, more are right than the 90 % that counting shared words reaches."""
    folder = os.environ.get("THRESHER_EVAL_DATA")
    if not folder:
        pytest.skip("THRESHER_EVAL_DATA is not set")
    lines = (Path(folder) / "grader" / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
    pairs = [pair for pair in map(json.loads, lines) if pair["label"] != "partial"]
    grader = EvidenceGrader(embedding_model)
    right = 0
    for pair in pairs:
        (grade,) = grader.run(pair["question"], [chunk(pair["text"], pair["title"])])["grades"]
        right += (grade["label"] == CORRECT) == (pair["label"] == "relevant")
    assert right / len(pairs) > 0.92
