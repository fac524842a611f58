"""A model's JSON reply against a JSON Schema."""

import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, NoReturn

from haystack.dataclasses import ChatMessage
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError

_FENCE = re.compile(r"\A\s*```\w*\s*\n(.*?)\s*```\s*\Z", re.S)
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_SHOWN = 300
_FAULTS_SHOWN = 3


class InvalidSchemaError(ValueError):
    """The JSON schema asked for can't be used."""


class InvalidReplyError(ValueError):
    """A reply is not the JSON that was asked for; the message tells the model what to mend."""


def checked_schema(schema: Any) -> Draft202012Validator:
    """
    Check a JSON schema (draft 2020-12) for a reply.

    :param schema: The schema; of an object, and whole in itself.
    :returns: Its validator.
    :raises InvalidSchemaError: If it is no valid schema, not one of an object, or points outside itself.
    """
    if not isinstance(schema, dict):
        raise InvalidSchemaError(f"json_schema is a {type(schema).__name__}; it should be an object")
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as fault:
        where = "/".join(str(part) for part in fault.absolute_path) or "its top"
        raise InvalidSchemaError(f"json_schema is not valid at {where}: {fault.message[:_SHOWN]}") from fault
    if schema.get("type", "object") != "object":
        raise InvalidSchemaError(f"json_schema describes a {schema['type']}; replies are objects")
    for reference in _references(schema):
        # A schema comes from a caller: looking up an address it names would send requests on its behalf.
        if not reference.startswith("#"):
            raise InvalidSchemaError(
                f"json_schema refers to {reference!r}; only references inside it ('#...') work"
            )
    return Draft202012Validator(schema)


def _references(schema: Any) -> list[str]:
    found = (part.get(key) for part in _parts(schema) for key in ("$ref", "$dynamicRef"))
    return [reference for reference in found if isinstance(reference, str)]


def _parts(schema: Any) -> Iterator[dict[str, Any]]:
    """Give every object in a schema, without recursion: its depth is the caller's choice."""
    rest = [schema]
    while rest:
        part = rest.pop()
        if isinstance(part, dict):
            yield part
            rest += part.values()
        elif isinstance(part, list):
            rest += part


def labels(schema: Any) -> frozenset[str]:
    """
    List the texts that a schema offers to choose from.

    :param schema: A checked schema.
    :returns: Every text of an `enum` or `const` in it.
    """
    found: set[str] = set()
    for part in _parts(schema):
        choices = part.get("enum")
        offered = [*(choices if isinstance(choices, list) else []), part.get("const")]
        found |= {text for text in offered if isinstance(text, str)}
    return frozenset(found)


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
    fenced = _FENCE.match(text)
    try:
        data = json.loads(fenced[1] if fenced else text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as fault:
        raise InvalidReplyError(f"it is not JSON: {fault}") from fault
    return checked_data(data, validator)


def checked_data(data: Any, validator: Draft202012Validator) -> dict[str, Any]:
    """
    Check data against a schema.

    :param data: What was read from JSON.
    :param validator: The schema's validator.
    :returns: The data.
    :raises InvalidReplyError: If it doesn't match.
    :raises InvalidSchemaError: If the schema turns out to be unusable: a reference to nothing, or to itself.
    """
    try:
        faults = list(islice(validator.iter_errors(data), _FAULTS_SHOWN))
    except Exception as problem:
        # jsonschema finds a broken reference only now, and an endless one by running out of stack.
        raise InvalidSchemaError(f"json_schema can't be applied: {str(problem)[:_SHOWN]}") from problem
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
