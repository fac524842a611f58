"""Haystack messages and OpenAI's options → the request that llama.cpp takes."""

import json
import re
from functools import lru_cache
from typing import Any

from haystack.dataclasses import ChatMessage, ChatRole
from jsonschema import SchemaError
from jsonschema.validators import validator_for

from components.models.errors import InvalidGenerationError
from components.models.llama_engine import schema_grammar

DEFAULTS: dict[str, Any] = {"max_tokens": 512, "temperature": 0.0, "seed": 42}
OPTIONS = {
    "frequency_penalty",
    "grammar",
    "logit_bias",
    "logprobs",
    "max_tokens",
    "min_p",
    "presence_penalty",
    "repeat_penalty",
    "response_format",
    "seed",
    "stop",
    "temperature",
    "top_k",
    "top_logprobs",
    "top_p",
}
# Text such as <|im_end|>, which the tokenizer would take for the end of a message.
CONTROL_TOKEN = re.compile(r"<(?=\|[\w-]+\|>)")


def chat_request(messages: list[ChatMessage], options: dict[str, Any]) -> dict[str, Any]:
    """
    Build the body of a chat completion for llama.cpp.

    :param messages: System, user and assistant messages of text.
    :param options: Options by OpenAI's names; None leaves one out, `model` is ignored.
    :returns: The body; its reply comes as a stream.
    :raises InvalidGenerationError: If an option, message or schema isn't usable.
    """
    options = {key: value for key, value in options.items() if value is not None and key != "model"}
    if unknown := options.keys() - OPTIONS:
        raise InvalidGenerationError(f"unknown options {sorted(unknown)}; there are {sorted(OPTIONS)}")
    response_format = options.pop("response_format", None)
    if response_format is not None:
        options["grammar"] = _grammar(json.dumps(_schema(response_format)))
    return {
        **options,
        "messages": [_message(message) for message in messages],
        "cache_prompt": True,
        # Progress chunks make the prompt phase, too, a chance to cancel.
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_progress": True,
    }


def _message(message: ChatMessage) -> dict[str, str]:
    readable = message.role in (ChatRole.SYSTEM, ChatRole.USER, ChatRole.ASSISTANT)
    if not readable or not message.texts or message.images or message.tool_calls:
        raise InvalidGenerationError(f"the built-in model can't read this message from {message.role.value}")
    text = CONTROL_TOKEN.sub("< ", "\n".join(message.texts))
    return {"role": message.role.value, "content": text.encode("utf-8", "replace").decode()}


def _schema(response_format: Any) -> dict[str, Any]:
    match response_format:
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return schema
        case {"type": "json_object"}:
            return {"type": "object"}
        case {"type": "text"}:
            raise InvalidGenerationError("leave response_format away for plain text")
    raise InvalidGenerationError(
        'response_format is {"type": "json_schema", "json_schema": {"name": ..., "schema": {...}}} '
        f'or {{"type": "json_object"}}, not {response_format!r}'
    )


@lru_cache(maxsize=64)
def _grammar(schema: str) -> str:
    parsed = json.loads(schema)
    try:
        validator_for(parsed).check_schema(parsed)
    except SchemaError as error:
        raise InvalidGenerationError(f"the JSON schema isn't valid: {error.message}") from error
    return schema_grammar(parsed)
