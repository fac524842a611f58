"""Which types of sockets a request can give, and how."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from haystack import Document
from haystack.dataclasses import ByteStream, ChatMessage
from haystack.tools import Tool, Toolset
from haystack.utils import Secret
from pydantic import TypeAdapter, ValidationError

from modes.wire_types import UnfitTypeError, wire_type

TEXT = Document(content="x")
HELLO = ChatMessage.from_user("Hello")


def read(kind: Any, value: Any, convert: bool = True) -> Any:
    """Read a value as a request's."""
    return TypeAdapter(wire_type(kind, convert)).validate_python(value)


@pytest.mark.parametrize(
    ("kind", "value", "wanted"),
    [
        (str, "a", "a"),
        (int | None, None, None),
        (Any, {"a": 1}, {"a": 1}),
        (Literal["a", "b"], "b", "b"),
        (dict[str, Any] | list[dict[str, Any]] | None, [{"a": 1}], [{"a": 1}]),
        (list[Document], [TEXT.to_dict()], [TEXT]),
        (dict[str, list[Document]], {"a": [TEXT.to_dict()]}, {"a": [TEXT]}),
        (list[ChatMessage] | str, [HELLO.to_dict()], [HELLO]),
        (list[ChatMessage] | str, "Hello", "Hello"),
        (list[str | Path | ByteStream], [{"data": [104, 105]}], [ByteStream(b"hi")]),
        (ChatMessage | Tool, HELLO.to_dict(), HELLO),
    ],
)
def test_json_becomes_what_the_socket_takes(kind: Any, value: Any, wanted: Any) -> None:
    """Haystack's objects are made from their JSON; where that is only checked, the JSON stays."""
    assert read(kind, value) == wanted
    assert read(kind, value, convert=False) == value
    TypeAdapter(wire_type(kind, False)).json_schema()


@pytest.mark.parametrize(
    "kind",
    [
        Tool,
        list[Tool] | Toolset | None,
        Secret,
        Path,
        str | Path,
        list[str | Path],
        Callable[[str], None] | None,
    ],
)
def test_what_could_do_harm_can_not_be_given(kind: Any) -> None:
    """Code, secrets, paths of the server, and what JSON can't say are refused."""
    with pytest.raises(UnfitTypeError):
        wire_type(kind, convert=False)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (list[str | Path | ByteStream], ["/etc/passwd"]),
        (list[Document], [{"content": 5}]),
        (Document, "x"),
        (ChatMessage | Tool, {"name": "x"}),
    ],
)
def test_what_is_no_such_object_is_refused(kind: Any, value: Any) -> None:
    """A path is no file, and an object must be one that its class can be made of."""
    with pytest.raises(ValidationError):
        read(kind, value, convert=False)
