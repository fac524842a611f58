"""Tables become text that reads well in pieces: each row with the names of its fields."""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import openpyxl
from haystack import Document, component
from haystack.dataclasses import ByteStream

_DELIMITERS = ",;\t|"
_NUMBER = re.compile(r"[-+]?[\d.,:/ -]+%?")


@component
class CSVRecordsToDocument:
    """
    Makes a paragraph of each row, with the column's name before each field: `name: Ann`.

    So a chunk from the middle of a table still says what its figures are, which rows alone do not. A first row that
    looks like no header (it repeats itself, or has gaps or numbers) is a row like any other; of such a table, rows are
    lines with commas.

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
        texts = (_csv_text(source.data.decode("utf-8")) for source in sources)
        return {
            "documents": [
                Document(content=text, meta=dict(source.meta))
                for text, source in zip(texts, sources, strict=True)
            ]
        }


@component
class SheetsToDocument:
    """
    Makes a page of each sheet of a workbook, with its name as heading and its rows as in `CSVRecordsToDocument`.

    Formulas give the value that was saved with them. Haystack's `XLSXToDocument` gives rows without the names of their
    fields, and needs pandas for it.

    Usage example:
    ```python
    with open("stock.xlsx", "rb") as file:
        stock = ByteStream(file.read(), meta={"document_id": "stock"})
    documents = SheetsToDocument().run(sources=[stock])["documents"]
    ```
    """

    @component.output_types(documents=list[Document])
    def run(self, sources: list[ByteStream]) -> dict[str, list[Document]]:
        """
        Convert workbooks.

        :param sources: XLSX files.
        :returns: `documents`, one for each source.
        """
        return {
            "documents": [
                Document(content=_sheets(source.data), meta=dict(source.meta)) for source in sources
            ]
        }


def _csv_text(table: str) -> str:
    # The module refuses fields of more than 131,072 characters.
    csv.field_size_limit(max(csv.field_size_limit(), len(table)))
    return _text(csv.reader(io.StringIO(table, newline=""), delimiter=_delimiter(table)))


def _sheets(xlsx: bytes) -> str:
    workbook = openpyxl.load_workbook(io.BytesIO(xlsx), read_only=True, data_only=True)
    texts = []
    for sheet in workbook.worksheets:
        # What a sheet says of its size may be wrong, and one stray cell makes it 16,384 columns wide: rows are then
        # read as far as they have cells.
        sheet.reset_dimensions()
        text = _text([_cell(value) for value in row] for row in sheet.iter_rows(values_only=True))
        texts.append(f"# {sheet.title}\n\n{text}" if text else "")
    return "\f".join(texts)


def _cell(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    # A date is a time at midnight.
    return "" if value is None else str(value).removesuffix(" 00:00:00")


def _text(rows: Iterable[list[str]]) -> str:
    filled = (row for row in ([field.strip() for field in row] for row in rows) if any(row))
    first = next(filled, [])
    if not _is_header(first):
        return "\n".join(", ".join(filter(None, row)) for row in chain([first], filled))
    return "\n\n".join("\n".join(_fields(first, row)) for row in filled) or ", ".join(filter(None, first))


def _delimiter(table: str) -> str:
    """Choose the delimiter that cuts most of the first rows into the same number of fields, more than one."""
    lines = table[:20_000].splitlines()[:50]

    def evenness(delimiter: str) -> tuple[int, int]:
        widths = [len(row) for row in csv.reader(lines, delimiter=delimiter)]
        usual = max(set(widths), key=widths.count, default=1)
        return (widths.count(usual) if usual > 1 else 0), usual

    return max(_DELIMITERS, key=evenness)


def _is_header(row: list[str]) -> bool:
    there = [number for number, field in enumerate(row) if field]
    names = row[there[0] : there[-1] + 1] if there else []
    return len(set(names)) == len(names) > 1 and all(names) and not any(map(_NUMBER.fullmatch, names))


def _fields(names: list[str], row: list[str]) -> Iterator[str]:
    for number, field in enumerate(row):
        if field:
            name = names[number] if number < len(names) else ""
            yield f"{name or f'column {number + 1}'}: {field}"
