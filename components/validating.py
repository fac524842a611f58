"""A model's JSON reply against a JSON Schema."""

import json
import re
from itertools import islice
from typing import Any, NoReturn

from haystack.dataclasses import ChatMessage
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from components.schemas import schema_faults

_FENCE = "```"
_OPENED = re.compile(rf"{_FENCE}\w*[^\S\n]*\n")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_SHOWN = 300
_FAULTS_SHOWN = 3


class InvalidReplyError(ValueError):
    """A reply is not the JSON that was asked for; the message tells the model what to mend."""


def is_cut_off(reply: ChatMessage) -> bool:
    """
    Tell whether a reply ended for want of tokens.

    :param reply: The model's reply.
    :returns: True where the model had more to say.
    """
    return reply.meta.get("finish_reason") == "length"


def checked_reply(reply: ChatMessage, validator: Draft202012Validator) -> dict[str, Any]:
    """
    Read a reply as JSON and check it.

    :param reply: The model's reply; bare JSON, or JSON in a code fence.
    :param validator: The schema's validator.
    :returns: The object it holds.
    :raises InvalidReplyError: If it was cut off, is no JSON, or doesn't match.
    """
    text = reply.text or ""
    if is_cut_off(reply):
        raise InvalidReplyError("it was cut off before its end; be shorter")
    try:
        data = json.loads(_unfenced(text), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as fault:
        raise InvalidReplyError(f"it is not JSON: {fault}") from fault
    return checked_data(data, validator)


def _unfenced(text: str) -> str:
    bare = text.strip()
    opened = _OPENED.match(bare)
    return bare[opened.end() : -len(_FENCE)] if opened and bare.endswith(_FENCE) else text


def checked_data(data: Any, validator: Draft202012Validator) -> dict[str, Any]:
    """
    Check data against a schema.

    :param data: What was read from JSON.
    :param validator: The schema's validator.
    :returns: The data.
    :raises InvalidReplyError: If it doesn't match.
    :raises InvalidSchemaError: If the schema turns out to be unusable.
    """
    faults = list(islice(schema_faults(data, validator), _FAULTS_SHOWN))
    if faults:
        raise InvalidReplyError("it doesn't match the schema: " + "; ".join(map(_told, faults)))
    if not isinstance(data, dict):
        raise InvalidReplyError("it is not a JSON object")
    if _LONE_SURROGATE.search(json.dumps(data, ensure_ascii=False)):
        raise InvalidReplyError("it holds half a character (a lone surrogate escape)")
    return data


def _told(fault: ValidationError) -> str:
    where = "".join(f"[{part!r}]" for part in fault.absolute_path) or "the object"
    return f"{where}: {fault.message[:_SHOWN]}"


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
