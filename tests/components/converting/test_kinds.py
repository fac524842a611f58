"""Telling what kind of file a source is, and sending it the right way."""

import pytest
from haystack.dataclasses import ByteStream

from components.converting.errors import EmptySourceError, SourceError
from components.converting.kinds import KINDS
from components.converting.routing import SourceRouter
from tests.file_samples import docx_file, pdf_file, pptx_file, xlsx_file

FILES = {
    "docx": docx_file(("Normal", "Hello")),
    "pptx": pptx_file(("Hello", "there")),
    "xlsx": xlsx_file(One=[["a", "b"], [1, 2]]),
    "pdf": pdf_file("Hello"),
    "html": b"\n<!-- a page --><!DOCTYPE html><html><p>Hello",
    "text": b"Hello",
}


def routed(data: bytes, name: str = "", mime_type: str | None = None) -> tuple[str, ByteStream]:
    """Give the kind that a source was taken for, and what went to that kind's converter."""
    source = ByteStream(data, {"document_id": "a", "source": name}, mime_type)
    outputs = SourceRouter().run(sources=[source])
    assert outputs.pop("sources") == [source]
    [(kind, [stream])] = outputs.items()
    assert stream.meta == source.meta
    assert stream.mime_type == KINDS[kind].media_type
    return kind, stream


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize(
    "name", ["", "blob", "file.bin", "notes.txt", "../../etc/passwd", "ü b.TXT", "x" * 300]
)
def test_content_tells_the_kind(kind: str, name: str) -> None:
    """A file goes where its content belongs, whatever its name and declared type."""
    assert routed(FILES[kind], name, "image/png")[0] == kind


@pytest.mark.parametrize(
    ("name", "mime_type", "kind"),
    [
        ("a.md", None, "markdown"),
        ("A.MARKDOWN", "text/plain", "markdown"),
        ("a.rst", None, "text"),
        ("a.csv", "application/vnd.ms-excel", "csv"),
        ("a.jsonl", None, "json"),
        ("a.htm", None, "html"),
        ("", "text/markdown; charset=utf-8", "markdown"),
        ("a", "application/json", "json"),
        ("a.xyz", "application/octet-stream", "text"),
        ("a", "application/pdf", "text"),
    ],
)
def test_a_name_or_type_tells_kinds_of_text_apart(name: str, mime_type: str | None, kind: str) -> None:
    """What can't be told by content is told by the name, else by the declared type, else it is plain text."""
    assert routed(b"Hello, there", name, mime_type)[0] == kind


@pytest.mark.parametrize(
    ("data", "name", "reason"),
    [
        (b"plain", "a.pdf", "its name says pdf, but its content is not"),
        (b"plain", "a.docx", "its name says docx, but its content is not"),
        (FILES["pdf"], "a.docx", "its name says docx, but its content is pdf"),
        (FILES["xlsx"], "a.docx", "its name says docx, but its content is xlsx"),
        (FILES["pdf"][:-40], "a.pdf", "incomplete"),
        (FILES["docx"][:-200], "a.docx", "incomplete"),
        (b"\x89PNG\r\n\x1a\n" + bytes(30), "a.txt", "image/png.*docx, pptx, xlsx"),
        (b"PK\x03\x04" + bytes(30) + b"PK\x05\x06" + bytes(18), "a.zip", "ZIP archive"),
        (b"{\\rtf1 hello}", "a.rtf", "RTF"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "a.doc", "old Office file"),
        (
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le"),
            "a.docx",
            "password needed",
        ),
    ],
)
def test_what_can_not_be_read_is_refused_with_the_reason(data: bytes, name: str, reason: str) -> None:
    """A file that is damaged, or of a kind that is not read, or not what its name says is refused in plain words."""
    with pytest.raises(SourceError, match=reason):
        routed(data, name)


@pytest.mark.parametrize("data", [b"", b" \r\n\t"])
def test_an_empty_file_is_told_apart(data: bytes) -> None:
    """There is nothing wrong with an empty file, but nothing to index in it either."""
    with pytest.raises(EmptySourceError, match="no text"):
        routed(data, "a.txt")


def test_text_comes_out_as_utf_8_with_plain_line_ends() -> None:
    """Converters need not know of encodings, byte order marks and line ends."""
    assert routed("Ä\r\nb\rc".encode("utf-16"), "a.txt")[1].data == "Ä\nb\nc".encode()


def test_front_matter_is_no_text() -> None:
    """The block of settings that some Markdown begins with is left out; a rule at the beginning is not such a block."""
    assert routed(b"---\ntitle: A\ntags:\n  - b\n---\n# Hello\n", "a.md")[1].data == b"# Hello\n"
    assert routed(b"---\nHello there\n---\n", "a.md")[1].data == b"---\nHello there\n---\n"
