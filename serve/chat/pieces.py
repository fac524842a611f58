"""A streamed answer as the pieces of one text, which ends up the same as without streaming."""

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing

from modes.recording import StreamEvent
from modes.results import QueryResult, Token
from serve.chat.wording import Reply, written, written_json

REPLACED = "\n\nA check against the documents has changed this answer. The answer is:\n\n"
# A citation's mark that is not closed yet, and blanks, which an answer does not end with.
_UNFINISHED = re.compile(r"\s*(?:\[[\^\d\s,;–-]{0,40})?\Z")


class AnswerText:
    """The text that a client has been sent so far."""

    def __init__(self) -> None:
        """Begin with nothing sent."""
        self.sent = ""
        self._held = ""

    def piece(self, token: str) -> str:
        """
        Take what the model has written.

        :param token: the next piece of the model's reply.
        :returns: what can be sent now: all but an unfinished mark at its end.
        """
        text = self._held + token
        if not self.sent:
            text = text.lstrip()
        unfinished = _UNFINISHED.search(text)
        end = unfinished.start() if unfinished else len(text)
        self._held = text[end:]
        self.sent += text[:end]
        return text[:end]

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
    events: AsyncGenerator[StreamEvent, None], json: bool
) -> AsyncGenerator[StreamEvent | str | Reply, None]:
    """
    Turn the events of a run into text.

    :param events: the events of a mode.
    :param json: whether the answer is to be JSON and nothing else; it comes in one piece.
    :returns: pieces of the text, the events in between that are none, and last the whole reply.
    """
    text = AnswerText()
    async with aclosing(events):
        async for event in events:
            if isinstance(event.data, QueryResult):
                reply = written_json(event.data) if json else text.end(event.data)
                if rest := (reply.text or "")[len(text.sent) :]:
                    yield rest
                yield reply
            elif not isinstance(event.data, Token):
                yield event
            elif not json and (piece := text.piece(event.data.text)):
                yield piece
