"""What a request in OpenAI's protocol asks for."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from haystack.dataclasses import ChatMessage
from pydantic import BaseModel, ConfigDict, Field

from modes.mode import Mode, RunInputs
from serve.chat.conversation import Conversation, conversation_of
from serve.errors import LimitError
from serve.schemas import NOT_GUESSED, TenantID, Text

Format = Literal["text", "json_object", "json_schema"]


@dataclass(frozen=True)
class Asked:
    """A request, read: what the mode is given, and the form in which its answer is wanted."""

    question: str
    history: list[ChatMessage]
    inputs: RunInputs
    format: Format
    checked: bool
    """Whether the mode checks the marks of its answer against the passages."""

    @property
    def json(self) -> bool:
        """Whether the answer has to be JSON and nothing else."""
        return self.format != "text"


# What no mode can do; each with what tells that a request really wants it, and what to do instead. Everything else
# that is unknown does no harm and is ignored, since clients send a lot.
_REFUSED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "n": (lambda n: n not in (None, 1), "must be 1: a request gets one answer"),
    "tools": (bool, "is not supported: a mode calls no tools"),
    "functions": (bool, "is not supported: a mode calls no functions"),
    "logprobs": (bool, "is not supported: leave it out"),
    "top_logprobs": (bool, "is not supported: leave it out"),
    "audio": (bool, "is not supported: answers are text"),
    "modalities": (lambda kinds: kinds not in (None, ["text"]), "must be ['text']: answers are text"),
    "web_search_options": (
        lambda options: options is not None,
        "is not supported: a mode searches its documents",
    ),
    "background": (bool, "is not supported: the answer comes with the response"),
    "previous_response_id": (bool, "is not supported: nothing is stored; send the conversation in 'input'"),
    "conversation": (bool, "is not supported: nothing is stored; send the conversation in 'input'"),
    "prompt": (bool, "is not supported: send 'input' and 'instructions'"),
}


class ChatRequest(BaseModel):
    """What both protocols share: OpenAI's sampling options, and our own fields."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())

    field: ClassVar[str]
    """What the request calls its messages."""

    model: Text = Field(description="Which mode answers; `GET /v1/models` lists them.", examples=["crag"])
    stream: bool | None = Field(None, description="Send the answer as it is written, as server-sent events.")
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    seed: Annotated[int, NOT_GUESSED] | None = None
    stop: str | list[str] | None = None
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    tenant_id: TenantID | None = Field(None, description="Whose documents; by default the API key's tenant.")
    k: Annotated[int, Field(ge=1), NOT_GUESSED] | None = Field(None, description="Chunks to retrieve.")
    filters: dict[str, Any] | None = Field(
        None, description="Haystack filters over the chunks' metadata and content."
    )
    llm: Text | None = Field(None, description="Another language model, of those the service allows.")
    explain: bool | None = Field(None, description="Whether the answer is to have an `explanation`.")

    def asked(self, mode: Mode, tenant_id: str) -> Asked:
        """
        Read the request for a mode.

        :param mode: the mode that is to answer.
        :param tenant_id: whose documents are asked.
        :returns: what it asks for.
        :raises LimitError: if it asks for something that can't be done.
        """
        self._refuse()
        format, schema = self._format(mode)
        said = self.conversation()
        options = {name: value for name, value in self._options().items() if value is not None}
        # Chat clients send these whether or not they matter; a mode that has no place for them answers without.
        optional = {"instructions": said.instructions, "generation_kwargs": options or None}
        inputs = RunInputs(
            tenant_id=tenant_id,
            top_k=self.k,
            model=self.llm,
            filters=self.filters,
            json_schema=schema,
            explain=self.explain,
        )
        for name in optional.keys() & mode.inputs:
            inputs[name] = optional[name]  # type: ignore[literal-required]
        return Asked(said.question, said.history, inputs, format, "removed_citations" in mode.outputs)

    def conversation(self) -> Conversation:
        """:returns: The question, the conversation before it, and the instructions."""
        raise NotImplementedError

    def wanted_format(self) -> tuple[str, Any]:
        """:returns: Which form of answer is asked for, and what describes it."""
        raise NotImplementedError

    def max_tokens_wanted(self) -> int | None:
        """:returns: The most tokens that the answer may have."""
        raise NotImplementedError

    def _options(self) -> dict[str, Any]:
        return {
            "max_tokens": self.max_tokens_wanted(),
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seed": self.seed,
            "stop": self.stop,
            "frequency_penalty": self.frequency_penalty,
            "presence_penalty": self.presence_penalty,
        }

    def _refuse(self) -> None:
        for name, value in (self.model_extra or {}).items():
            wanted, why = _REFUSED.get(name, (None, ""))
            if wanted is not None and wanted(value):
                raise LimitError(name, why)

    def _format(self, mode: Mode) -> tuple[Format, dict[str, Any] | None]:
        field, wanted = self.wanted_format()
        kind = wanted.get("type", "text") if isinstance(wanted, dict) else wanted
        if wanted is None or kind == "text":
            return "text", None
        if kind not in ("json_object", "json_schema"):
            raise LimitError(f"{field}.type", "must be 'text', 'json_object' or 'json_schema'")
        if kind not in mode.inputs and (kind == "json_schema" or "data" not in mode.outputs):
            raise LimitError(
                field, f"the mode '{mode.name}' answers in text; take a structured mode as 'model'"
            )
        if kind == "json_object":
            return "json_object", None
        # Chat Completions put the schema one level deeper than Responses.
        described = wanted.get("json_schema", wanted)
        schema = described.get("schema") if isinstance(described, dict) else None
        if not isinstance(schema, dict):
            raise LimitError(field, "holds no JSON Schema in 'schema'")
        return "json_schema", schema


class _StreamOptions(BaseModel):
    include_usage: bool | None = None


_Tokens = Annotated[int | None, Field(ge=1)]


class ChatCompletionRequest(ChatRequest):
    """The body of `POST /v1/chat/completions`; fields that are not here do no harm."""

    field = "messages"

    messages: list[Any] = Field(min_length=1, examples=[[{"role": "user", "content": "What is a mode?"}]])
    max_tokens: _Tokens = None
    max_completion_tokens: _Tokens = None
    stream_options: _StreamOptions | None = None
    response_format: Any = None

    @property
    def include_usage(self) -> bool:
        """Whether the stream ends with the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def conversation(self) -> Conversation:
        """:returns: The question, the conversation before it, and the instructions."""
        return conversation_of(self.messages)

    def wanted_format(self) -> tuple[str, Any]:
        """:returns: Which form of answer is asked for, and what describes it."""
        return "response_format", self.response_format

    def max_tokens_wanted(self) -> int | None:
        """:returns: The most tokens that the answer may have."""
        return self.max_completion_tokens or self.max_tokens


class ResponseRequest(ChatRequest):
    """The body of `POST /v1/responses`; fields that are not here do no harm."""

    field = "input"

    input: Annotated[str | list[Any], Field(min_length=1, examples=["What is a mode?"])]
    instructions: Text | None = None
    max_output_tokens: _Tokens = None
    text: dict[str, Any] | None = None
    metadata: dict[str, str] | None = None

    @property
    def messages(self) -> list[Any]:
        """The input as a list."""
        return [{"role": "user", "content": self.input}] if isinstance(self.input, str) else self.input

    def conversation(self) -> Conversation:
        """:returns: The question, the conversation before it, and the instructions."""
        return conversation_of(self.messages, "input", self.instructions)

    def wanted_format(self) -> tuple[str, Any]:
        """:returns: Which form of answer is asked for, and what describes it."""
        return "text.format", (self.text or {}).get("format")

    def max_tokens_wanted(self) -> int | None:
        """:returns: The most tokens that the answer may have."""
        return self.max_output_tokens
