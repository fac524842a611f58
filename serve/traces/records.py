"""What is kept of a run: which chunks made the answer and how, and of texts only hashes unless content is kept."""

import hashlib
import json
import secrets
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from haystack.dataclasses import ChatMessage
from pydantic import BaseModel, ConfigDict, Field

from modes.results import Fallback, Label, QueryResult, Strategy, Usage
from serve.errors import describe
from serve.tenancy import DEFAULT_TENANT
from serve.tracing import current_trace_ids
from serve.watching import FinishedRun

# Inputs that say nothing of what was asked; all others may.
_PLAIN = ("top_k", "model")
_CANCELLED = (499, "cancelled")


class KeptText(BaseModel):
    """A text, or what tells whether another text is the same."""

    sha256: str = Field(description="Of the run's `salt` and the text, in UTF-8.")
    chars: int
    text: str | None = Field(None, description="The text itself, where content is kept (TRACE_CONTENT).")

    def is_of(self, text: str, salt: str) -> bool:
        """
        Compare with a text.

        :param text: the other text.
        :param salt: the run's.
        :returns: whether it is the same.
        """
        return self.sha256 == salted_hash(text, salt)


class KeptChunk(BaseModel):
    """A chunk that was found, and what became of it."""

    chunk_id: str
    document_id: str
    score: float | None = Field(
        None, description="Similarity to the question; null of a chunk that was dropped."
    )
    label: Label | None = Field(None, description="The grader's; null where nothing was graded.")
    grade: float | None = Field(None, description="The grader's score.")
    position: int | None = Field(
        None, description="Its number in the prompt, from 1; null when it was dropped."
    )
    cited: bool = False


class KeptError(BaseModel):
    """Why there was no answer."""

    status: int
    kind: str = Field(description="As in the `type` of a problem; `cancelled` when the caller left.")


class KeptRun(BaseModel):
    """One question to a mode, and how it was answered."""

    model_config = ConfigDict(protected_namespaces=())

    request_id: str
    trace_id: str | None = Field(None, description="The OpenTelemetry trace that the request stands in.")
    tenant_id: str
    mode: str
    started_at: datetime
    seconds: float
    salt: str = Field(description="Keeps the hashes of one run from being compared with another's.")
    question: KeptText
    inputs: dict[str, Any] = Field(
        default_factory=dict, description="What else was given and holds no content."
    )
    texts: dict[str, KeptText] = Field(
        default_factory=dict,
        description="What else was given and may hold content, as JSON: `history`, `filters`, …",
    )
    standalone_question: KeptText | None = None
    rephrased: KeptText | None = None
    chunks: list[KeptChunk] = Field(default_factory=list, description="As found, those in the prompt first.")
    strategy: Strategy | None = None
    cannot_answer: bool | None = None
    confidence: float | None = None
    fallback: Fallback | None = None
    model: str | None = None
    finish_reason: str | None = None
    prompt_hash: str | None = Field(
        None, description="SHA-256 of the run's `salt` and the `prompt_hash` that `explain` tells."
    )
    answer: KeptText | None = None
    usage: Usage = Field(default_factory=Usage)
    timings: dict[str, float] = Field(default_factory=dict)
    error: KeptError | None = None


def kept_run(
    run: FinishedRun, keeps_content: bool, is_model: Callable[[str], bool] = lambda _: False
) -> KeptRun:
    """
    Make what is kept of a run.

    :param run: the run; its request has an id.
    :param keeps_content: whether texts are kept.
    :param is_model: tells whether a text is the name of a model on offer; any other may say anything.
    :returns: the record.
    """
    inputs = {name: value for name, value in run.inputs.items() if value is not None and name != "explain"}
    plain = {name: inputs[name] for name in _PLAIN if name in inputs}
    if "model" in plain and not is_model(str(plain["model"])):
        del plain["model"]
    texts = _Texts(keeps_content)
    ids = current_trace_ids()
    return KeptRun(
        request_id=run.request_id or "",
        trace_id=ids[0] if ids else None,
        tenant_id=inputs.pop("tenant_id", DEFAULT_TENANT),
        mode=run.mode,
        started_at=run.started_at,
        seconds=round(run.seconds, 4),
        inputs=plain,
        error=_error(run.error) if run.error is not None else None,
        **_texts(run, inputs, texts),
        **(_outcome(run.result, texts.salt) if run.result is not None else {}),
    )


def outcome_of(result: QueryResult, salt: str) -> dict[str, Any]:
    """
    Give the parts of a record that come from an answer, for comparing another answer with it.

    :param result: the answer.
    :param salt: the record's.
    :returns: the fields of `KeptRun` by name.
    """
    return {**_outcome(result, salt), "answer": _Texts(True, salt).kept(result.answer)}


def salted_hash(text: str, salt: str) -> str:
    """
    Hash a text so that a table of hashes of likely texts tells nothing.

    :param text: the text.
    :param salt: what was drawn for the run.
    :returns: SHA-256 in hex digits.
    """
    return hashlib.sha256(f"{salt}{text}".encode()).hexdigest()


def as_json(value: Any) -> str:
    """
    Write an input so that the same always gives the same text.

    :param value: what JSON can hold.
    :returns: the text.
    """
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)


def turns(history: Sequence[ChatMessage]) -> list[dict[str, str]]:
    """
    Write a conversation as `POST /query/` takes it.

    :param history: the conversation.
    :returns: its messages.
    """
    return [{"role": message.role.value, "content": message.text or ""} for message in history]


class _Texts:
    def __init__(self, keeps_content: bool, salt: str = "") -> None:
        self.salt = salt or secrets.token_hex(8)
        self._keeps_content = keeps_content

    def kept(self, text: str) -> KeptText:
        content = text if self._keeps_content else None
        return KeptText(sha256=salted_hash(text, self.salt), chars=len(text), text=content)


def _texts(run: FinishedRun, inputs: dict[str, Any], texts: _Texts) -> dict[str, Any]:
    given = {name: value for name, value in inputs.items() if name not in _PLAIN}
    if run.history:
        given["history"] = turns(run.history)
    told: dict[str, Any] = {"answer": None, "rephrased": None, "standalone_question": None}
    if run.result is not None:
        told = {name: getattr(run.result, name) for name in told}
    return {
        "salt": texts.salt,
        "question": texts.kept(run.query),
        "texts": {name: texts.kept(as_json(value)) for name, value in given.items()},
        **{name: texts.kept(text) for name, text in told.items() if text is not None},
    }


def _outcome(result: QueryResult, salt: str) -> dict[str, Any]:
    prompt_hash = result.prompt_hash or (result.explanation.prompt_hash if result.explanation else None)
    return {
        "chunks": _chunks(result),
        "strategy": result.strategy,
        "cannot_answer": result.cannot_answer,
        "confidence": result.confidence,
        "fallback": result.fallback,
        "model": result.model,
        "finish_reason": result.finish_reason,
        "prompt_hash": salted_hash(prompt_hash, salt) if prompt_hash else None,
        "usage": result.usage,
        "timings": result.timings,
    }


def _chunks(result: QueryResult) -> list[KeptChunk]:
    grades = {grade.chunk_id: grade for grade in result.grades or ()}
    cited = {citation.chunk_id for citation in result.citations}
    chunks = [
        KeptChunk(
            chunk_id=document.chunk_id,
            document_id=document.document_id,
            score=document.score,
            position=position,
            cited=document.chunk_id in cited,
        )
        for position, document in enumerate(result.documents, 1)
    ]
    there = {chunk.chunk_id for chunk in chunks}
    chunks += [
        KeptChunk(chunk_id=grade.chunk_id, document_id=grade.document_id)
        for grade in grades.values()
        if grade.chunk_id not in there
    ]
    for chunk in chunks:
        if grade := grades.get(chunk.chunk_id):
            chunk.label, chunk.grade = grade.label, grade.score
    return chunks


def _error(error: BaseException) -> KeptError:
    status, kind = describe(error)[:2] if isinstance(error, Exception) else _CANCELLED
    return KeptError(status=status, kind=kind)
