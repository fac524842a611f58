"""Checking the marks of an answer while it is being written, as the answer builder will when it is whole."""

import asyncio

from haystack import Document

from components.citing import CitedText
from components.supporting import Sources
from modes.recording import StreamEvent
from modes.results import Grades, Retrieval, RetrievedDocument, StandaloneQuestion


class Marks:
    """
    Resolves the marks of a reply against the passages that a run has told of.

    A mark is sent once and for all, and a small model sets one in ten on the wrong passage. What the builder finds
    when it has the whole reply is the same but for rare cases, and in those the stream ends with the right answer.
    """

    def __init__(self, question: str) -> None:
        """
        Begin without passages.

        :param question: what was asked.
        """
        self._question = question
        self._passages: list[RetrievedDocument] = []
        self._sources: Sources | None = None

    async def hear(self, event: StreamEvent) -> None:
        """
        Take an event that tells of the question or the passages.

        :param event: any event of the run.
        """
        match event.data:
            case StandaloneQuestion(query=query):
                self._question = query
            case Retrieval(documents=documents):
                self._passages = documents
            case Grades(grades=grades):
                kept = {grade.chunk_id for grade in grades if grade.kept}
                self._passages = [passage for passage in self._passages if passage.chunk_id in kept]
            case _:
                return
        given = [Document(id=passage.chunk_id, content=passage.text) for passage in self._passages]
        self._sources = Sources(self._question, given)
        # Long passages take milliseconds to be taken apart. The model reads them meanwhile too.
        await asyncio.to_thread(self.checked, "Read [1]")

    def checked(self, reply: str) -> str:
        """
        Check what there is of a reply.

        :param reply: the reply so far, without an unfinished mark at its end.
        :returns: it with marks that name what supports them; as it is where no passages are known.
        """
        if self._sources is None or ("[" not in reply and "【" not in reply):
            return reply
        return CitedText(reply, self._sources).text
