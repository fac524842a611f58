"""CSV becomes text that reads well in pieces: each row with the names of its fields."""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from itertools import chain

from haystack import Document, component
from haystack.dataclasses import ByteStream

_DELIMITERS = ",;\t|"
_NUMBER = re.compile(r"[-+]?[\d.,:/ -]+%?")


@component
class CSVRecordsToDocument:
    """
    Makes a paragraph of each row, with the column's name before each field: `name: Ann`.

    So a chunk from the middle of a table still says what its figures are, which rows alone do not. A first row that
    looks like no header (it repeats itself, or has empty fields or numbers) is a row like any other.

    Usage example:
    ```python
    table = ByteStream(b"name,age\\nAnn,31\\n", meta={"document_id": "people"})
    CSVRecordsToDocument().run(sources=[table])["documents"][0].content  # "name: Ann\\nage: 31"
    ```
    """

    @component.output_types(documents=list[Document])
    def run(self, sources: list[ByteStream]) -> dict[str, list[Document]]:
        """
        Convert tables.

        :param sources: CSV in UTF-8, with commas, semicolons, tabs or bars between the fields.
        :returns: `documents`, one for each source.
        """
        texts = (_text(source.data.decode("utf-8")) for source in sources)
        return {
            "documents": [
                Document(content=text, meta=dict(source.meta))
                for text, source in zip(texts, sources, strict=True)
            ]
        }


def _text(table: str) -> str:
    # The module refuses fields of more than 131,072 characters.
    csv.field_size_limit(max(csv.field_size_limit(), len(table)))
    rows = csv.reader(io.StringIO(table, newline=""), delimiter=_delimiter(table))
    filled = (row for row in ([field.strip() for field in row] for row in rows) if any(row))
    first = next(filled, [])
    if not _is_header(first):
        return "\n\n".join(_paragraph([], row) for row in chain([first], filled))
    return "\n\n".join(_paragraph(first, row) for row in filled) or ", ".join(first)


def _delimiter(table: str) -> str:
    """Choose the delimiter that cuts most of the first rows into the same number of fields, more than one."""
    lines = table[:20_000].splitlines()[:50]

    def evenness(delimiter: str) -> tuple[int, int]:
        widths = [len(row) for row in csv.reader(lines, delimiter=delimiter)]
        usual = max(set(widths), key=widths.count, default=1)
        return (widths.count(usual) if usual > 1 else 0), usual

    return max(_DELIMITERS, key=evenness)


def _is_header(row: list[str]) -> bool:
    return len(set(row)) == len(row) > 1 and all(row) and not any(map(_NUMBER.fullmatch, row))


def _paragraph(names: list[str], row: list[str]) -> str:
    return "\n".join(_fields(names, row))


def _fields(names: list[str], row: Iterable[str]) -> Iterator[str]:
    for number, field in enumerate(row):
        if field and names:
            yield f"{names[number] if number < len(names) else f'column {number + 1}'}: {field}"
        elif field:
            yield field
