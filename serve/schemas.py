"""What the HTTP API takes and gives; what belongs to ingestion is in `ingestion_schemas`."""

from typing import Annotated, Any, Literal

from haystack.dataclasses import ChatMessage
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    WithJsonSchema,
)
from pydantic_core import PydanticKnownError

from components.breaking import BreakerState
from components.storing import TENANT_PATTERN, check_tenant_id
from modes.results import QueryResult
from serve.bodies import inlined_schema

# Of a conversation only the last few messages count; chats that go on for weeks come with all of them.
MAX_MESSAGES = 1_000


def encodable(text: str) -> str:
    """
    Check that a text is valid Unicode.

    :param text: the text.
    :returns: the text.
    :raises ValueError: if it holds a lone surrogate.
    """
    try:
        # Free of charge for ASCII, which most long texts are.
        if not text.isascii():
            text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("holds a lone surrogate, which is no valid Unicode text") from None
    return text


def _filled(text: str) -> str:
    if not text or text.isspace():
        raise ValueError("must not be empty")
    return encodable(text)


Text = Annotated[str, AfterValidator(encodable)]
# One check and not two, for there are thousands of texts in a request.
FilledText = Annotated[
    str, AfterValidator(_filled), Field(json_schema_extra={"minLength": 1, "pattern": r"\S"})
]
TenantID = Annotated[
    str,
    # Its error is none of pydantic's: every route answers with the same problem.
    AfterValidator(check_tenant_id),
    Field(
        json_schema_extra={"pattern": TENANT_PATTERN.replace("(?:", "(")},
        description="Whose documents: 1 to 64 letters, digits, `_` or `-`.",
        examples=["demo"],
    ),
]


def _not_guessed(value: Any) -> Any:
    # Pydantic takes `true` and "5" for numbers.
    if isinstance(value, bool | str):
        raise PydanticKnownError("int_type")
    return value


NOT_GUESSED = BeforeValidator(_not_guessed)
"""For whole numbers in JSON; a parameter in a URL is a text."""


class Request(BaseModel):
    """A request's body; unknown fields are refused, so that a misspelt one is not silently ignored."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Message(Request):
    """One turn of a conversation."""

    role: Literal["user", "assistant"]
    content: Text

    def turn(self) -> ChatMessage:
        """:returns: The same for a mode."""
        make = ChatMessage.from_user if self.role == "user" else ChatMessage.from_assistant
        return make(self.content)


class Wishes(Request):
    """What a question may be asked with; `GET /modes` tells which of it a mode takes."""

    mode: Text | None = Field(
        None, description="Which mode answers; `GET /modes` lists them.", examples=["crag"]
    )
    tenant_id: TenantID | None = None
    model: Text | None = Field(None, description="Another language model, of those the service allows.")
    k: Annotated[int, Field(ge=1), NOT_GUESSED] | None = Field(
        None, description="Chunks to retrieve.", examples=[5]
    )
    filters: dict[str, Any] | None = Field(
        None,
        description="Haystack filters over the chunks' metadata and content.",
        examples=[{"field": "meta.title", "operator": "==", "value": "README"}],
    )
    instructions: Text | None = Field(
        None, description="What is asked of the answer's form, such as its language."
    )
    json_schema: dict[str, Any] | None = Field(
        None, description="In structured modes, the JSON schema that `data` has to match."
    )
    generation_kwargs: dict[str, Any] | None = Field(
        None,
        description="Options of the model by OpenAI's names.",
        examples=[{"temperature": 0.2, "max_tokens": 200}],
    )
    explain: bool | None = Field(
        None, description="Whether the answer is to have an `explanation`: each chunk's way to it."
    )


class Question(Wishes):
    """A question with all that a mode can be given."""

    q: FilledText | None = Field(None, description="The question.", examples=["What is a mode?"])
    history: list[Message] = Field(
        default_factory=list,
        max_length=MAX_MESSAGES,
        description="The conversation before the question, oldest first; the question is made self-contained from it.",
    )


class QueryBody(Question):
    """A question; most fields can also be a query parameter of the same name, which then wins."""

    stream: bool | None = Field(None, description="Whether to answer with server-sent events.")


class QueryResponse(QueryResult):
    """The answer of a mode."""

    request_id: str


def checked_id(value: Any) -> str | int | None:
    """
    Check a caller's name for a question.

    :param value: the name.
    :returns: the name.
    :raises ValueError: if it is neither a text nor a whole number.
    """
    # JSON's `true` is a number to Python.
    if isinstance(value, bool) or not isinstance(value, str | int | None):
        raise ValueError("must be a text or a whole number")
    return encodable(value) if isinstance(value, str) else value


class BatchQuestion(Question):
    """One question of many."""

    # Not left to pydantic, whose errors would name the kinds that it tried.
    id: Annotated[str | int | None, PlainValidator(checked_id, json_schema_input_type=str | int | None)] = (
        Field(None, description="The caller's name for it; its result carries it.")
    )


_QUESTION_OR_TEXT = {
    "anyOf": [
        inlined_schema(BatchQuestion),
        {"type": "string", "description": "The question alone."},
        {"description": "Whatever else gets a problem in its place among the answers."},
    ]
}


class BatchBody(Wishes):
    """Many questions; what stands beside them holds for each that does not say otherwise itself."""

    # Each is checked when it is asked, so that a wrong one does not stop the others.
    questions: list[Annotated[Any, WithJsonSchema(_QUESTION_OR_TEXT)]] = Field(
        min_length=1, examples=[["Who made it?", {"id": "1", "q": "What is a mode?"}]]
    )


class BatchItem(BaseModel):
    """What became of one question of many: a result or a problem."""

    id: str | int | None = None
    result: QueryResponse | None = None
    problem: dict[str, Any] | None = Field(None, description="As a request of its own would be answered.")


class BatchResponse(BaseModel):
    """What became of many questions."""

    items: list[BatchItem] = Field(description="One for each question, in the order in which they were sent.")
    failed: int = Field(description="How many of them are problems.")
    request_id: str


class ModeInfo(BaseModel):
    """A mode."""

    name: str
    description: str
    inputs: list[str]
    outputs: list[str]
    origin: str = Field(description="`built-in`, `directory` (PIPELINES_DIR), `package` or `added`.")
    file: str = Field(description="The file's name.")
    budget: dict[str, Any] = Field(
        default_factory=dict,
        description="What a run may spend: `llm_calls`, `tokens`, `seconds`, and of its `components`.",
    )
    fallback: str | None = Field(None, description="Which mode answers when the budget is spent.")


class RunnableInfo(BaseModel):
    """What can be run at `/{name}/run` and is no mode."""

    name: str
    kind: Literal["pipeline", "wrapper"]
    description: str
    inputs: list[str] | None = Field(
        None, description="Of a plain pipeline; `GET /openapi.json` has the types."
    )
    outputs: list[str] | None = None
    protocols: list[Literal["chat", "responses"]] = Field(
        default_factory=list, description="The parts of the OpenAI API that a wrapper speaks."
    )


class ModeList(BaseModel):
    """Every mode that can be asked, and what else can be run."""

    items: list[ModeInfo]
    next: str | None = None
    pipelines: list[RunnableInfo] = Field(
        default_factory=list, description="Plain pipelines and wrappers of `PIPELINES_DIR`."
    )
    broken: list[str] = Field(
        default_factory=list, description="Files that have faults, as `file:line: what`."
    )


class Health(BaseModel):
    """The process is alive."""

    status: str = "ok"
    version: str


class Ready(BaseModel):
    """Whether queries can be served, and what is in the way."""

    model_config = ConfigDict(protected_namespaces=())

    status: str = Field(description="`ok`, `loading`, `degraded` or `stopping`.")
    chroma: str
    store: str = Field(
        description="Where the documents are: `embedded` in this process, or on a Chroma `server`."
    )
    llm: dict[str, Any] = Field(description="Provider, model, why it was chosen, and its status.")
    embeddings: str
    jobs: str
    workers: int | None = Field(
        None, description="Processes that work on the jobs in Redis; null where this process does it itself."
    )
    breakers: dict[str, BreakerState] = Field(
        default_factory=dict,
        description="Of each dependency that is a server: `closed`; `open` while it is left alone, as it kept failing.",
    )
    modes: list[str]
    pipelines: list[str] = Field(description="The indexing pipelines that can be asked for.")
    runnable: list[str] = Field(
        default_factory=list,
        description="Plain pipelines and wrappers, at `/{name}/run`; GET /modes describes them.",
    )
    problems: list[str] = Field(
        default_factory=list, description="What is in the way; empty when it is ready."
    )
    warnings: list[str] = Field(
        default_factory=list,
        description="What is not as it should be, but keeps no question from its answer.",
    )
