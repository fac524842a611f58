"""What a mode gives back."""

from typing import Any, Literal

from haystack import Document
from pydantic import BaseModel, ConfigDict, Field

from components.supporting import page_of, section_of

Label = Literal["CORRECT", "AMBIGUOUS", "INCORRECT"]
Strategy = Literal["CORRECT", "PARTIAL", "REPHRASED", "INCORRECT"]


class Citation(BaseModel):
    """A place in a document that supports the answer."""

    index: int = Field(description="The n of the marker [n] in the answer.")
    document_id: str
    chunk_id: str
    title: str = ""
    page: int | None = Field(None, description="The quote's page, from 1, in a document that has pages.")
    section: str | None = Field(None, description="The headings above it, e.g. `Leave > Parental leave`.")
    quote: str = Field(description="The cited text, word for word.")
    start: int = Field(description="Where the quote begins in the document's text, in characters.")
    end: int = Field(
        description="Where the quote ends: `text[start:end] == quote`, with blanks for control characters."
    )
    score: float | None = Field(None, description="Similarity of the chunk to the question, 0 to 1.")


class Grade(BaseModel):
    """The grader's verdict on one chunk."""

    chunk_id: str
    document_id: str
    label: Label
    score: float = Field(
        description="0 (beside the point) to 1 (answers the question); thresholds are the grader's."
    )
    kept: bool = Field(description="Whether the chunk went on to the answer.")


class RetrievedDocument(BaseModel):
    """A chunk that the answer was made from."""

    chunk_id: str
    document_id: str
    title: str = ""
    page: int | None = Field(None, description="The page of the chunk's first words, where there are pages.")
    section: str | None = Field(None, description="The headings above the chunk's first words, if any.")
    text: str
    score: float | None = None
    meta: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def from_haystack(cls, document: Document) -> "RetrievedDocument":
        """
        Convert a Haystack document.

        :param document: a chunk from a retriever.
        :returns: the same for the outside.
        """
        place = ("page", "section", "sections")
        meta = {name: value for name, value in document.meta.items() if name not in place}
        return cls(
            chunk_id=document.id,
            document_id=str(meta.pop("document_id", document.id)),
            title=str(meta.pop("title", "") or ""),
            page=page_of(document),
            section=section_of(document),
            text=document.content or "",
            score=document.score,
            meta=meta,
        )


class Usage(BaseModel):
    """Tokens over all language model calls of one query."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    llm_calls: int = 0


class StandaloneQuestion(BaseModel):
    """The question, made self-contained from the conversation before it."""

    query: str


class Retrieval(BaseModel):
    """A search: what was asked for, and the chunks found, best first."""

    query: str | None = Field(None, description="What was searched; null where the mode does not tell.")
    documents: list[RetrievedDocument]


class Grades(BaseModel):
    """The grader's verdicts on the chunks of one search."""

    grades: list[Grade]


class Rephrased(BaseModel):
    """The question in other words, for a second search."""

    query: str


class Token(BaseModel):
    """A piece of the answer as the model writes it; not checked yet."""

    text: str


class Fallback(BaseModel):
    """That another mode answered, which the asked one names for when it can't go on."""

    mode: str = Field(description="Which mode answered.")
    reason: Literal["llm_calls", "tokens", "seconds", "model"] = Field(
        description="Which part of the budget was used up; `model`: the language model failed."
    )
    component: str | None = Field(
        None, description="The part of the asked mode whose budget it was; null for that of the whole run."
    )
    detail: str = Field(description="The same in words.")
    seconds: float = Field(description="How long the asked mode had tried.")


class MadeSearch(BaseModel):
    """A search that a mode made."""

    query: str = Field(description="What was searched.")
    chunks: int = Field(description="How many chunks it gave.")


class Finding(BaseModel):
    """Where a search had a chunk."""

    search: int = Field(description="Which of the searches, from 1.")
    rank: int = Field(description="From 1.")
    score: float | None = None


class ShownText(BaseModel):
    """A part of a chunk that the model was given to read."""

    start: int = Field(description="Where it begins in the document's text, in characters.")
    end: int


class ExplainedChunk(BaseModel):
    """The way of one chunk through a mode."""

    chunk_id: str
    document_id: str
    title: str = ""
    found: list[Finding] = Field(default_factory=list, description="By which searches; empty if none told.")
    label: Label | None = Field(None, description="The grader's; null where nothing was graded.")
    grade: float | None = Field(None, description="The grader's score.")
    kept: bool = Field(False, description="Whether it went on to the answer.")
    why: str = Field("", description="Why it was kept or dropped.")
    position: int | None = Field(None, description="The n of its number [n] in the prompt.")
    shown: list[ShownText] | None = Field(
        None, description="What of it stood in the prompt; null where the mode does not tell."
    )
    citations: list[int] = Field(
        default_factory=list, description="Which of `citations` are from it: their places there, from 0."
    )


class Explanation(BaseModel):
    """How an answer came about."""

    model_config = ConfigDict(protected_namespaces=())

    searches: list[MadeSearch]
    chunks: list[ExplainedChunk] = Field(description="In the order in which they were found.")
    prompt_hash: str | None = Field(
        None,
        description="SHA-256 of what the model was asked; the same for the same. Null if none was, or none told.",
    )
    model: str | None = Field(None, description="The language model that was asked.")


class QueryResult(BaseModel):
    """The answer of a mode; fields that a mode does not have are null."""

    model_config = ConfigDict(protected_namespaces=())

    mode: str
    answer: str
    strategy: Strategy | None = Field(None, description="What corrective RAG did; null in other modes.")
    rephrased: str | None = Field(None, description="The question as it was searched the second time.")
    standalone_question: str | None = Field(
        None, description="The question made self-contained from the conversation; null without one."
    )
    citations: list[Citation] = Field(default_factory=list)
    removed_citations: int = Field(0, description="Markers the model made up and that were removed.")
    confidence: float | None = Field(None, description="0 to 1, in structured modes.")
    cannot_answer: bool | None = Field(None, description="True when the documents do not hold the answer.")
    reasoning: str | None = None
    data: dict[str, Any] | None = Field(None, description="The whole validated JSON of a structured mode.")
    grades: list[Grade] | None = Field(None, description="One for each chunk graded, in order of retrieval.")
    documents: list[RetrievedDocument] = Field(
        default_factory=list, description="The chunks given to the model, in order: [1] is the first."
    )
    fallback: Fallback | None = Field(
        None, description="Why another mode answered than the one asked; null where the asked one did."
    )
    explanation: Explanation | None = Field(
        None, description="How the answer came about, when it was asked to `explain`."
    )
    model: str | None = Field(None, description="The language model that answered, or `extractive`.")
    finish_reason: str | None = Field(
        None, description="Why the model ended: `stop`, or `length` where the answer was cut off."
    )
    usage: Usage = Field(default_factory=Usage)
    timings: dict[str, float] = Field(
        default_factory=dict,
        description="Seconds: `total`, each stage by name, and `llm` over all model calls.",
    )
    prompt_hash: str | None = Field(
        None, exclude=True, description="As in `explanation`; for the service itself, which may keep it."
    )
