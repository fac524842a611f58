"""Grading retrieved documents for a question, and dropping those that don't help to answer it."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from haystack import Document, component

from components.embedding import OnnxEmbeddingModel
from components.events import emit
from components.evidence import Evidence, EvidenceReader, Passage
from components.terms import TermWeights
from components.threads import ContextThreads

CORRECT = "CORRECT"
AMBIGUOUS = "AMBIGUOUS"
INCORRECT = "INCORRECT"
UNREADABLE_SCORE = 0.5


@dataclass(frozen=True)
class Thresholds:
    """
    Where a grader's scores divide into labels; they belong to the grader and its model.

    :param correct: CORRECT from this score on.
    :param ambiguous: AMBIGUOUS from this score on, INCORRECT below.
    :raises ValueError: If they are not in order between 0 and 1.
    """

    correct: float
    ambiguous: float

    def __post_init__(self) -> None:
        if not 0 <= self.ambiguous <= self.correct <= 1:
            raise ValueError(
                "thresholds need 0 <= ambiguous <= correct <= 1, "
                f"got ambiguous={self.ambiguous}, correct={self.correct}"
            )

    def label(self, score: float | None) -> str:
        """
        Labels a score.

        :param score: 0 to 1; None when the grader could not tell.
        :returns: CORRECT, AMBIGUOUS or INCORRECT; AMBIGUOUS for None.
        """
        if score is None:
            return AMBIGUOUS
        if score >= self.correct:
            return CORRECT
        return AMBIGUOUS if score >= self.ambiguous else INCORRECT


def grade_documents(
    documents: Sequence[Document], scores: Sequence[float | None], thresholds: Thresholds
) -> dict[str, Any]:
    """
    Turns scores into what every grader returns.

    :param documents: The documents graded.
    :param scores: A score for each, 0 to 1; None where the grader could not tell.
    :param thresholds: Where the scores divide.
    :returns: `documents` without the INCORRECT ones; `grades`, one for each document given, with `chunk_id`,
        `document_id`, `label`, `score` and `kept`.
    """
    labels = [thresholds.label(score) for score in scores]
    grades = [
        {
            "chunk_id": document.id,
            "document_id": document.meta.get("document_id", document.id),
            "label": label,
            "score": round(UNREADABLE_SCORE if score is None else score, 4),
            "kept": label != INCORRECT,
        }
        for document, score, label in zip(documents, scores, labels, strict=True)
    ]
    kept = [document for document, grade in zip(documents, grades, strict=True) if grade["kept"]]
    emit("grades", grades=grades)
    return {"documents": kept, "grades": grades}


@component
class EvidenceGrader:
    """
    Grades documents by the evidence in them, without a language model.

    The score is the probability that a passage answers the question, by a logistic regression on: how many of
    the question's terms the passage has, rare ones counting more; how many of them stand close together; and
    how similar in meaning its closest sentence is. Fitted and measured in `docs/grading.md`.

    ### Usage example
    ```python
    grader = EvidenceGrader(OnnxEmbeddingModel("minilm-tokenizer.json"))
    result = grader.run(query="How deep is the lake?", documents=documents)
    result["grades"][0]["label"], result["grades"][0]["score"]  # ('CORRECT', 0.93)
    ```
    """

    def __init__(
        self,
        embedding_model: OnnxEmbeddingModel | None = None,
        term_weights: TermWeights | None = None,
        correct_threshold: float = 0.35,
        ambiguous_threshold: float = 0.12,
        context_threshold: float = 0.25,
        sentences_to_embed: int = 2,
        max_workers: int = 2,
    ) -> None:
        """
        Stores the parameters.

        :param embedding_model: Compares sentences with the question. It need not be the model that the
            documents were retrieved with. None: terms alone decide.
        :param term_weights: Weighs the question's terms; by default from the vocabulary of `embedding_model`.
        :param correct_threshold: CORRECT from this score on.
        :param ambiguous_threshold: AMBIGUOUS from this score on, INCORRECT and dropped below.
        :param context_threshold: At least one document must reach this score, or all are INCORRECT: a doubtful
            document helps beside a better one, such as the second of two that a question needs, but not alone.
        :param sentences_to_embed: Sentences of a document that are embedded, those with most terms first.
        :param max_workers: How many calls of `run_async` work at the same time.
        :raises ValueError: If the thresholds are not in order, or not between 0 and 1.
        """
        self.embedding_model = embedding_model
        self.term_weights = term_weights
        self.correct_threshold = correct_threshold
        self.ambiguous_threshold = ambiguous_threshold
        self.context_threshold = context_threshold
        self.sentences_to_embed = sentences_to_embed
        self.max_workers = max_workers
        self._thresholds = Thresholds(correct_threshold, ambiguous_threshold)
        self._unsupported = Thresholds(1.0, context_threshold)
        self._reader = EvidenceReader(embedding_model, term_weights, sentences_to_embed)
        self._executor = ContextThreads(max_workers, thread_name_prefix="grade")

    def warm_up(self) -> None:
        """Loads the embedding model and the vocabulary."""
        self._reader.warm_up()

    @component.output_types(documents=list[Document], grades=list[dict[str, Any]])
    def run(self, query: str, documents: list[Document], model: str | None = None) -> dict[str, Any]:
        """
        Grades documents.

        :param query: The question.
        :param documents: Documents with text and, in meta, perhaps a title.
        :param model: Not used: every grader takes it, so that one can stand in for another.
        :returns: `documents` that are not INCORRECT, in their order; `grades`, one for each document given.
        """
        passages = [
            Passage(document.content or "", document.meta.get("title") or "") for document in documents
        ]
        scores = [score_evidence(evidence) for evidence in self._reader.measure(query, passages)]
        supported = any(score >= self.context_threshold for score in scores)
        return grade_documents(documents, scores, self._thresholds if supported else self._unsupported)

    @component.output_types(documents=list[Document], grades=list[dict[str, Any]])
    async def run_async(
        self, query: str, documents: list[Document], model: str | None = None
    ) -> dict[str, Any]:
        """
        Grades documents off the event loop.

        :param query: The question.
        :param documents: Documents with text and, in meta, perhaps a title.
        :param model: Not used.
        :returns: As `run`.
        """
        return await asyncio.get_running_loop().run_in_executor(
            self._executor, self.run, query, documents, model
        )


def score_evidence(evidence: Evidence) -> float:
    """
    Says how probable it is that a passage answers the question.

    :param evidence: What the passage has.
    :returns: 0 to 1. The coefficients are those of `benchmarks/grading.py`.
    """
    if evidence.similarity is None:
        log_odds = -4.86 + 3.9 * evidence.coverage + 4.1 * evidence.window
    else:
        log_odds = -6.98 + 2.97 * evidence.coverage + 3.17 * evidence.window + 5.69 * evidence.similarity
    return 1 / (1 + math.exp(-log_odds))
