"""From a prompt to an answer in JSON that matches a schema."""

import asyncio
from collections.abc import Generator
from typing import Any

from haystack import Document, component
from haystack.components.generators.chat.types import ChatGenerator
from haystack.dataclasses import ChatMessage, StreamingChunk
from jsonschema import Draft202012Validator

from components.citing import MIN_CONFIDENCE
from components.events import emit, wants_tokens
from components.framing import plain_json, plain_text
from components.json_streaming import AnswerReader
from components.models.errors import InvalidGenerationError
from components.schemas import checked_schema, labels
from components.structured_data import (
    ASKED_SCHEMA,
    DEFAULT_SCHEMA,
    nothing_found,
    only_given,
    own_data,
    resolved,
)
from components.supporting import Sources
from components.validating import InvalidReplyError, checked_data, checked_reply, is_cut_off

INSTRUCTIONS = "Reply with one JSON object that matches this JSON Schema:\n"
MAX_TOKENS = 300

_Call = dict[str, Any]
_Exchange = Generator[_Call, dict[str, Any] | None, dict[str, Any]]


class StructuredAnswerError(RuntimeError):
    """
    The model gave no reply that matches the schema.

    :param faults: What was wrong with each reply, in order.
    """

    quotes = True
    """Its message may hold what the model wrote, and so what stands in a document."""

    def __init__(self, faults: list[str]) -> None:
        tries = "reply" if len(faults) == 1 else f"{len(faults)} replies"
        super().__init__(f"The model's {tries} did not match the schema; the last one: {faults[-1]}")
        self.faults = faults


@component
class StructuredAnswerBuilder:
    """
    Asks a model for a JSON answer, checks it against a schema, and resolves its citations.

    The schema goes into the system message and to the model as a constraint on its output. A reply that
    doesn't match is sent back once with what is wrong with it; after that the caller gets an error, never
    unchecked JSON.

    ### Usage example

    ```python
    from haystack import Document
    from haystack.components.generators.chat import MockChatGenerator
    from components.prompting import GroundedPromptBuilder
    from components.structuring import StructuredAnswerBuilder

    tower = Document(content="The tower is 90 m tall.", meta={"document_id": "tower", "start": 0})
    reply = '{"answer": "90 m", "citations": [1], "cannot_answer": false, "reasoning": "It says so."}'
    builder = StructuredAnswerBuilder(MockChatGenerator(reply))
    prompt = GroundedPromptBuilder(instructions="").run(query="How tall is the tower?", documents=[tower])
    result = builder.run(**prompt, documents=[tower], query="How tall is the tower?")
    print(result["answer"], result["citations"][0]["quote"])  # 90 m The tower is 90 m tall.
    ```
    """

    def __init__(
        self,
        chat_generator: ChatGenerator | None = None,
        json_schema: dict[str, Any] | None = None,
        max_repairs: int = 1,
        generation_kwargs: dict[str, Any] | None = None,
        min_confidence: float = MIN_CONFIDENCE,
        emit_tokens: bool = False,
    ) -> None:
        """
        Create the builder.

        :param chat_generator: The model to ask.
        :param json_schema: What replies have to match (JSON Schema 2020-12, of an object). By default
            `DEFAULT_SCHEMA`: answer, citations, cannot_answer, reasoning, and a measured confidence.
        :param max_repairs: How often a reply that doesn't match is sent back.
        :param generation_kwargs: Further parameters of each call, such as `max_tokens` (300 by default).
        :param min_confidence: An answer with less measured confidence becomes `cannot_answer`. 0 gives every
            answer that the model gave.
        :param emit_tokens: Whether the listener of the run is told the answer's text while the model writes it.
        :raises InvalidSchemaError: If the schema is not a valid one of an object.
        """
        self.min_confidence = min_confidence
        self.emit_tokens = emit_tokens
        self.chat_generator = chat_generator
        self.json_schema = json_schema
        self.max_repairs = max_repairs
        self.generation_kwargs = generation_kwargs
        # A model that gives its confidence unasked does no harm.
        own = {**DEFAULT_SCHEMA, "required": ASKED_SCHEMA["required"]}
        self._validator = checked_schema(own if json_schema is None else json_schema)

    def warm_up(self) -> None:
        """Prepare the model."""
        if self.chat_generator is not None and hasattr(self.chat_generator, "warm_up"):
            self.chat_generator.warm_up()

    @component.output_types(
        answer=str,
        citations=list[dict[str, Any]],
        confidence=float,
        cannot_answer=bool,
        reasoning=str,
        data=dict[str, Any] | None,
        removed_citations=int,
        usage=dict[str, Any],
        model=str,
    )
    def run(
        self,
        messages: list[ChatMessage],
        documents: list[Document],
        query: str,
        model: str | None = None,
        json_schema: dict[str, Any] | None = None,
        generation_kwargs: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """
        Ask for an answer and check it.

        :param messages: The prompt: a system and a user message, without instructions about the reply's form.
        :param documents: The chunks that the prompt shows as [1], [2], ...
        :param query: The question.
        :param model: Another model than the generator's own, for this request.
        :param json_schema: Another schema, for this request.
        :param generation_kwargs: Parameters of this request's calls, on top of the builder's own. With `max_tokens`
            among them, no call gets more; `stop` counts for nothing, since it would break the JSON.
        :returns: A dictionary with `answer`, `citations`, `confidence` (measured, not the model's word for
            it), `cannot_answer` (then the answer is the fixed sentence), `reasoning`, `data` (the whole reply,
            matching the schema), `removed_citations` (numbers that named nothing given), `usage` (over all
            calls) and `model`. Without documents no model is asked. Where there is no answer, `data` of another
            schema than the default is None: nobody but the model could fill it.
        :raises StructuredAnswerError: If no reply matches the schema.
        :raises InvalidGenerationError: If the request's `max_tokens` were too few for a whole reply.
        :raises InvalidSchemaError: If `json_schema` is not a valid one of an object.
        """
        exchange = self._exchange(messages, documents, query, model, json_schema, generation_kwargs)
        try:
            call = self._telling(next(exchange))
            while True:
                call = exchange.send(self._generator().run(**call))
        except StopIteration as stop:
            return stop.value

    @component.output_types(
        answer=str,
        citations=list[dict[str, Any]],
        confidence=float,
        cannot_answer=bool,
        reasoning=str,
        data=dict[str, Any] | None,
        removed_citations=int,
        usage=dict[str, Any],
        model=str,
    )
    async def run_async(
        self,
        messages: list[ChatMessage],
        documents: list[Document],
        query: str,
        model: str | None = None,
        json_schema: dict[str, Any] | None = None,
        generation_kwargs: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """
        Ask for an answer and check it, as `run` does, without blocking the event loop.

        :param messages: The prompt.
        :param documents: The chunks that the prompt shows.
        :param query: The question.
        :param model: Another model for this request.
        :param json_schema: Another schema for this request.
        :param generation_kwargs: Parameters of this request's calls.
        :returns: As `run`.
        :raises StructuredAnswerError: If no reply matches the schema.
        :raises InvalidGenerationError: If the request's `max_tokens` were too few for a whole reply.
        :raises InvalidSchemaError: If `json_schema` is not a valid one of an object.
        """
        exchange = self._exchange(messages, documents, query, model, json_schema, generation_kwargs)
        call, output = await _advanced(exchange, None, json_schema)
        if output is not None:
            return output
        generator = self._generator()
        runs_async = hasattr(generator, "run_async")
        call = self._telling_async(call) if runs_async else self._telling(call)
        while output is None:
            asked = generator.run_async(**call) if runs_async else asyncio.to_thread(generator.run, **call)
            call, output = await _advanced(exchange, await asked, json_schema)
        return output

    def _telling(self, call: _Call) -> _Call:
        """Have the answer's text told as it is written. Of the first reply only: a second one mends it."""
        if not self._tells:
            return call
        reader = AnswerReader()
        return {**call, "streaming_callback": lambda chunk: _tell(reader, chunk)}

    def _telling_async(self, call: _Call) -> _Call:
        if not self._tells:
            return call
        reader = AnswerReader()

        async def tell(chunk: StreamingChunk) -> None:
            _tell(reader, chunk)

        return {**call, "streaming_callback": tell}

    @property
    def _tells(self) -> bool:
        return self.emit_tokens and wants_tokens()

    def _generator(self) -> Any:
        if self.chat_generator is None:
            raise ValueError("StructuredAnswerBuilder has no chat_generator to ask; give it one")
        return self.chat_generator

    def _exchange(
        self,
        messages: list[ChatMessage],
        documents: list[Document],
        query: str,
        model: str | None,
        json_schema: dict[str, Any] | None,
        generation_kwargs: dict[str, Any] | None,
    ) -> _Exchange:
        """Talk with the model: yields each call to make, takes its result, returns the component's output."""
        schema, validator = self._form(json_schema)
        own = schema is ASKED_SCHEMA
        if not documents:
            return nothing_found(own)
        budget = (generation_kwargs or {}).get("max_tokens")
        kwargs = self._kwargs(schema, len(documents), model, generation_kwargs)
        messages = _with_schema(messages, schema)
        faults: list[str] = []
        usage: dict[str, int] = {}
        while True:
            result = (yield {"messages": messages, "generation_kwargs": kwargs}) or {}
            reply: ChatMessage = next(iter(result.get("replies") or ()), ChatMessage.from_assistant(""))
            _add_usage(usage, reply)
            try:
                data = checked_reply(reply, validator)
                given = data if own else checked_data(only_given(data, len(documents)), validator)
                result = resolved(data, reply, Sources(query, documents), self.min_confidence, labels(schema))
                told = own_data(result) if own else None if result["cannot_answer"] else given
                return {**result, "data": told, "usage": usage, "model": str(reply.meta.get("model") or "")}
            except InvalidReplyError as fault:
                faults.append(str(fault))
                if len(faults) > self.max_repairs:
                    if budget and is_cut_off(reply):
                        raise InvalidGenerationError(_too_few(budget)) from fault
                    raise StructuredAnswerError(faults) from fault
            kwargs = {**kwargs, "max_tokens": budget or 2 * kwargs["max_tokens"]}
            messages = [*messages, *_repair(reply, faults[-1])]

    def _form(self, json_schema: dict[str, Any] | None) -> tuple[dict[str, Any], Draft202012Validator]:
        """Give the schema to ask by and the validator of replies; a request's own schema comes first."""
        if json_schema is not None:
            return json_schema, checked_schema(json_schema)
        return ASKED_SCHEMA if self.json_schema is None else self.json_schema, self._validator

    def _kwargs(
        self, schema: dict[str, Any], count: int, model: str | None, given: dict[str, Any] | None
    ) -> dict[str, Any]:
        form = {"name": "answer", "schema": _citing_only(schema, count), "strict": True}
        kwargs: dict[str, Any] = {
            "max_tokens": MAX_TOKENS,
            "logprobs": True,
            **(self.generation_kwargs or {}),
            **(given or {}),
        }
        kwargs.pop("stop", None)
        kwargs["response_format"] = {"type": "json_schema", "json_schema": form}
        if model:
            kwargs["model"] = model
        return kwargs


async def _advanced(
    exchange: _Exchange, result: dict[str, Any] | None, json_schema: dict[str, Any] | None
) -> tuple[_Call, dict[str, Any] | None]:
    """Go on to the next call, or to the output, which is None before the end."""
    if json_schema is None:
        return _sent(exchange, result)
    # What a caller's schema asks to check may take a second.
    return await asyncio.to_thread(_sent, exchange, result)


def _sent(exchange: _Exchange, result: dict[str, Any] | None) -> tuple[_Call, dict[str, Any] | None]:
    try:
        return exchange.send(result), None
    except StopIteration as stop:
        return {}, stop.value


def _citing_only(schema: dict[str, Any], count: int) -> dict[str, Any]:
    """
    Narrow a schema's citations to the numbers of passages that exist.

    Only the constraint on the output is narrowed, not the schema in the prompt: that one stays the same for
    every request, so that a model server can keep what it has read.
    """
    field = (schema.get("properties") or {}).get("citations")
    if not isinstance(field, dict) or not isinstance(field.get("items"), dict):
        return schema
    if field["items"].get("type") != "integer" or field.get("minItems", 0) > count:
        return schema
    numbers = {"type": "integer", "enum": list(range(1, count + 1))}
    narrowed = {**field, "items": numbers, "maxItems": min(count, field.get("maxItems", count))}
    return {**schema, "properties": {**schema["properties"], "citations": narrowed}}


def _with_schema(messages: list[ChatMessage], schema: dict[str, Any]) -> list[ChatMessage]:
    """Put the schema behind the system message, or before all messages when there is none."""
    text = INSTRUCTIONS + plain_json(schema)
    if messages and messages[0].is_from("system"):
        return [ChatMessage.from_system(f"{messages[0].text}\n{text}"), *messages[1:]]
    return [ChatMessage.from_system(text), *messages]


def _repair(reply: ChatMessage, fault: str) -> list[ChatMessage]:
    # A reply, and a fault that quotes it, may hold what a document made the model write.
    asked = f"That reply can't be used: {plain_text(fault)}. Give the corrected JSON object, nothing else."
    return [ChatMessage.from_assistant(plain_text(reply.text or "")), ChatMessage.from_user(asked)]


def _add_usage(usage: dict[str, int], reply: ChatMessage) -> None:
    for name, count in (reply.meta.get("usage") or {}).items():
        if isinstance(count, int):
            usage[name] = usage.get(name, 0) + count


def _tell(reader: AnswerReader, chunk: StreamingChunk) -> None:
    if text := reader.read(chunk.content or ""):
        emit("token", text=text)


def _too_few(max_tokens: int) -> str:
    return f"generation_kwargs.max_tokens is {max_tokens}, too few for the JSON of an answer; ask for more"
