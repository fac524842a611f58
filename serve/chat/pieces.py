"""A streamed answer as the pieces of one text, which ends up the same as without streaming."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from components.citing import read_apart, settled
from modes.recording import StreamEvent
from modes.results import QueryResult, Token
from serve.chat.marks import Marks
from serve.chat.requests import Asked
from serve.chat.wording import REPLACED, Reply, written, written_json


class AnswerText:
    """The text that a client has been sent so far."""

    def __init__(self, marks: Marks) -> None:
        """
        Begin with nothing sent.

        :param marks: checks the citations.
        """
        self.sent = ""
        self._marks = marks
        self._end = ""
        self._settled = 0
        self._sent_of_end = ""

    def piece(self, token: str) -> str:
        """
        Take what the model has written.

        :param token: the next piece of the model's reply.
        :returns: what can be sent now: all but an unfinished mark at its end, and words that only lead up to one.
        """
        self._end += token if self.sent or self._end else token.lstrip()
        kept = settled(self._end)
        piece = self._checked(kept, kept[self._settled :])
        self._settled = len(kept)
        self._sent_of_end += piece
        self.sent += piece
        self._let_go()
        return piece

    def _checked(self, kept: str, new: str) -> str:
        """Give what comes next of a reply's end, which has something new that can't change any more."""
        if "]" not in new and "】" not in new:
            return new
        blanks = kept[: len(kept) - len(kept.lstrip())]
        checked = blanks + self._marks.checked(kept)
        return checked[len(self._sent_of_end) :] if checked.startswith(self._sent_of_end) else new

    def _let_go(self) -> None:
        """Keep only what the next mark is checked with: a reply may be long, and is looked at for each token."""
        if begin := read_apart(self._end[: self._settled]):
            self._end = self._end[begin:]
            self._settled -= begin
            self._sent_of_end = self._end[: self._settled]

    def end(self, result: QueryResult) -> Reply:
        """
        Take the final answer.

        :param result: the answer, which may be another than the model's reply.
        :returns: the whole text, which begins with what was sent.
        """
        if result.answer.startswith(self.sent):
            return written(result)
        return written(result, self.sent + REPLACED)


async def pieces(
    events: AsyncGenerator[StreamEvent, None], asked: Asked
) -> AsyncGenerator[StreamEvent | str | Reply, None]:
    """
    Turn the events of a run into text.

    :param events: the events of a mode.
    :param asked: what was asked; an answer that is to be JSON comes in one piece.
    :returns: pieces of the text, the events in between that are none, and last the whole reply.
    """
    marks = Marks(asked.question)
    text = AnswerText(marks)
    async with aclosing(events):
        async for event in events:
            if isinstance(event.data, QueryResult):
                reply = written_json(event.data) if asked.json else text.end(event.data)
                if rest := (reply.text or "")[len(text.sent) :]:
                    yield rest
                yield reply
            elif not isinstance(event.data, Token):
                if asked.checked:
                    await marks.hear(event)
                yield event
            elif not asked.json and (piece := text.piece(event.data.text)):
                yield piece
