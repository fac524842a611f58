"""Reading a JSON body in one step, after the dependencies had their say.

FastAPI reads the body first, and a large one twice: into Python objects, then into the model.
"""

import asyncio
from collections.abc import Sequence
from email.message import Message
from typing import Any, TypeVar, get_args

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from pydantic.json_schema import JsonSchemaMode

M = TypeVar("M", bound=BaseModel)
_MOST_TOLD = 20
_MOST_LISTED = 5_000


async def read_body(request: Request, model: type[M]) -> M:
    """
    Read a request's JSON body.

    :param request: the request; nothing has read its body yet.
    :param model: what the body must be.
    :returns: the body.
    :raises RequestValidationError: if it is something else.
    """
    if not _is_json(request.headers.get("content-type", "")):
        raise RequestValidationError([{"type": "model_type", "loc": ("body",), "msg": ""}])
    raw = await request.body()
    try:
        return await asyncio.to_thread(model.model_validate_json, raw)
    except ValidationError as error:
        raise request_error(error, "body", model) from None


def request_error(error: ValidationError, place: str, kind: Any) -> RequestValidationError:
    """
    Say where in the request a wrong value is.

    :param error: what pydantic found.
    :param place: what was read.
    :param kind: what it must be, so that the error can name the fields there are.
    :returns: the error to raise.
    """
    if (count := error.error_count()) > _MOST_LISTED:
        # Listing them would stop the event loop, from whatever thread.
        return RequestValidationError([_told(f"there are {count} faults, too many to list", place)])
    faults: Any = first_faults(error.errors(include_url=False, include_input=False))
    for fault in faults:
        if fault["type"] == "extra_forbidden":
            fault["ctx"] = {"known": fields_beside(kind, fault["loc"])}
    return RequestValidationError([{**fault, "loc": (place, *fault["loc"])} for fault in faults])


def first_faults(faults: Sequence[Any]) -> list[Any]:
    """
    Leave out all but the first of many faults.

    :param faults: what is wrong with a request, in the form of pydantic.
    :returns: those that are told; behind them, if there are more, how many.
    """
    told = list(faults[:_MOST_TOLD])
    more = len(faults) - len(told)
    return [*told, _told(f"and {more} more")] if more else told


def _told(message: str, *place: str) -> dict[str, Any]:
    return {"type": "value_error", "loc": place, "msg": message}


def fields_beside(kind: Any, place: Sequence[int | str]) -> list[str]:
    """
    Tell which fields there are where an unknown one is.

    :param kind: what the whole must be: a model, or lists, dictionaries or unions with None of models.
    :param place: the way to the unknown field; its name comes last.
    :returns: the names of the fields.
    """
    for part in place[:-1]:
        fields = getattr(_given(kind), "model_fields", None)
        kind = fields[str(part)].annotation if fields else (get_args(_given(kind)) or (Any,))[-1]
    return list(getattr(_given(kind), "model_fields", ()))


def body_schema(model: type[BaseModel]) -> dict[str, Any]:
    """
    Describe a body that `read_body` reads, for FastAPI does not see it.

    :param model: what the body must be.
    :returns: `openapi_extra` of the route.
    """
    content = {"application/json": {"schema": inlined_schema(model)}}
    return {"requestBody": {"required": True, "content": content}}


def inlined_schema(model: type[BaseModel], mode: JsonSchemaMode = "validation") -> dict[str, Any]:
    """
    Write a model as JSON Schema without references.

    :param model: the model.
    :param mode: `validation` for what is taken, `serialization` for what is given.
    :returns: the schema, with each definition in the place of the references to it.
    """
    schema = model.model_json_schema(mode=mode)
    inlined: dict[str, Any] = _resolved(schema, schema.pop("$defs", {}))
    return inlined


def _given(kind: Any) -> Any:
    """Leave None out of a union with it."""
    kinds = get_args(kind)
    return kinds[0] if type(None) in kinds else kind


def _is_json(content_type: str) -> bool:
    message = Message()
    message["content-type"] = content_type
    subtype = message.get_content_subtype()
    return message.get_content_maintype() == "application" and (
        subtype == "json" or subtype.endswith("+json")
    )


def _resolved(schema: Any, definitions: dict[str, Any]) -> Any:
    """Put definitions in the place of their references, which would point outside of an OpenAPI document."""
    if isinstance(schema, list):
        return [_resolved(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _resolved(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {key: _resolved(value, definitions) for key, value in schema.items()}
