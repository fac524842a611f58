"""Word documents and presentations become text, with what Haystack's converters would leave out."""

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from docx import Document as open_docx
from docx.oxml import OxmlElement
from haystack import Document, component
from haystack.components.converters import DOCXToDocument
from haystack.dataclasses import ByteStream
from pptx import Presentation

_WORD = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_MATH = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
# What wraps runs and paragraphs, whose text python-docx does not see: content controls, insertions, smart tags.
_WRAPPERS = (f"{_WORD}sdt", f"{_WORD}sdtContent", f"{_WORD}ins", f"{_WORD}moveTo", f"{_WORD}smartTag")
_WRAPPERS_OWN = (f"{_WORD}sdtPr", f"{_WORD}sdtEndPr", f"{_WORD}smartTagPr")


@component
class OutlinedDOCXToDocument:
    """
    Haystack's `DOCXToDocument`, with headings marked as in Markdown (`## Opening hours`).

    It would also leave out what stands in content controls, in insertions that nobody has accepted yet, and in
    formulas: that is made plain text before.

    Usage example:
    ```python
    with open("report.docx", "rb") as file:
        report = ByteStream(file.read(), meta={"document_id": "report"})
    documents = OutlinedDOCXToDocument(table_format="csv").run(sources=[report])["documents"]
    ```
    """

    def __init__(self, table_format: str = "csv", link_format: str = "none") -> None:
        """
        Create a converter.

        :param table_format: `csv` or `markdown`.
        :param link_format: `none`, `plain` or `markdown`.
        """
        self.converter = DOCXToDocument(table_format=table_format, link_format=link_format)

    @component.output_types(documents=list[Document])
    def run(self, sources: list[ByteStream]) -> dict[str, list[Document]]:
        """
        Convert Word documents.

        :param sources: the documents.
        :returns: `documents`, one for each source.
        """
        plain: list[str | Path | ByteStream] = [
            ByteStream(_made_plain(source.data), source.meta, source.mime_type) for source in sources
        ]
        documents: list[Document] = self.converter.run(sources=plain)["documents"]
        return {"documents": documents}


def _made_plain(docx: bytes) -> bytes:
    document = open_docx(io.BytesIO(docx))
    body = document.element.body
    for formula in list(body.iter(f"{_MATH}oMath")):
        _replace(formula, [_run("".join(text.text or "" for text in formula.iter(f"{_MATH}t")))])
    for own in list(body.iter(*_WRAPPERS_OWN)):
        own.getparent().remove(own)
    for wrapper in list(body.iter(*_WRAPPERS)):
        _replace(wrapper, list(wrapper))
    for paragraph in document.paragraphs:
        level = _level(paragraph)
        if level and paragraph.text.strip():
            place = 1 if paragraph._p.pPr is not None else 0
            paragraph._p.insert(place, _run("#" * level + " "))
    changed = io.BytesIO()
    document.save(changed)
    return changed.getvalue()


def _replace(element: Any, others: list[Any]) -> None:
    parent = element.getparent()
    place = parent.index(element)
    parent[place : place + 1] = others


def _run(text: str) -> Any:
    run = OxmlElement("w:r")
    run.text = text
    return run


def _level(paragraph: Any) -> int:
    """Give the level of a heading; 0 for what is none."""
    style = paragraph.style
    for _ in range(10):
        if style is None:
            return 0
        if style.name == "Title":
            return 1
        kind, _, number = (style.name or "").partition(" ")
        if kind == "Heading" and number.isdigit():
            return min(int(number), 6)
        style = style.base_style
    return 0


@component
class SlidesToDocument:
    """
    Gives the text of each slide: its title as a heading, then all else, tables, groups and speaker's notes too.

    Slides are divided by page breaks. Haystack's `PPTXToDocument` leaves out tables, groups and notes.

    Usage example:
    ```python
    with open("talk.pptx", "rb") as file:
        talk = ByteStream(file.read(), meta={"document_id": "talk"})
    documents = SlidesToDocument().run(sources=[talk])["documents"]
    ```
    """

    @component.output_types(documents=list[Document])
    def run(self, sources: list[ByteStream]) -> dict[str, list[Document]]:
        """
        Convert presentations.

        :param sources: the presentations.
        :returns: `documents`, one for each source.
        """
        return {
            "documents": [
                Document(content=_slides(source.data), meta=dict(source.meta)) for source in sources
            ]
        }


def _slides(pptx: bytes) -> str:
    return "\f".join(_slide(slide) for slide in Presentation(io.BytesIO(pptx)).slides)


def _slide(slide: Any) -> str:
    title = slide.shapes.title
    texts = (
        [f"# {' '.join(title.text_frame.text.split())}"] if title and title.text_frame.text.strip() else []
    )
    texts += _texts(shape for shape in slide.shapes if title is None or shape.shape_id != title.shape_id)
    if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
        texts.append(slide.notes_slide.notes_text_frame.text)
    return "\n\n".join(text.replace("\v", "\n") for text in texts if text.strip())


def _texts(shapes: Iterable[Any]) -> Iterator[str]:
    for shape in shapes:
        if hasattr(shape, "shapes"):
            yield from _texts(shape.shapes)
        elif getattr(shape, "has_table", False) and shape.has_table:
            yield "\n".join(" | ".join(cell.text for cell in row.cells) for row in shape.table.rows)
        elif shape.has_text_frame:
            yield shape.text_frame.text
