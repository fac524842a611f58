"""JSON becomes text that reads well in pieces: each object with the names of its values."""

import json
import re
from collections.abc import Iterator
from typing import Any

from haystack import Document, component
from haystack.dataclasses import ByteStream

from components.converting.errors import SourceError
from components.converting.routing import NOTE_META

_DEEPEST = 100
_NAMED_LINES = 10
_SURROGATES = re.compile("[\ud800-\udfff]")


@component
class JSONRecordsToDocument:
    """
    Makes a paragraph of each object, with its keys before its values (`name: Ann`), and a heading of each list's key.

    Reads JSON, and JSON Lines, of which lines that are no JSON are left out and named in a note. Both values of a key
    that is given twice are kept, and numbers stay as they are written.

    Usage example:
    ```python
    people = ByteStream(b'[{"name": "Ann", "address": {"city": "Ulm"}}]', meta={"document_id": "people"})
    JSONRecordsToDocument().run(sources=[people])["documents"][0].content  # "name: Ann\\naddress.city: Ulm"
    ```
    """

    @component.output_types(documents=list[Document])
    def run(self, sources: list[ByteStream]) -> dict[str, list[Document]]:
        """
        Convert JSON.

        :param sources: JSON or JSON Lines in UTF-8.
        :returns: `documents`, one for each source.
        :raises SourceError: if a source is neither, or nested too deeply.
        """
        return {"documents": [_document(source) for source in sources]}


class _Object(list[tuple[str, Any]]):
    """An object's keys and values in order, with keys that are given twice."""


_decoder = json.JSONDecoder(
    object_pairs_hook=_Object, parse_float=str, parse_int=str, parse_constant=str, strict=False
)


def _document(source: ByteStream) -> Document:
    try:
        value, note = _parse(source.data.decode("utf-8"))
        text = "\n\n".join(_paragraphs(value))
    except RecursionError:
        raise _too_deep() from None
    # A surrogate alone is allowed in JSON's \u escapes and nowhere else.
    text = _SURROGATES.sub("\ufffd", text)
    return Document(content=text, meta={**source.meta, NOTE_META: note} if note else dict(source.meta))


def _parse(text: str) -> tuple[Any, str | None]:
    try:
        return _decoder.decode(text), None
    except ValueError as fault:
        lines = [
            (number, _parse_line(line)) for number, line in enumerate(text.split("\n"), 1) if line.strip()
        ]
        records = [value for _, value in lines if isinstance(value, list)]
        # Lines of broken JSON are rarely JSON themselves.
        if len(lines) < 2 or len(records) * 2 < len(lines):
            raise SourceError(f"cannot be read: it is no valid JSON: {fault}") from None
    bad = [number for number, value in lines if value is ...]
    named = ", ".join(map(str, bad[:_NAMED_LINES])) + (" and others" if len(bad) > _NAMED_LINES else "")
    note = f"{len(bad)} of {len(lines)} lines are no JSON and were left out: line {named}" if bad else None
    return [value for _, value in lines if value is not ...], note


def _parse_line(line: str) -> Any:
    """Give a line's value, or an ellipsis, which no JSON is."""
    try:
        return _decoder.decode(line)
    except ValueError:
        return ...


def _paragraphs(value: Any, depth: int = 0) -> Iterator[str]:
    """Give a paragraph for each object and each plain value of a list, wherever they are."""
    if depth > _DEEPEST:
        raise _too_deep()
    if isinstance(value, _Object):
        fields: list[str] = []
        tables: list[tuple[str, list[Any]]] = []
        _flatten(value, "", depth, fields, tables)
        if fields:
            yield "\n".join(fields)
        for name, table in tables:
            yield f"# {name}"
            yield from _paragraphs(table, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from _paragraphs(inner, depth + 1)
    elif _plain(value):
        yield _plain(value)


def _flatten(
    value: _Object, prefix: str, depth: int, fields: list[str], tables: list[tuple[str, list[Any]]]
) -> None:
    """Collect an object's plain values, with those of objects in it, and the lists of objects or lists in it."""
    if depth > _DEEPEST:
        raise _too_deep()
    for key, inner in value:
        name = f"{prefix}{key}"
        if isinstance(inner, _Object):
            _flatten(inner, f"{name}.", depth + 1, fields, tables)
        elif isinstance(inner, list) and any(isinstance(one, list) for one in inner):
            tables.append((name, inner))
        elif (
            text := ", ".join(filter(None, map(_plain, inner))) if isinstance(inner, list) else _plain(inner)
        ):
            fields.append(f"{name}: {text}")


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _too_deep() -> SourceError:
    return SourceError(f"cannot be read: it is nested more than {_DEEPEST} levels deep")
