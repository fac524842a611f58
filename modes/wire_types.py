"""The types of sockets as JSON can carry them.

What a caller could do harm with is left out: a `Tool` names code, a `Secret` an environment variable, a path a file of
the server.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from haystack import Document
from haystack.dataclasses import ByteStream, ChatMessage, GeneratedAnswer, SparseEmbedding
from pydantic import BaseModel, ConfigDict, PlainValidator, TypeAdapter, WithJsonSchema

_FROM_JSON = (Document, ChatMessage, ByteStream, SparseEmbedding, GeneratedAnswer)
_LISTS = (list, Sequence, Iterable, set, tuple)


class UnfitTypeError(TypeError):
    """No value of a type can be given in a request."""


def wire_type(kind: Any, convert: bool) -> Any:
    """
    Make of a socket's type one that pydantic reads from JSON.

    :param kind: the socket's type.
    :param convert: whether Haystack's objects are made from their JSON; otherwise that is checked only, and the JSON
        kept.
    :returns: the type.
    :raises UnfitTypeError: if nothing of the type can be given in a request.
    """
    if kind is Any or kind is NoneType or kind is None:
        return kind
    if kind in _FROM_JSON:
        return _haystack_type(kind, convert)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return wire_type(arguments[0], convert)
    if origin in (Union, UnionType):
        return _union(arguments, convert)
    if origin in _LISTS:
        return list[wire_type(arguments[0], convert)] if arguments else list[Any]  # type: ignore[misc]
    if origin is dict:
        return dict[arguments[0], wire_type(arguments[1], convert)]  # type: ignore[valid-type, misc]
    return _plain(kind)


def _union(members: tuple[Any, ...], convert: bool) -> Any:
    # Where a path is welcome, a text is one.
    refused = (Path, str) if Path in members else ()
    fit = []
    for member in members:
        try:
            if member not in refused:
                fit.append(wire_type(member, convert))
        except UnfitTypeError:
            continue
    if all(member is NoneType for member in fit):
        raise UnfitTypeError
    return Union[tuple(fit)]  # noqa: UP007


def _haystack_type(kind: Any, convert: bool) -> Any:
    def read(value: Any) -> Any:
        if isinstance(value, kind):
            return value
        if not isinstance(value, dict):
            raise ValueError(f"must be an object that describes a {kind.__name__}")
        try:
            made = kind.from_dict(value)
        except Exception as error:  # whatever is wrong with the caller's object
            raise ValueError(f"is no {kind.__name__}: {error}") from None
        return made if convert else value

    return Annotated[Any, PlainValidator(read), WithJsonSchema({"type": "object", "title": kind.__name__})]


def _plain(kind: Any) -> Any:
    if kind is Path or (isinstance(kind, type) and hasattr(kind, "from_dict")) or kind is Callable:
        raise UnfitTypeError
    try:
        config = None if isinstance(kind, type) and issubclass(kind, BaseModel) else ConfigDict(strict=False)
        TypeAdapter(kind, config=config).json_schema()
    except Exception:  # pydantic has many errors for what it can't describe
        raise UnfitTypeError from None
    return kind
