"""HTML becomes text with Markdown's headings, lists and code."""

import re
from collections.abc import Mapping

from haystack import Document, component
from haystack.dataclasses import ByteStream
from lxml import etree

_UNSEEN = {
    "head",
    "script",
    "style",
    "template",
    "noscript",
    "svg",
    "math",
    "iframe",
    "object",
    "nav",
    "select",
}
_BREAKS = {
    *(
        "address",
        "article",
        "aside",
        "blockquote",
        "body",
        "caption",
        "center",
        "dd",
        "details",
        "div",
        "dl",
        "dt",
    ),
    *(
        "fieldset",
        "figcaption",
        "figure",
        "footer",
        "form",
        "header",
        "hr",
        "html",
        "legend",
        "li",
        "main",
        "ol",
        "p",
    ),
    *("pre", "section", "summary", "table", "tbody", "tfoot", "thead", "tr", "ul"),
}
_PARAGRAPHS = {
    "p",
    "table",
    "ul",
    "ol",
    "dl",
    "pre",
    "blockquote",
    "section",
    "article",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
}
_VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_BLANKS = re.compile(r"[ \t\r\n\f\xa0]+")
_TITLE, _TITLE_END = re.compile(rb"<title[^>]*>[^<]*", re.IGNORECASE), re.compile(rb"</title", re.IGNORECASE)


@component
class HTMLPageToDocument:
    """
    Gives what a reader of a page sees, from its first word to its last, without scripts, styles and navigation.

    Headings are written as in Markdown, items with a dash, rows of tables with bars between the cells, and code in
    fences. Haystack's `HTMLToDocument` guesses which part of a page matters, and loses headings and broken pages.

    Usage example:
    ```python
    page = ByteStream(b"<h1>Hours</h1><p>Nine to five", meta={"document_id": "hours"})
    HTMLPageToDocument().run(sources=[page])["documents"][0].content  # "# Hours\\n\\nNine to five"
    ```
    """

    @component.output_types(documents=list[Document])
    def run(self, sources: list[ByteStream]) -> dict[str, list[Document]]:
        """
        Convert pages.

        :param sources: HTML in UTF-8.
        :returns: `documents`, one for each source.
        """
        return {
            "documents": [Document(content=_text(source.data), meta=dict(source.meta)) for source in sources]
        }


def _text(html: bytes) -> str:
    parser = etree.HTMLParser(target=_Reader(), encoding="utf-8")
    parser.feed(_closed(html))
    return str(parser.close())


def _closed(html: bytes) -> bytes:
    """End what would take all the rest of a page for a part of itself because it is never closed."""
    if (begin := html.find(b"<!--", html.rfind(b"-->") + 1)) >= 0:
        html = html[:begin]
    if (title := _TITLE.search(html)) and not _TITLE_END.search(html, title.end()):
        html = html[: title.end()] + b"</title>" + html[title.end() :]
    return html


class _Reader:
    """Hears of each tag and text, and writes."""

    def __init__(self) -> None:
        self._written: list[str] = []
        self._newlines = 2
        self._unseen = 0
        self._fence = 0
        self._blank = False

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        """Begin an element."""
        if tag in _VOID and not self._unseen:
            if tag in ("br", "hr"):
                self._write("\n") if self._fence else self._break(1)
            return
        if self._unseen or tag in _UNSEEN or _is_unseen(attributes):
            self._unseen += tag not in _VOID
            return
        self._begin_block(tag)

    def end(self, tag: str) -> None:
        """End an element."""
        if tag in _VOID:
            return
        if self._unseen:
            self._unseen -= 1
            return
        if tag == "pre" and self._fence:
            self._break(1)
            self._fence -= 1
            self._write("```")
        if tag in ("td", "th"):
            self._write(" |")
        self._break(2 if tag in _PARAGRAPHS or tag in _HEADINGS else 1 if tag in _BREAKS else 0)

    def data(self, text: str) -> None:
        """Write text."""
        if self._unseen:
            return
        if self._fence:
            self._write(text)
            return
        for number, word in enumerate(_BLANKS.split(text)):
            self._blank = self._blank or number > 0
            if word:
                self._write(f" {word}" if self._blank and not self._newlines else word)
                self._blank = False

    def close(self) -> str:
        """Give all that was written."""
        return "".join(self._written).strip()

    def _begin_block(self, tag: str) -> None:
        self._break(2 if tag in _PARAGRAPHS or tag in _HEADINGS else 1 if tag in _BREAKS else 0)
        if tag in _HEADINGS:
            self._write("#" * _HEADINGS[tag] + " ")
        elif tag == "li":
            self._write("- ")
        elif tag == "pre":
            self._write("```\n")
            self._fence += 1
        elif tag in ("td", "th"):
            self._blank = not self._newlines

    def _break(self, newlines: int) -> None:
        if newlines > self._newlines:
            self._written.append("\n" * (newlines - self._newlines))
            self._newlines = newlines
        if newlines:
            self._blank = False

    def _write(self, text: str) -> None:
        self._written.append(text)
        rest = text.rstrip("\n")
        self._newlines = len(text) - len(rest) + (0 if rest else self._newlines)


def _is_unseen(attributes: Mapping[str, str]) -> bool:
    return (
        "hidden" in attributes
        or attributes.get("aria-hidden") == "true"
        or attributes.get("role") == "navigation"
        or "headerlink" in attributes.get("class", "")
    )
