"""HTML, Word documents and presentations as text."""

import io

import docx
import pptx
import pytest
from docx.oxml import parse_xml
from haystack.dataclasses import ByteStream
from pptx.util import Inches

from components.converting.html_pages import HTMLPageToDocument
from components.converting.office import OutlinedDOCXToDocument, SlidesToDocument
from tests.file_samples import docx_file, pptx_file

WORD = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
MATH = 'xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math"'


def html_text(page: str) -> str:
    """Convert a page."""
    return HTMLPageToDocument().run(sources=[ByteStream(page.encode())])["documents"][0].content or ""


def test_a_page_keeps_its_structure() -> None:
    """Headings, items, rows and code are written so that they can be told from other text."""
    page = """<html><head><title>T</title><style>p {}</style></head><body><nav>Menu</nav><h1>Hours<a class="headerlink"
        href="#">¶</a></h1><p>Open <b>all</b>\n day.<br>Ring twice.</p><ul><li>Mon<li>Tue</ul><table><tr><td>Room<td>
        B-117</table><pre>a  b\n# c</pre><script>x()</script><p hidden>no</p></body></html>"""
    assert html_text(page) == (
        "# Hours\n\nOpen all day.\nRing twice.\n\n- Mon\n- Tue\n\nRoom | B-117 |\n\n```\na  b\n# c\n```"
    )


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<html><head><title>Broken page<style>p{}</style><body><h1>Hours<p>Nine", "# Hours\n\nNine"),
        ("<p>Seen <!-- closed --> too<!-- never closed <p>hidden", "Seen too"),
        ("<p>Tom &amp; Jerry&nbsp;&euro;&#x30;&bogus;", "Tom & Jerry €0&bogus;"),
        ('<?xml version="1.0" encoding="latin-1"?><html><body><p>Größe</p></body></html>', "Größe"),
        ("<div>" * 50_000 + "deep" + "</div>" * 50_000 + "<p>after", "deep\n\nafter"),
        ("<script>document.write('x')</script><div></div>", ""),
        ("<p>Only <b>this", "Only this"),
    ],
)
def test_a_broken_page_is_read_as_far_as_it_goes(page: str, text: str) -> None:
    """What is never closed takes nothing else with it, and scripts are never text."""
    assert html_text(page) == text


def docx_text(file: bytes) -> str:
    """Convert a Word document."""
    return OutlinedDOCXToDocument().run(sources=[ByteStream(file)])["documents"][0].content or ""


def test_headings_of_a_word_document_are_marked() -> None:
    """Headings get as many `#` as their level; the title is one of the first level."""
    file = docx_file(("Title", "Guide"), ("Heading 2", "Hours"), ("Normal", "Nine to five."))
    assert docx_text(file) == "# Guide\n## Hours\nNine to five."


def test_what_word_wraps_is_not_lost() -> None:
    """Text in content controls, insertions, formulas and tables is there."""
    document = docx.Document()
    body = document.element.body
    wrapped = "<w:sdtContent><w:p><w:r><w:t>in a control</w:t></w:r></w:p></w:sdtContent>"
    control = f"<w:sdt {WORD}><w:sdtPr/>{wrapped}</w:sdt>"
    inserted = f'<w:p {WORD}><w:ins w:id="1" w:author="a"><w:r><w:t>inserted</w:t></w:r></w:ins></w:p>'
    formula = f"<w:p {WORD} {MATH}><m:oMath><m:r><m:t>E=</m:t></m:r><m:r><m:t>mc</m:t></m:r></m:oMath></w:p>"
    for number, part in enumerate((control, inserted, formula)):
        body.insert(number, parse_xml(part))
    table = document.add_table(1, 2)
    table.cell(0, 0).text, table.cell(0, 1).text = "Room", "B-117"
    file = io.BytesIO()
    document.save(file)
    assert docx_text(file.getvalue()) == "in a control\ninserted\nE=mc\nRoom,B-117"


def test_each_slide_is_a_page() -> None:
    """A slide's title is a heading; tables, groups and notes are there too."""
    presentation = pptx.Presentation(io.BytesIO(pptx_file(("One", "first"), ("Two", "second"))))
    slide = presentation.slides[1]
    slide.shapes.add_table(1, 2, 0, 0, Inches(2), Inches(1)).table.cell(0, 1).text = "B-117"
    slide.shapes.add_group_shape().shapes.add_textbox(0, 0, 100, 100).text_frame.text = "grouped"
    slide.notes_slide.notes_text_frame.text = "say hello"
    file = io.BytesIO()
    presentation.save(file)
    [document] = SlidesToDocument().run(sources=[ByteStream(file.getvalue())])["documents"]
    assert document.content == "# One\n\nfirst\f# Two\n\nsecond\n\n | B-117\n\ngrouped\n\nsay hello"
