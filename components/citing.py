"""From a model's reply to an answer whose citations name what they stand on."""

import asyncio
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Any

from haystack import Document, component
from haystack.dataclasses import ChatMessage

from components.models.errors import ModelRequestError
from components.refusing import is_refusal
from components.supporting import Sources

CANNOT_ANSWER = "The documents do not hold the answer to this question."

# No pattern here begins with a repetition, nor has two behind each other that take the same characters: models
# write, and callers send back, a hundred thousand blanks, and each of those would be tried with each other one.
# [1]  [1, 2]  [1-3]  [^1]  【1】 ; not a link's text: [1](...)
_NUMBERS = r"\^?\s*\d{1,4}(?:\s*(?:,|;|-|–|and)\s*\^?\d{1,4})*"
_MARKER = re.compile(rf"\[({_NUMBERS})\s*\](?!\()|【({_NUMBERS})[^】\d]*】")
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.S)
_RANGE = re.compile(r"(\d+)\s*[-–]\s*\^?(\d+)|(\d+)")
# Words that only lead up to a mark: "The passage is [1]", ", as mentioned in [2]".
_FILLER = re.compile(
    r"(?:(?<=[.!?])\s+(?:the|this) (?:passage|source|answer) (?:is|is in|comes from)(?: passage)?"
    r"|,? as (?:mentioned|stated|described) in(?: passage)?)\s+(?=\[\d+\])",
    re.IGNORECASE,
)
_FILLERS = (
    *(
        f" {which} {what} {leads}{where}"
        for which in ("the", "this")
        for what in ("passage", "source", "answer")
        for leads in ("is", "is in", "comes from")
        for where in ("", " passage")
    ),
    *(
        f"{comma} as {told} in{where}"
        for comma in (",", "")
        for told in ("mentioned", "stated", "described")
        for where in ("", " passage")
    ),
)
_LONGEST_END = 200
_LONGEST_FILLER = max(map(len, _FILLERS))
_LEAD_INS = {filler[:length] for filler in _FILLERS for length in range(1, len(filler) + 1)}
# A mark that is not closed yet, and blanks, which an answer does not end with.
_UNFINISHED = re.compile(r"\s*(?:\[[\^\d\s,;–-]{0,40}|【[^】\n]{0,40})?\Z")
# What stands behind a subscript and not behind a citation.
_GOES_ON = re.compile(r"\s*=[^=]|\[[^\W\d]|\.\w|\(")
_LEADING_MARKS = re.compile(rf"\A(?:\s*(?:{_MARKER.pattern}))*[\s.,;:-]*")
# "[1] It is tall. [2] It is old.": marks before what they vouch for, and none at the end.
_LEADING_STYLE = re.compile(rf"(?s:[\s*-]*(?:{_MARKER.pattern}).*[^\s\]】.)])[.)]?")
_CLAIM_CHARS = 600
_AROUND_CLAIM = " .,;:-*()\t"

# A citation moves to a chunk that fits the claim by so much better: a small model names the wrong passage for
# one answer in four, though it took the words from the right one.
_CLEARLY_BETTER = 0.1
# Unless it brings this share of the claim, which that chunk lacks: an answer may stand on two passages.
_ADDS = 0.2
# Measured with the 1.5B model: below it fell 8 of 12 answers to questions that the documents do not answer,
# and of the answerable 0 of 25 (structured) and 3 of 30 (free text, two of them wrong answers).
MIN_CONFIDENCE = 0.5
# An answer counts as supported when a chunk holds this share of what it says.
_SUPPORTED = 0.5
# So much text is read in 5 ms when it was never read before; a thread would cost as much as it saves.
_QUICKLY_READ_CHARS = 8_000


class CitedText:
    """
    A reply taken apart: its text with the marks that name something given, and the marks' claims.

    :param reply: The model's reply.
    :param sources: The chunks that were given.
    """

    def __init__(self, reply: str, sources: Sources) -> None:
        self.sources = sources
        self.removed = 0
        self.claims: dict[int, str] = {}
        self.text, self.bare = self._read(_FILLER.sub(" ", reply))

    def _read(self, reply: str) -> tuple[str, str]:
        """Resolve the marks; gives the text with those that count, and without any."""
        text, bare, claim = "", "", ""
        leading = _LEADING_STYLE.fullmatch(reply.strip()) is not None
        done = 0
        subscript_end = -1
        for match in _marks_outside_code(reply):
            if match.start() == subscript_end or self._is_subscript(reply, match):
                subscript_end = match.end()
                continue
            before = "" if leading else reply[done : match.start()]
            # A mark right behind another one vouches for the same words.
            if leading or not claim or before.strip(_AROUND_CLAIM):
                claim = _claim(before, reply[match.end() : match.end() + _CLAIM_CHARS]) or claim
            marks = "".join(f"[{chunk + 1}]" for chunk in self.cite(_expand(match[1] or match[2]), claim))
            before = reply[done : match.start()]
            text += (before if marks else before.rstrip(" \t")) + marks
            bare += before.rstrip(" \t")
            done = match.end()
        return (text + reply[done:]).strip(), (bare + reply[done:]).strip()

    def _is_subscript(self, reply: str, match: re.Match[str]) -> bool:
        """Tell `a[0]` of a program or of the chunk's own text from a citation glued to a word."""
        name = _name_before(reply, match)
        if not name:
            return False
        return _goes_on(reply, match) or match[0] == "[0]" or self.sources.holds(name + match[0])

    @property
    def refused(self) -> bool:
        """Whether there is no answer. What a chunk says is one, even 'the documents do not hold it'."""
        return not self.bare or (is_refusal(self.bare) and not self.sources.says(self.bare))

    def cite(self, numbers: list[int], claim: str) -> list[int]:
        """
        Resolve the numbers of a mark; count those that name nothing given.

        :param numbers: Passage numbers, from 1.
        :param claim: What they vouch for.
        :returns: The places in the documents of the chunks that count as cited.
        """
        kept: list[int] = []
        for number in numbers:
            if not self.sources.has(number - 1):
                self.removed += 1
                continue
            chunk = self._corrected(number - 1, claim)
            if chunk not in kept:
                kept.append(chunk)
            self.claims[chunk] = f"{self.claims[chunk]} {claim}" if chunk in self.claims else claim
        return kept

    def _corrected(self, chunk: int, claim: str) -> int:
        """Give the chunk that was meant: another one where this one lacks the claim and that one has it."""
        if not claim:
            return chunk
        best = self.sources.best(claim)
        better = self.sources.fit(claim, best) - self.sources.fit(claim, chunk)
        if better < _CLEARLY_BETTER or self.sources.added(claim, chunk, best) >= _ADDS:
            return chunk
        return best

    def attribute(self) -> None:
        """Add a citation to an answer that has none, if a chunk supports it."""
        if self.claims:
            return
        chunk = self.sources.best(self.bare)
        if self.sources.support(self.bare, chunk) >= _SUPPORTED:
            self.claims[chunk] = self.bare
            self.text = f"{self.text} [{chunk + 1}]"

    def attribute_each(self, claims: Iterable[str]) -> None:
        """
        Add a citation for each claim that a chunk supports, to data that have none.

        :param claims: Parts of the data; one that no chunk supports, such as a rating, leaves the others theirs.
        """
        if self.claims:
            return
        for claim in claims:
            chunk = self.sources.best(claim)
            if self.sources.support(claim, chunk) >= _SUPPORTED:
                self.cite([chunk + 1], claim)

    @property
    def support(self) -> float:
        """How far the cited chunks hold what the answer says, 0 to 1."""
        return self.sources.support(self.bare, *self.claims) if self.claims else 0.0

    def confidence(self, probability: float | None = None) -> float:
        """
        Measure how far the answer can be trusted.

        A small model's own number is worth nothing: it writes 1, whatever it answers. Answers that are right
        and those that should not have been given are told apart by where they come from.

        :param probability: How probable the model held its answer's tokens, where that is known.
        :returns: From 0 to 1: the geometric mean of that probability, of how far the cited chunks hold the
            answer, and of how much of the question they speak of.
        """
        if not self.claims:
            return 0.0
        grounding = max(self.sources.grounding(chunk) for chunk in self.claims)
        parts = self.support * grounding * (1.0 if probability is None else probability)
        return round(parts ** (1 / 3), 3)

    def citations(self) -> list[dict[str, Any]]:
        """
        Describe the cited chunks.

        :returns: One citation for each cited chunk, in the order of first use.
        """
        return [self.sources.citation(chunk, claim or self.bare) for chunk, claim in self.claims.items()]


def without_markers(text: str) -> str:
    """
    Take the citation marks out of a text.

    :param text: An answer.
    :returns: The answer without marks such as [1].
    """
    kept, done = [], 0
    for match in _MARKER.finditer(text):
        kept.append(text[done : match.start()].rstrip(" \t"))
        done = match.end()
    return "".join([*kept, text[done:]]).strip()


def citation_marks(answer: str) -> Iterator[tuple[int, int, int]]:
    """
    Find the citation marks of a checked answer.

    :param answer: An answer, whose marks all have the form `[n]`.
    :returns: The number, the start and the end of each mark; what looks like one in code is none.
    """
    for match in _marks_outside_code(answer):
        if match[0][1:-1].isdigit() and not (_name_before(answer, match) and _goes_on(answer, match)):
            yield int(match[0][1:-1]), match.start(), match.end()


def _marks_outside_code(text: str) -> Iterator[re.Match[str]]:
    code = [place for match in _CODE.finditer(text) for place in match.span()]
    return (match for match in _MARKER.finditer(text) if bisect_right(code, match.start()) % 2 == 0)


def _name_before(text: str, mark: re.Match[str]) -> str:
    """Give the name that a mark is glued to, as a subscript would be."""
    name = re.search(r"[\w)]+$", text[max(mark.start() - 80, 0) : mark.start()])
    return name[0] if name and mark[0].startswith("[") else ""


def _goes_on(text: str, mark: re.Match[str]) -> bool:
    return _GOES_ON.match(text, mark.end()) is not None


def settled(reply: str) -> str:
    """
    Give the part of a reply that is still being written of which the end can't change any more.

    :param reply: The reply so far.
    :returns: It without an unfinished mark at its end, and without words that may turn out to lead up to a mark.
    """
    # Of a long reply only the end is looked at: this is done for each of its tokens.
    before, end = reply[:-_LONGEST_END], reply[-_LONGEST_END:]
    marked = before + _UNFINISHED.sub("", end)
    tail = re.sub(r"\s", " ", marked[-_LONGEST_FILLER:]).lower()
    for start in range(len(tail)):
        if tail[start:] in _LEAD_INS:
            return marked[: len(marked) - len(tail) + start]
    return marked


def read_apart(reply: str) -> int:
    """
    Tell from where on the marks of a reply can be read without what stands before.

    :param reply: The reply so far, as `settled` gives it.
    :returns: The end of its last mark, once text follows that one; 0 where there is none, or in code.
    """
    end = max(reply.rfind("]"), reply.rfind("】")) + 1
    followed = reply[end:].strip(_AROUND_CLAIM + "\n")
    return end if followed and reply.count("`", 0, end) % 2 == 0 else 0


def _expand(numbers: str) -> list[int]:
    """Give the numbers of a mark; a range counts in full, unless it is absurd."""
    found: list[int] = []
    for first, last, single in _RANGE.findall(numbers):
        if single:
            found.append(int(single))
        elif 0 <= int(last) - int(first) <= 20:
            found += range(int(first), int(last) + 1)
        else:
            found += [int(first), int(last)]
    return found


def _claim(before: str, after: str) -> str:
    """Give what a mark vouches for: its paragraph back to the mark before, or what follows up to the next mark."""
    claim = before.rstrip().rpartition("\n")[2].strip(_AROUND_CLAIM)
    if claim:
        return without_markers(claim)
    behind = _LEADING_MARKS.sub("", after, count=1)
    following = _MARKER.search(behind)
    return behind[: following.start() if following else None].strip(_AROUND_CLAIM)


@component
class CitedAnswerBuilder:
    """
    Builds an answer with checked citations from a model's reply.

    Marks that name no given document are removed and counted. A mark on the wrong chunk is moved to the
    chunk that holds the claim. A reply without marks gets the one of the chunk that supports it, if one does.

    ### Usage example

    ```python
    from haystack import Document
    from haystack.dataclasses import ChatMessage
    from components.citing import CitedAnswerBuilder

    tower = Document(content="The tower is 90 m tall.", meta={"document_id": "tower", "start": 0})
    reply = ChatMessage.from_assistant("It is 90 m tall [1].")
    result = CitedAnswerBuilder().run(replies=[reply], documents=[tower], query="How tall is the tower?")
    print(result["citations"][0]["quote"])  # The tower is 90 m tall.
    ```
    """

    def __init__(self, min_confidence: float = MIN_CONFIDENCE) -> None:
        """
        Create the builder.

        :param min_confidence: An answer with less confidence is not given: the fixed sentence takes its
            place. 0 gives every answer that the model gave.
        """
        self.min_confidence = min_confidence

    @component.output_types(
        answer=str,
        citations=list[dict[str, Any]],
        removed_citations=int,
        cannot_answer=bool,
        supported=bool,
        confidence=float,
        usage=dict[str, Any],
        model=str,
    )
    def run(self, replies: list[ChatMessage], documents: list[Document], query: str) -> dict[str, Any]:
        """
        Check a reply and resolve its citations.

        :param replies: The model's replies; the first one counts. Empty when there was nothing to ask.
        :param documents: The chunks that the prompt showed as [1], [2], ...
        :param query: The question.
        :returns: A dictionary with `answer` (with marks of `citations` only), `citations` in order of first
            use,
            `removed_citations` (marks that named nothing given), `cannot_answer` (then the answer is the
            fixed sentence), `supported` (a chunk holds what the answer says), `confidence` (how far, 0 to
            1), `usage` and `model`.
        :raises ModelRequestError: If the model was asked and its reply has no text.
        """
        reply = replies[0] if replies else None
        meta = reply.meta if reply else {}
        told: dict[str, Any] = {"usage": dict(meta.get("usage") or {}), "model": str(meta.get("model") or "")}
        if reply is None or not documents:
            return {**no_answer(), **told}
        text = reply.text or ""
        if not text.strip():
            # It says nothing about the documents: they may well hold the answer.
            raise ModelRequestError("the language model gave an empty reply")
        cited = CitedText(text, Sources(query, documents))
        told["removed_citations"] = cited.removed
        cited.attribute()
        confidence = cited.confidence()
        if cited.refused or confidence < self.min_confidence:
            return {**no_answer(), "confidence": 0.0 if cited.refused else confidence, **told}
        return {
            "answer": cited.text,
            "citations": cited.citations(),
            "cannot_answer": False,
            "supported": cited.support >= _SUPPORTED,
            "confidence": confidence,
            **told,
        }

    @component.output_types(
        answer=str,
        citations=list[dict[str, Any]],
        removed_citations=int,
        cannot_answer=bool,
        supported=bool,
        confidence=float,
        usage=dict[str, Any],
        model=str,
    )
    async def run_async(
        self, replies: list[ChatMessage], documents: list[Document], query: str
    ) -> dict[str, Any]:
        """
        Check a reply and resolve its citations; in a thread when there is so much text that it takes a while.

        :param replies: The model's replies.
        :param documents: The chunks that the prompt showed.
        :param query: The question.
        :returns: As `run`.
        :raises ModelRequestError: As `run`.
        """
        texts = [*(document.content for document in documents), *(reply.text for reply in replies)]
        if sum(len(text or "") for text in texts) <= _QUICKLY_READ_CHARS:
            return self.run(replies, documents, query)
        return await asyncio.to_thread(self.run, replies, documents, query)


def no_answer() -> dict[str, Any]:
    """
    Give the result of a question that the documents do not answer.

    :returns: The fixed sentence, no citations, `cannot_answer` true, confidence 0.
    """
    return {
        "answer": CANNOT_ANSWER,
        "citations": [],
        "removed_citations": 0,
        "cannot_answer": True,
        "supported": False,
        "confidence": 0.0,
    }
