"""Tables and JSON as text."""

import io
import time

import openpyxl
import pytest
from haystack.dataclasses import ByteStream

from components.converting.errors import SourceError
from components.converting.json_records import JSONRecordsToDocument
from components.converting.routing import NOTE_META
from components.converting.tables import CSVRecordsToDocument, SheetsToDocument
from tests.file_samples import xlsx_file


def csv_text(table: str) -> str:
    """Convert a table."""
    return CSVRecordsToDocument().run(sources=[ByteStream(table.encode())])["documents"][0].content or ""


def json_text(text: str) -> tuple[str, str | None]:
    """Convert JSON, and give the note with the text."""
    document = JSONRecordsToDocument().run(sources=[ByteStream(text.encode())])["documents"][0]
    return document.content or "", document.meta.get(NOTE_META)


def test_each_row_names_its_fields() -> None:
    """Rows become paragraphs; fields keep their commas, quotes and line ends; ragged rows lose nothing."""
    table = 'id,name,notes\r\n1,"Meer, J.","one\ntwo, three"\r\n\r\n2,"O""Neil",""\r\n3,x,y,extra\r\n'
    meer, neil, ragged = csv_text(table).split("\n\n")
    assert meer == "id: 1\nname: Meer, J.\nnotes: one\ntwo, three"
    assert neil == 'id: 2\nname: O"Neil'
    assert ragged == "id: 3\nname: x\nnotes: y\ncolumn 4: extra"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(delimiter: str) -> None:
    """Commas, semicolons, tabs and bars divide fields, even where numbers hold the others."""
    assert csv_text(f"town{delimiter}people\nKöln{delimiter}1.073\n") == "town: Köln\npeople: 1.073"


def test_a_table_without_a_header_keeps_its_first_row() -> None:
    """A first row with numbers is no header."""
    assert csv_text("1,Ann\n2,Bob\n") == "1, Ann\n2, Bob"


def test_a_huge_field_is_a_field() -> None:
    """Fields may be longer than Python's own limit."""
    assert len(csv_text("name,text\nx," + "a" * 200_000)) > 200_000


def test_each_sheet_is_a_page() -> None:
    """A workbook gives a page with a heading for each sheet, also for one that is empty."""
    file = xlsx_file(Stock=[["item", "count"], ["bolt", 3.0], ["nut", None]], Empty=[], More=[["x"]])
    [document] = SheetsToDocument().run(sources=[ByteStream(file)])["documents"]
    assert document.content == "# Stock\n\nitem: bolt\ncount: 3\n\nitem: nut\f\f# More\n\nx"


def test_a_sheet_with_a_cell_in_its_last_corner_is_read_at_once() -> None:
    """Only cells that are there cost anything, not the 17 billion around them."""
    workbook = openpyxl.Workbook()
    workbook.active["A1"], workbook.active["XFD1048576"] = "first", "last"
    file = io.BytesIO()
    workbook.save(file)
    begin = time.process_time()
    [document] = SheetsToDocument().run(sources=[ByteStream(file.getvalue())])["documents"]
    assert document.content == "# Sheet\n\nfirst\nlast"
    assert time.process_time() - begin < 10


def test_objects_become_paragraphs() -> None:
    """Keys stand before values, nested ones with their path, and lists of objects under their key as heading."""
    text, note = json_text(
        '{"name": "x", "at": {"city": "Ulm"}, "tags": ["a", "b"], "in": {"rows": [{"n": 1}, {"n": 2}]}}'
    )
    assert text == "name: x\nat.city: Ulm\ntags: a, b\n\n# in.rows\n\nn: 1\n\nn: 2"
    assert note is None


def test_odd_values_stay_as_written() -> None:
    """Doubled keys, NaN, numbers too large for a float, and lone surrogates come out as valid text."""
    text, _ = json_text('{"a": 1, "a": 2, "n": NaN, "big": 1e400, "s": "\\ud800", "t": true, "z": null}')
    assert text == "a: 1\na: 2\nn: NaN\nbig: 1e400\ns: \ufffd\nt: true"
    assert json_text("9" * 5_000)[0] == "9" * 5_000


def test_good_lines_are_kept_and_bad_ones_named() -> None:
    """In JSON Lines, a line that is no JSON is left out with a note."""
    text, note = json_text('{"a": 1}\nnot json\n{"a": 3}\n\n[4]\n')
    assert text == "a: 1\n\na: 3\n\n4"
    assert note == "1 of 4 lines are no JSON and were left out: line 2"


@pytest.mark.parametrize("text", ['{"a": [1, 2', '[\n{"a": 1},\n{"b": 2,\n]\n', "hello", '{"a": 1} x'])
def test_broken_json_is_refused(text: str) -> None:
    """What is neither JSON nor JSON Lines is refused with the place of the fault."""
    with pytest.raises(SourceError, match=r"no valid JSON: .* line \d"):
        json_text(text)


@pytest.mark.parametrize("depth", [150, 20_000, 200_000])
@pytest.mark.parametrize("bracket", ["[]", '{"a":'])
def test_deep_nesting_is_refused(depth: int, bracket: str) -> None:
    """However deep JSON is nested, the answer is an error that says so."""
    text = "[" * depth + "]" * depth if bracket == "[]" else '{"a":' * depth + "1" + "}" * depth
    with pytest.raises(SourceError, match="nested more than 100 levels"):
        json_text(text)
