"""From a prompt to an answer in JSON that matches a schema."""

import asyncio
import json
from collections.abc import Generator
from typing import Any

from haystack import Document, component
from haystack.components.generators.chat.types import ChatGenerator
from haystack.dataclasses import ChatMessage
from jsonschema import Draft202012Validator

from components.citing import CANNOT_ANSWER, CitedText, is_refusal
from components.confidence import answer_probability
from components.supporting import Evidence
from components.validating import InvalidReplyError, checked_data, checked_reply, checked_schema

DEFAULT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "answer": {"type": "string", "description": "shortest exact phrase copied from the passages"},
        "citations": {
            "type": "array",
            "items": {"type": "integer", "minimum": 1},
            "description": "numbers of the passages that hold the answer",
        },
        "cannot_answer": {"type": "boolean", "description": "true if no passage holds the answer"},
        "confidence": {"type": "number", "minimum": 0, "maximum": 1},
        "reasoning": {"type": "string", "description": "one short sentence: why the passage answers"},
    },
    "required": ["answer", "citations", "cannot_answer", "confidence", "reasoning"],
    "additionalProperties": False,
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
    reply = '{"answer": "90 m", "citations": [1], "cannot_answer": false, "confidence": 1, "reasoning": ""}'
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
    ) -> None:
        """
        Create the builder.

        :param chat_generator: The model to ask.
        :param json_schema: What replies have to match (JSON Schema 2020-12, of an object). By default
            `DEFAULT_SCHEMA`: answer, citations, cannot_answer, confidence, reasoning.
        :param max_repairs: How often a reply that doesn't match is sent back.
        :param generation_kwargs: Further parameters of each call, such as `max_tokens` (300 by default).
        :raises InvalidSchemaError: If the schema is not a valid one of an object.
        """
        self.chat_generator = chat_generator
        self.json_schema = json_schema
        self.max_repairs = max_repairs
        self.generation_kwargs = generation_kwargs
        self._validator = checked_schema(DEFAULT_SCHEMA if json_schema is None else json_schema)

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
        own = DEFAULT_SCHEMA if self.json_schema is None else self.json_schema
        schema = own if json_schema is None else json_schema
        validator = self._validator if json_schema is None else checked_schema(json_schema)
        if not documents:
            return _nothing(validator)
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
                answer = _resolved(data, reply, Evidence(query, documents), validator)
                return {**answer, "usage": usage, "model": str(reply.meta.get("model") or "")}
            except InvalidReplyError as fault:
                faults.append(str(fault))
                if len(faults) > self.max_repairs:
                    raise StructuredAnswerError(faults) from fault
            kwargs = {**kwargs, "max_tokens": 2 * kwargs["max_tokens"]}
            messages = [*messages, *_repair(reply, faults[-1])]

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
    field = schema.get("properties", {}).get("citations")
    if not isinstance(field, dict) or field.get("items", {}).get("type") != "integer":
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


def _nothing(validator: Draft202012Validator) -> dict[str, Any]:
    data = {
        "answer": CANNOT_ANSWER,
        "citations": [],
        "cannot_answer": True,
        "confidence": 0.0,
        "reasoning": "No documents were found.",
    }
    return {
        **data,
        "data": data if validator.is_valid(data) else {},
        "removed_citations": 0,
        "usage": {},
        "model": "",
    }


def _resolved(
    data: dict[str, Any], reply: ChatMessage, evidence: Evidence, validator: Draft202012Validator
) -> dict[str, Any]:
    """Resolve the citations of a valid reply and measure how far its answer can be trusted."""
    answer = data.get("answer")
    own_words = answer if isinstance(answer, str) else " ".join(_strings(data))
    cited = CitedText(own_words, evidence)
    numbers = data.get("citations")
    if isinstance(numbers, list) and all(type(number) is int for number in numbers):
        data = {**data, "citations": [chunk + 1 for chunk in cited.cite(numbers, cited.bare)]}
    cannot_answer = data.get("cannot_answer") is True or not cited.bare or is_refusal(cited.bare)
    probability = answer_probability(reply, answer) if isinstance(answer, str) else None
    confidence = 0.0 if cannot_answer else round(cited.attribute() * (probability or 1.0), 3)
    told: dict[str, Any] = {
        "answer": answer if isinstance(answer, str) else json.dumps(data, ensure_ascii=False),
        "citations": cited.citations(),
        "cannot_answer": cannot_answer,
        "confidence": confidence,
        "reasoning": str(data.get("reasoning") or ""),
    }
    if cannot_answer:
        told |= {"answer": CANNOT_ANSWER, "citations": []}
    corrected = data | {key: told[key] for key in ("answer", "confidence", "cannot_answer") if key in data}
    if "citations" in data and isinstance(numbers, list):
        corrected["citations"] = [citation["index"] for citation in told["citations"]]
    return {**told, "data": checked_data(corrected, validator), "removed_citations": cited.removed}


def _strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for part in value.values() for text in _strings(part)]
    if isinstance(value, list):
        return [text for part in value for text in _strings(part)]
    return [value] if isinstance(value, str) else []
