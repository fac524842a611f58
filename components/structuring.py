"""From a prompt to an answer in JSON that matches a schema."""

import asyncio
import json
from collections.abc import Generator
from typing import Any

from haystack import Document, component
from haystack.components.generators.chat.types import ChatGenerator
from haystack.dataclasses import ChatMessage
from jsonschema import Draft202012Validator

from components.citing import CANNOT_ANSWER, MIN_CONFIDENCE, CitedText, no_answer
from components.confidence import answer_probability
from components.supporting import Sources
from components.validating import InvalidReplyError, checked_data, checked_reply, checked_schema

# What a model is asked for. Not for its confidence: a small model writes 1 whatever it answers, and each
# token costs time. The builder measures that itself.
ASKED_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        # Bounded, so that a small model that rambles still closes its JSON.
        "answer": {
            "type": "string",
            "maxLength": 600,
            "description": "shortest exact phrase copied from the passages",
        },
        "citations": {
            "type": "array",
            "items": {"type": "integer", "minimum": 1},
            "description": "numbers of the passages that hold the answer",
        },
        "cannot_answer": {"type": "boolean", "description": "true if no passage holds the answer"},
        "reasoning": {"type": "string", "maxLength": 160, "description": "why, in at most 12 words"},
    },
    "required": ["answer", "citations", "cannot_answer", "reasoning"],
    "additionalProperties": False,
}
# What `data` matches by default.
DEFAULT_SCHEMA: dict[str, Any] = {
    **ASKED_SCHEMA,
    "properties": {
        **ASKED_SCHEMA["properties"],
        "confidence": {"type": "number", "minimum": 0, "maximum": 1},
    },
    "required": [*ASKED_SCHEMA["required"], "confidence"],
}
INSTRUCTIONS = "Reply with one JSON object that matches this JSON Schema:\n"
MAX_TOKENS = 300

_Call = dict[str, Any]


class StructuredAnswerError(RuntimeError):
    """
    The model gave no reply that matches the schema.

    :param faults: What was wrong with each reply, in order.
    """

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
        :raises InvalidSchemaError: If the schema is not a valid one of an object.
        """
        self.min_confidence = min_confidence
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
        data=dict[str, Any],
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
    ) -> dict[str, Any]:
        """
        Ask for an answer and check it.

        :param messages: The prompt: a system and a user message, without instructions about the reply's form.
        :param documents: The chunks that the prompt shows as [1], [2], ...
        :param query: The question.
        :param model: Another model than the generator's own, for this request.
        :param json_schema: Another schema, for this request.
        :returns: A dictionary with `answer`, `citations`, `confidence` (measured, not the model's word for
            it),
            `cannot_answer` (then the answer is the fixed sentence), `reasoning`, `data` (the whole reply,
            matching the schema), `removed_citations` (numbers that named nothing given), `usage` (over all
            calls) and
            `model`. Without documents no model is asked.
        :raises StructuredAnswerError: If no reply matches the schema.
        :raises InvalidSchemaError: If `json_schema` is not a valid one of an object.
        """
        exchange = self._exchange(messages, documents, query, model, json_schema)
        try:
            call = next(exchange)
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
        data=dict[str, Any],
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
    ) -> dict[str, Any]:
        """
        Ask for an answer and check it, as `run` does, without blocking the event loop.

        :param messages: The prompt.
        :param documents: The chunks that the prompt shows.
        :param query: The question.
        :param model: Another model for this request.
        :param json_schema: Another schema for this request.
        :returns: As `run`.
        :raises StructuredAnswerError: If no reply matches the schema.
        :raises InvalidSchemaError: If `json_schema` is not a valid one of an object.
        """
        exchange = self._exchange(messages, documents, query, model, json_schema)
        try:
            call = next(exchange)
            while True:
                generator = self._generator()
                if hasattr(generator, "run_async"):
                    call = exchange.send(await generator.run_async(**call))
                else:
                    call = exchange.send(await asyncio.to_thread(generator.run, **call))
        except StopIteration as stop:
            return stop.value

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
    ) -> Generator[_Call, dict[str, Any], dict[str, Any]]:
        """Talk with the model: yields each call to make, takes its result, returns the component's output."""
        schema, validator = self._form(json_schema)
        if not documents:
            return _nothing(own=schema is ASKED_SCHEMA)
        kwargs = self._kwargs(schema, len(documents), model)
        messages = _with_schema(messages, schema)
        faults: list[str] = []
        usage: dict[str, int] = {}
        while True:
            result = yield {"messages": messages, "generation_kwargs": kwargs}
            reply: ChatMessage = next(iter(result["replies"]), ChatMessage.from_assistant(""))
            _add_usage(usage, reply)
            try:
                data = checked_reply(reply, validator)
                result = _resolved(data, reply, Sources(query, documents), self.min_confidence)
                own = schema is ASKED_SCHEMA
                data = (
                    _own_data(result) if own else checked_data(_only_given(data, len(documents)), validator)
                )
                return {**result, "data": data, "usage": usage, "model": str(reply.meta.get("model") or "")}
            except InvalidReplyError as fault:
                faults.append(str(fault))
                if len(faults) > self.max_repairs:
                    raise StructuredAnswerError(faults) from fault
            kwargs = {**kwargs, "max_tokens": 2 * kwargs["max_tokens"]}
            messages = [*messages, *_repair(reply, faults[-1])]

    def _form(self, json_schema: dict[str, Any] | None) -> tuple[dict[str, Any], Draft202012Validator]:
        """Give the schema to ask by and the validator of replies; a request's own schema comes first."""
        if json_schema is not None:
            return json_schema, checked_schema(json_schema)
        return ASKED_SCHEMA if self.json_schema is None else self.json_schema, self._validator

    def _kwargs(self, schema: dict[str, Any], count: int, model: str | None) -> dict[str, Any]:
        form = {"name": "answer", "schema": _citing_only(schema, count), "strict": True}
        kwargs: dict[str, Any] = {
            "max_tokens": MAX_TOKENS,
            "logprobs": True,
            **(self.generation_kwargs or {}),
        }
        kwargs["response_format"] = {"type": "json_schema", "json_schema": form}
        if model:
            kwargs["model"] = model
        return kwargs


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
    text = INSTRUCTIONS + json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
    if messages and messages[0].is_from("system"):
        return [ChatMessage.from_system(f"{messages[0].text}\n{text}"), *messages[1:]]
    return [ChatMessage.from_system(text), *messages]


def _repair(reply: ChatMessage, fault: str) -> list[ChatMessage]:
    asked = f"That reply can't be used: {fault}. Give the corrected JSON object, nothing else."
    return [ChatMessage.from_assistant(reply.text or ""), ChatMessage.from_user(asked)]


def _add_usage(usage: dict[str, int], reply: ChatMessage) -> None:
    for name, count in (reply.meta.get("usage") or {}).items():
        if isinstance(count, int):
            usage[name] = usage.get(name, 0) + count


def _nothing(own: bool) -> dict[str, Any]:
    """Give the result of a question without documents; `data` of a foreign schema can't be made up."""
    result: dict[str, Any] = {
        **no_answer(),
        "reasoning": "There are no documents on this question.",
        "usage": {},
        "model": "",
    }
    del result["supported"]
    return result | {"data": _own_data(result) if own else {}}


def _resolved(
    data: dict[str, Any], reply: ChatMessage, sources: Sources, min_confidence: float
) -> dict[str, Any]:
    """Resolve the citations of a valid reply and measure how far its answer can be trusted."""
    answer = data.get("answer")
    cited = CitedText(answer if isinstance(answer, str) else "\n".join(_strings(data)), sources)
    cited.cite(_numbers(data), cited.bare)
    cited.attribute()
    told = {"reasoning": str(data.get("reasoning") or ""), "removed_citations": cited.removed}
    refused = data.get("cannot_answer") is True or cited.refused
    probability = answer_probability(reply, answer) if isinstance(answer, str) else None
    confidence = 0.0 if refused else cited.confidence(probability)
    if refused or confidence < min_confidence:
        return {
            "answer": CANNOT_ANSWER,
            "citations": [],
            "cannot_answer": True,
            "confidence": confidence,
            **told,
        }
    return {
        "answer": cited.bare if isinstance(answer, str) else json.dumps(data, ensure_ascii=False),
        "citations": cited.citations(),
        "cannot_answer": False,
        "confidence": confidence,
        **told,
    }


def _own_data(result: dict[str, Any]) -> dict[str, Any]:
    """Put a result into the form of the default schema."""
    data = {name: result[name] for name in DEFAULT_SCHEMA["properties"]}
    return data | {"citations": [citation["index"] for citation in result["citations"]]}


def _numbers(data: dict[str, Any]) -> list[int]:
    numbers = data.get("citations")
    return [number for number in numbers if type(number) is int] if isinstance(numbers, list) else []


def _only_given(data: dict[str, Any], count: int) -> dict[str, Any]:
    """Take out citations of passages that were not given from data of any schema."""
    numbers = data.get("citations")
    if not isinstance(numbers, list):
        return data
    return {**data, "citations": [n for n in numbers if type(n) is not int or 1 <= n <= count]}


def _strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for part in value.values() for text in _strings(part)]
    if isinstance(value, list):
        return [text for part in value for text in _strings(part)]
    return [value] if isinstance(value, str) else []
