"""Files of every kind, made when a test wants them, good and malicious."""

import io
import zipfile
import zlib
from collections.abc import Iterable

import docx
import openpyxl
import pptx

_PAGE = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents %d 0 R/Resources<</Font<</F1 3 0 R>>>>>>"


def docx_file(*paragraphs: tuple[str, str]) -> bytes:
    """A Word document of (style, text)."""
    document = docx.Document()
    for style, text in paragraphs:
        document.add_paragraph(text, style)
    return _saved(document)


def pptx_file(*slides: tuple[str, str]) -> bytes:
    """A presentation of (title, text)."""
    presentation = pptx.Presentation()
    for title, text in slides:
        slide = presentation.slides.add_slide(presentation.slide_layouts[1])
        slide.shapes.title.text, slide.placeholders[1].text = title, text
    return _saved(presentation)


def xlsx_file(**sheets: list[list[object]]) -> bytes:
    """A workbook of sheets by name."""
    workbook = openpyxl.Workbook()
    workbook.remove(workbook.active)
    for name, rows in sheets.items():
        sheet = workbook.create_sheet(name)
        for row in rows:
            sheet.append(row)
    return _saved(workbook)


def pdf_file(*pages: str) -> bytes:
    """A PDF with a line of text on each page; none on those that are empty."""
    drawn = (b"BT /F1 12 Tf 20 700 Td (%s) Tj ET" % page.encode("latin-1") if page else b"" for page in pages)
    return pdf_of_streams(zlib.compress(stream) for stream in drawn)


def pdf_of_streams(streams: Iterable[bytes]) -> bytes:
    """A PDF whose pages are these compressed streams."""
    contents = list(streams)
    kids = b" ".join(b"%d 0 R" % (4 + 2 * number) for number in range(len(contents)))
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[%s]/Count %d>>" % (kids, len(contents)),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    for number, stream in enumerate(contents):
        objects.append(_PAGE % (5 + 2 * number))
        objects.append(b"<</Length %d/Filter/FlateDecode>>\nstream\n%s\nendstream" % (len(stream), stream))
    return _pdf(objects)


def docx_bomb(megabytes: int) -> bytes:
    """A Word document that unpacks to far more than it is."""
    packed = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(docx_file(("Normal", "x")))) as good,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in good.namelist():
            before, body, after = good.read(name).partition(b"<w:body>")
            with bomb.open(name, "w") as member:
                member.write(before + body)
                for _ in range(megabytes if name == "word/document.xml" else 0):
                    member.write(b"<w:p><w:r><w:t>" + b"a" * (1 << 20) + b"</w:t></w:r></w:p>")
                member.write(after)
    return packed.getvalue()


def _pdf(objects: list[bytes]) -> bytes:
    written, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(written))
        written += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return (
        written
        + b"xref\n0 %d\n0000000000 65535 f \n%strailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n"
        % (
            len(objects) + 1,
            table,
            len(objects) + 1,
            len(written),
        )
    )


def _saved(document: object) -> bytes:
    buffer = io.BytesIO()
    document.save(buffer)  # type: ignore[attr-defined]
    return buffer.getvalue()
