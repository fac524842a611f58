"""Where a text has its headings and pages."""

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

_LEVELS = 6
_TITLE_CHARS = 100
_SHIFT_CHARS = 300
_ATX = re.compile(r" {0,3}(#{1,6})[ \t]+(\S.*)")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_UNDERLINE = re.compile(r"([=\-~^\"'`*+#.:_])\1{2,}[ \t]*")
_MAY_HAVE_HEADINGS = re.compile(r"^ {0,3}(?:#{1,6}[ \t]|([=\-~^\"'`*+#.:_])\1{2,}[ \t]*$)", re.MULTILINE)
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_ATTRIBUTES = re.compile(r"[ \t]*\{[^{}]*\}[ \t]*$|[ \t]+#+[ \t]*$")
_MARKS = re.compile(r"[*`]+|¶")
_BLANK = " \t\r\n\f\v\xa0"
_NO_TITLE = tuple("-*+>|#=`~")


@dataclass(frozen=True)
class Heading:
    """A heading: from where to where it is in the text, its level from 1, and what it says."""

    start: int
    end: int
    level: int
    title: str


class Outline:
    """
    The headings and page breaks of a text.

    Usage example:
    ```python
    outline = Outline("# Hours\\n\\nNine to five.\\n\\n## Sunday\\n\\nClosed.", hashes=True)
    outline.section(9)  # "Hours"
    outline.section(35)  # "Hours > Sunday"
    ```
    """

    def __init__(self, text: str, hashes: bool) -> None:
        """
        Read a text.

        :param text: the text.
        :param hashes: whether `#` begins a heading, as in Markdown, and not a comment or a command.
        """
        self._text = text
        self._headings = list(_headings(text, hashes)) if _MAY_HAVE_HEADINGS.search(text) else []
        self._starts = [heading.start for heading in self._headings]
        self._ends = [heading.end for heading in self._headings]
        self._sections = list(_sections(self._headings))
        self._breaks = [match.start() for match in re.finditer("\f", text)] if "\f" in text else []

    @property
    def pages(self) -> int:
        """How many pages there are; 1 when there is no page break."""
        return len(self._breaks) + 1

    @property
    def title(self) -> str:
        """What the first heading of level 1 says; empty when there is none."""
        return next((heading.title for heading in self._headings if heading.level == 1), "")

    def page(self, offset: int) -> int:
        """
        Give the page of a place.

        :param offset: the place in the text.
        :returns: the page, from 1.
        """
        return bisect_left(self._breaks, offset) + 1

    def section(self, offset: int) -> str:
        """
        Give the headings that a place stands under.

        :param offset: the place in the text; one in a heading stands under it.
        :returns: them, outermost first, with ` > ` between; empty before the first heading.
        """
        number = bisect_right(self._starts, offset)
        return self._sections[number - 1] if number else ""

    def sections(self, start: int, end: int) -> list[tuple[int, str]]:
        """
        Give the sections that begin in a piece.

        :param start: where the piece begins.
        :param end: where it ends.
        :returns: the place of each heading and what `section` gives from there on.
        """
        first, behind = bisect_left(self._starts, start), bisect_left(self._starts, end)
        return list(zip(self._starts[first:behind], self._sections[first:behind], strict=True))

    def first_text(self, start: int, end: int) -> int:
        """
        Find where a piece begins to say something.

        :param start: where the piece begins.
        :param end: where it ends.
        :returns: the first place that is neither blank nor in a heading; the piece's last heading, when it has nothing
            else.
        """
        place = self._not_blank(start, end)
        number = bisect_right(self._ends, start)
        while number < len(self._headings) and self._headings[number].start <= place < end:
            following = self._not_blank(self._headings[number].end, end)
            if following >= end:
                return max(self._headings[number].start, start)
            place = following
            number += 1
        return place

    def cut(self, offset: int) -> int:
        """
        Move a cut to where nothing is torn: not into a character, nor between a heading and its text.

        :param offset: where the cut is.
        :returns: the place at or before it where it should be.
        """
        if not 0 < offset < len(self._text):
            return offset
        moved = offset
        while moved > 0 and offset - moved < _SHIFT_CHARS and _joins(self._text, moved):
            moved -= 1
        moved = self._before_headings(moved)
        return moved if offset - moved < _SHIFT_CHARS else offset

    def _before_headings(self, offset: int) -> int:
        number, least = bisect_left(self._starts, offset), offset - _SHIFT_CHARS
        while number > 0 and self._headings[number - 1].start > least:
            heading = self._headings[number - 1]
            if heading.end < offset and self._not_blank(heading.end, offset) < offset:
                break
            offset = heading.start
            number -= 1
        return offset

    def _not_blank(self, start: int, end: int) -> int:
        while start < end and self._text[start] in _BLANK:
            start += 1
        return start


def _headings(text: str, hashes: bool) -> Iterator[Heading]:
    fence = ""
    styles: list[str] = ["=", "-"] if hashes else []
    before = last = ""
    start = last_start = 0
    for line in text.splitlines(keepends=True):
        bare = line.rstrip(_BLANK)
        end = start + len(bare)
        if opened := _FENCE.match(bare):
            mark = opened[1]
            if not fence:
                fence = mark
            elif mark.startswith(fence) and bare.strip() == mark:
                fence = ""
        elif not fence and hashes and (found := _ATX.match(bare)):
            yield Heading(start, end, len(found[1]), _title(found[2]))
        elif not fence and _underlines(bare, last, before, hashes):
            if bare[0] not in styles:
                styles.append(bare[0])
            yield Heading(last_start, end, min(styles.index(bare[0]) + 1, _LEVELS), _title(last))
        before, last, last_start = last, bare.strip() if not fence else "", start
        start += len(line)


def _sections(headings: list[Heading]) -> Iterator[str]:
    path: list[Heading] = []
    for heading in headings:
        while path and path[-1].level >= heading.level:
            path.pop()
        path.append(heading)
        yield " > ".join(above.title for above in path)


def _underlines(line: str, title: str, before: str, markdown: bool) -> bool:
    """Say whether a line underlines the one before as a heading, as in reStructuredText and Markdown."""
    if (
        not title
        or len(title) > _TITLE_CHARS
        or not _UNDERLINE.fullmatch(line)
        or title.startswith(_NO_TITLE)
    ):
        return False
    overline = bool(_UNDERLINE.fullmatch(before)) and before[0] == line[0]
    if before and not overline:
        return False
    wide = len(line) >= sum(1 + (unicodedata.east_asian_width(character) in "WF") for character in title)
    return wide or (markdown and line[0] == "=")


def _title(text: str) -> str:
    text = _LINK.sub(r"\1", _ATTRIBUTES.sub("", text))
    return " ".join(_MARKS.sub("", text).replace(" > ", " ").split())[:_TITLE_CHARS]


def _joins(text: str, offset: int) -> bool:
    """Say whether what stands before and after a place is one character to a reader."""
    after, before = text[offset], text[offset - 1]
    if after < "\u0300" and before < "\u0300":
        return before == "\r" and after == "\n"
    return (
        unicodedata.category(after)[0] == "M"
        or after in "\u200d\u0e33\u0eb3"
        or before == "\u200d"
        or "\U0001f3fb" <= after <= "\U0001f3ff"
        or "\U000e0020" <= after <= "\U000e007f"
        # A virama (combining class 9) joins Indic consonants; vowel and final signs join a Hangul syllable.
        or (unicodedata.combining(before) == 9 and after.isalpha())
        or ("\u1160" <= after <= "\u11ff" and "\u1100" <= before <= "\u11ff")
        or _splits_flag(text, offset)
    )


def _splits_flag(text: str, offset: int) -> bool:
    letters = 0
    while letters < min(offset, _SHIFT_CHARS) and "\U0001f1e6" <= text[offset - letters - 1] <= "\U0001f1ff":
        letters += 1
    return letters % 2 == 1 and "\U0001f1e6" <= text[offset] <= "\U0001f1ff"
