"""The pieces of a streamed answer add up to the answer that is given without a stream."""

import asyncio
import re
from collections.abc import AsyncGenerator

import pytest

from modes.recording import StreamEvent
from modes.results import Grade, Grades, QueryResult, Retrieval, RetrievedDocument, Token
from serve.chat.marks import Marks
from serve.chat.pieces import AnswerText, pieces
from serve.chat.requests import Asked
from serve.chat.wording import REPLACED, Reply

TOWER = RetrievedDocument(chunk_id="t", document_id="tower", text="The tower is 330 metres tall.")
LAKE = RetrievedDocument(chunk_id="l", document_id="lake", text="The lake is 63 kilometres long.")


def told(*tokens: str, answer: str, passages: list[RetrievedDocument]) -> list[StreamEvent | str | Reply]:
    """What a client is told of a run with these tokens."""

    async def events() -> AsyncGenerator[StreamEvent, None]:
        yield StreamEvent("retrieval", Retrieval(documents=passages))
        for token in tokens:
            yield StreamEvent("token", Token(text=token))
        yield StreamEvent("result", QueryResult(mode="standard", answer=answer))

    async def collected() -> list[StreamEvent | str | Reply]:
        return [part async for part in pieces(events(), Asked("How?", [], {}, "text", checked=True))]

    return asyncio.run(collected())


@pytest.mark.parametrize(
    ("tokens", "sent"),
    [
        (["It is tall", " [", "1", "]", "."], ["It is tall", " [1]", "."]),
        (["It", " is [1", ", 2] tall"], ["It", " is", " [1] tall"]),
        (["  It", " is ", "tall.\n"], ["It", " is", " tall."]),
        (["A list: [x] and [", "y]"], ["A list: [x] and", " [y]"]),
        (["It is tall 【", "1†source】."], ["It is tall", " [1]."]),
        (["It is tall", ", as sta", "ted in", " passage [1]", "."], ["It is tall", " [1]", "."]),
        (["It is tall", ", as", " trees are"], ["It is tall", ", as trees are"]),
        (["Tall. The passage", " says so."], ["Tall.", " The passage says so."]),
    ],
)
def test_only_an_unfinished_mark_is_held_back(tokens: list[str], sent: list[str]) -> None:
    """Words go out as they come; a mark waits until it is whole, and blanks until something follows."""
    marks = Marks("How tall?")
    asyncio.run(marks.hear(StreamEvent("retrieval", Retrieval(documents=[TOWER, LAKE]))))
    text = AnswerText(marks)
    assert [piece for token in tokens if (piece := text.piece(token))] == sent


def test_a_mark_on_the_wrong_passage_is_put_right_on_its_way() -> None:
    """A mark goes out as the check of the whole answer will leave it."""
    *parts, reply = told(
        "The tower is 330 metres ",
        "tall [",
        "2]",
        ".",
        answer="The tower is 330 metres tall [1].",
        passages=[TOWER, LAKE],
    )
    assert isinstance(reply, Reply)
    text = "".join(part for part in parts if isinstance(part, str))
    assert text == reply.text == "The tower is 330 metres tall [1]."


def test_marks_count_the_passages_that_were_kept() -> None:
    """After grading, `[1]` is the first of the passages that went on to the answer."""
    marks = Marks("How long is the lake?")
    asyncio.run(marks.hear(StreamEvent("retrieval", Retrieval(documents=[TOWER, LAKE]))))
    grades = [
        Grade(chunk_id="t", document_id="tower", label="INCORRECT", score=0.1, kept=False),
        Grade(chunk_id="l", document_id="lake", label="CORRECT", score=0.9, kept=True),
    ]
    asyncio.run(marks.hear(StreamEvent("grades", Grades(grades=grades))))
    assert marks.checked("The lake is 63 kilometres long [1].") == "The lake is 63 kilometres long [1]."
    assert marks.checked("The lake is 63 kilometres long [2].") == "The lake is 63 kilometres long."


def test_what_the_check_adds_follows() -> None:
    """An answer that goes on where the model ended is completed, without a word about it."""
    *parts, reply = told("It is tall.", answer="It is tall. [1]", passages=[])
    assert isinstance(reply, Reply)
    assert [part for part in parts if isinstance(part, str)] == ["It is tall.", " [1]"]
    assert reply.text == "It is tall. [1]"


def test_an_answer_that_was_replaced_follows_what_was_sent() -> None:
    """When other words are the answer, the stream says so and gives them."""
    *parts, reply = told("The passages do not say.", answer="The documents do not hold it.", passages=[])
    assert isinstance(reply, Reply)
    text = "".join(part for part in parts if isinstance(part, str))
    assert text == reply.text == f"The passages do not say.{REPLACED}The documents do not hold it."


def test_a_reply_without_tokens_comes_in_one_piece() -> None:
    """A mode that tells no tokens streams its answer too."""
    *parts, reply = told(answer="The documents do not hold it.", passages=[])
    assert isinstance(reply, Reply)
    assert [part for part in parts if isinstance(part, str)] == ["The documents do not hold it."]


def test_code_with_brackets_is_sent_as_it_is() -> None:
    """What looks like a mark inside code goes out as the model wrote it."""
    answer = "Take `a[1]` of the list."
    tokens = re.findall(r"\S+\s*", answer)
    *parts, _ = told(*tokens, answer=answer, passages=[TOWER])
    assert "".join(part for part in parts if isinstance(part, str)) == answer


def test_of_a_long_answer_only_the_end_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mark is checked with the words it vouches for, not with all that was written before."""
    marks = Marks("How tall is the tower?")
    asyncio.run(marks.hear(StreamEvent("retrieval", Retrieval(documents=[TOWER, LAKE]))))
    read: list[int] = []
    checked = marks.checked
    monkeypatch.setattr(marks, "checked", lambda reply: (read.append(len(reply)), checked(reply))[1])
    sentence = "The tower is 330 metres tall [2]. "
    text = AnswerText(marks)
    sent = "".join(text.piece(token) for token in re.findall(r"\S+\s*", 100 * sentence))
    assert sent == (100 * sentence.replace("[2]", "[1]")).strip()
    assert len(read) == 100
    assert max(read) <= len(sentence) + 2
