"""What kind of file a source is, from its first and last bytes; its name counts only where they say nothing."""

from dataclasses import dataclass
from pathlib import PurePosixPath

import filetype
from haystack.dataclasses import ByteStream

from components.converting.errors import SourceError


@dataclass(frozen=True)
class Kind:
    """A kind of file that can be read: its output socket, its media type, and how names of such files end."""

    name: str
    media_type: str
    suffixes: tuple[str, ...]
    is_text: bool = True


_OFFICE = "application/vnd.openxmlformats-officedocument."
KINDS = {
    kind.name: kind
    for kind in (
        Kind("text", "text/plain", (".txt", ".text", ".rst", ".log")),
        Kind("markdown", "text/markdown", (".md", ".markdown", ".mkd", ".mdx")),
        Kind("html", "text/html", (".html", ".htm", ".xhtml")),
        Kind("csv", "text/csv", (".csv", ".tsv")),
        Kind("json", "application/json", (".json", ".jsonl", ".ndjson")),
        Kind("pdf", "application/pdf", (".pdf",), is_text=False),
        Kind("docx", f"{_OFFICE}wordprocessingml.document", (".docx", ".docm"), is_text=False),
        Kind("pptx", f"{_OFFICE}presentationml.presentation", (".pptx", ".pptm"), is_text=False),
        Kind("xlsx", f"{_OFFICE}spreadsheetml.sheet", (".xlsx", ".xlsm"), is_text=False),
    )
}
READ = "txt, md, rst, html, csv, json, jsonl, pdf, docx, pptx, xlsx"

_BY_SUFFIX = {suffix: kind for kind in KINDS.values() for suffix in kind.suffixes}
_BY_MEDIA_TYPE = {kind.media_type: kind for kind in KINDS.values()} | {
    "text/x-markdown": KINDS["markdown"],
    "application/xhtml+xml": KINDS["html"],
    "text/tab-separated-values": KINDS["csv"],
    "application/x-ndjson": KINDS["json"],
    "application/jsonl": KINDS["json"],
}
# The part that every file of the kind has; member names are not compressed in a ZIP archive.
_OFFICE_PARTS = {"docx": b"word/document", "pptx": b"ppt/presentation", "xlsx": b"xl/workbook.xml"}
_ZIP, _ZIP_END = b"PK\x03\x04", b"PK\x05\x06"
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_HTML_STARTS = (b"<!doctype html", b"<html", b"<head", b"<body")
_SKIPPED_BEFORE_HTML = b"\xef\xbb\xbf \t\r\n"


def kind_of(source: ByteStream) -> Kind:
    """
    Say what kind of file a source is.

    :param source: its bytes, with the file's name as `source` in its metadata and the declared type as `mime_type`.
    :returns: the kind; `text` for all that looks like text and says no more.
    :raises SourceError: if it is of a kind that is not read, is cut off, or is not what its name says.
    """
    name = str(source.meta.get("source") or "")
    named = _BY_SUFFIX.get(PurePosixPath(name.lower()).suffix)
    found = _binary_kind(source.data, named)
    if named is not None and not named.is_text and found is not named:
        what = f"is {found.name}" if found else "is not"
        raise SourceError(f"cannot be read: its name says {named.name}, but its content {what}")
    if found is not None:
        return found
    if _looks_like_html(source.data) and (named is None or named.name == "text"):
        return KINDS["html"]
    declared = _BY_MEDIA_TYPE.get((source.mime_type or "").partition(";")[0].strip().lower(), KINDS["text"])
    return named or (declared if declared.is_text else KINDS["text"])


def _binary_kind(data: bytes, named: Kind | None) -> Kind | None:
    """Tell a kind by its magic number; None for what may be text."""
    # Readers look for both ends of a PDF in its first and last kilobyte; what is before or after is noise.
    if b"%PDF-" in data[:1024] and not data.startswith((_ZIP, _OLE)):
        if b"%%EOF" not in data[-4096:]:
            raise SourceError("cannot be read: it is incomplete, the end of the PDF is missing")
        return KINDS["pdf"]
    if data.startswith(_ZIP):
        return _office_kind(data, named)
    if data.startswith(_OLE):
        raise SourceError(_of_ole(data))
    if data.startswith(b"{\\rtf"):
        raise SourceError(f"is an RTF file, which is not read; these are: {READ}")
    guessed = filetype.guess(data[:8192])
    if guessed is not None:
        raise SourceError(
            f"is no text but a binary file ({guessed.mime}), which is not read; these are: {READ}"
        )
    return None


def _office_kind(data: bytes, named: Kind | None) -> Kind:
    there = [name for name, part in _OFFICE_PARTS.items() if part in data]
    if _ZIP_END not in data[-70_000:]:
        raise SourceError("cannot be read: it is incomplete, the end of the file is missing")
    if not there:
        raise SourceError(f"is a ZIP archive or a file of a kind that is not read; these are: {READ}")
    return named if named is not None and named.name in there else KINDS[there[0]]


def _of_ole(data: bytes) -> str:
    if "EncryptedPackage".encode("utf-16-le") in data:
        return "is protected by a password: password needed; remove the password and send the file again"
    return f"is an old Office file (doc, xls, ppt or msg), which is not read; save it as one of: {READ}"


def _looks_like_html(data: bytes) -> bool:
    begin = data[:1024].lstrip(_SKIPPED_BEFORE_HTML).lower()
    if begin.startswith((b"<?xml", b"<!--")):
        begin = begin.partition(b">")[2].lstrip(_SKIPPED_BEFORE_HTML)
    return begin.startswith(_HTML_STARTS)
