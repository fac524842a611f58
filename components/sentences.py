"""Where the sentences of a text begin and end: plain prose, markdown, tables, code, most scripts."""

import re
from collections.abc import Iterator

Span = tuple[int, int]

MAX_SENTENCE_CHARS = 600
# A line that reaches this far without a full stop was probably wrapped: the sentence goes on.
WRAPPED_LINE_CHARS = 45
# Thai and its neighbours end no sentence with a mark: a blank after this many characters has to do.
UNMARKED_SENTENCE_CHARS = 120

# Before a blank these are no full stop.
_ABBREVIATIONS = """
    mr mrs ms dr prof st sr jr vs etc al fig figs eq no nos vol pp ed eds inc ltd co corp dept gen col
    sgt capt lt rev hon gov sen rep approx ca cf e.g i.e a.m p.m u.s u.k ph.d jan feb mar apr jun jul
    aug sep sept oct nov dec z.b bzw ca nr str usw d.h sra srta ud uds pág núm г гг в вв н.э др т.е т.д
"""
ABBREVIATIONS = frozenset(_ABBREVIATIONS.split())

BLOCK_START = re.compile(
    r"[ \t]*(?:[-*+•◦▪–]\s|\d{1,3}[.)]\s|[a-zA-Z][.)]\s|#{1,6}\s|>|\||```|~~~|={3}|-{3})"
)
# A mark that ends a sentence, with the quotes and brackets that close behind it. A run of marks is looked at once, from
# its beginning: a table of contents may have ten thousand dots before a page's number.
END_MARK = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’»)\]]*+(?=\s)|[。！？｡]+[”’」』）】]*|[؟۔।॥]+[\"'”’»)\]]*")
LAST_WORD = re.compile(r"[^\s(\[\"'“‘«]+$")
_NO_MARKS = r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]"
THAI_BLANK = re.compile(rf"(?<={_NO_MARKS})\s+(?={_NO_MARKS})")


def split_sentences(text: str, max_chars: int = MAX_SENTENCE_CHARS) -> list[Span]:
    """
    Splits a text into sentences.

    ### Usage example
    ```python
    text = "Dr. Gray went home. Did she?"
    [text[start:end] for start, end in split_sentences(text)]  # ['Dr. Gray went home.', 'Did she?']
    ```

    :param text: Any text. Headings, list items, table rows and lines of code count as sentences.
    :param max_chars: What is longer is cut, at a blank or comma where there is one.
    :returns: Start and end of each sentence, in order, without the blanks around it.
    """
    spans = (
        piece
        for block in _blocks(text)
        for sentence in _sentences(text, *block)
        for piece in _pieces(text, *sentence, max_chars)
    )
    return [span for span in spans if span[0] < span[1]]


def _blocks(text: str) -> Iterator[Span]:
    # Joins lines that were only wrapped.
    start = end = 0
    in_code = False
    previous = ""
    for match in re.finditer(r"[^\n]*\n?", text):
        line = match.group()
        fence = line.lstrip().startswith(("```", "~~~"))
        if start < end and (in_code or fence or _begins_block(previous, line)):
            yield start, end
            start = end
        in_code ^= fence
        end = match.end()
        previous = line
    yield start, end


def _begins_block(previous: str, line: str) -> bool:
    previous = previous.rstrip()
    if not previous or not line.strip() or BLOCK_START.match(line):
        return True
    if previous.lstrip().startswith(("#", "|")):
        return True
    return len(previous) < WRAPPED_LINE_CHARS and not line.lstrip()[:1].islower()


def _sentences(text: str, start: int, end: int) -> Iterator[Span]:
    for match in END_MARK.finditer(text, start, end):
        if _ends_sentence(text, start, match):
            yield start, match.end()
            start = match.end()
    yield start, end


def _ends_sentence(text: str, start: int, match: re.Match[str]) -> bool:
    if not match.group().startswith("."):
        return True
    following = text[match.end() : match.end() + 40].lstrip()
    if following[:1].islower():
        return False
    if len(match.group()) > 1:
        return True
    before = LAST_WORD.search(text, max(start, match.start() - 40), match.start())
    word = before.group() if before else ""
    if word.isdigit():  # "1. First point" opens a list item; "in 1999. Then" ends a sentence
        return bool(text[start : match.start() - len(word)].strip())
    initial = len(word) == 1 and word.isupper()
    return not initial and word.lower() not in ABBREVIATIONS


def _pieces(text: str, start: int, end: int, max_chars: int) -> Iterator[Span]:
    start, end = _strip(text, start, end)
    for match in THAI_BLANK.finditer(text, start, end):
        if match.start() - start >= UNMARKED_SENTENCE_CHARS:
            yield start, match.start()
            start = match.end()
    while end - start > max_chars:
        cut = _cut(text, start, start + max_chars)
        yield _strip(text, start, cut)
        start = _strip(text, cut, end)[0]
    yield start, end


def _cut(text: str, start: int, limit: int) -> int:
    for marks in (";；", ",，、", " \n\t"):
        cut = max(text.rfind(mark, start + (limit - start) // 2, limit) for mark in marks)
        if cut > 0:
            return cut + 1
    return limit


def _strip(text: str, start: int, end: int) -> Span:
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end
