"""A streamed answer as the pieces of one text, which ends up the same as without streaming."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from components.citing import settled
from modes.recording import StreamEvent
from modes.results import QueryResult, Token
from serve.chat.marks import Marks
from serve.chat.requests import Asked
from serve.chat.wording import Reply, written, written_json

REPLACED = "\n\nA check against the documents has changed this answer. The answer is:\n\n"


class AnswerText:
    """The text that a client has been sent so far."""

    def __init__(self, marks: Marks) -> None:
        """
        Begin with nothing sent.

        :param marks: checks the citations.
        """
        self.sent = ""
        self._marks = marks
        self._reply = ""
        self._told = 0

    def piece(self, token: str) -> str:
        """
        Take what the model has written.

        :param token: the next piece of the model's reply.
        :returns: what can be sent now: all but an unfinished mark at its end, and words that only lead up to one.
        """
        self._reply = (self._reply + token).lstrip()
        kept = settled(self._reply)
        checked = self._marks.checked(kept)
        piece = (checked if checked.startswith(self.sent) else self.sent + kept[self._told :])[
            len(self.sent) :
        ]
        self._told = len(kept)
        self.sent += piece
        return piece

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
