"""What Open WebUI shows besides an answer: what is being done, and the passages."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi.sse import format_sse_event
from hayhooks.events import PipelineEvent, create_status_event
from hayhooks.open_webui import create_source_event

from modes.recording import StreamEvent
from modes.results import Fallback, Grades, QueryResult, Rephrased, Retrieval, StandaloneQuestion
from serve.chat.wording import DocumentURL


def from_open_webui(headers: Mapping[str, str]) -> bool:
    """
    Tell whether a request comes from Open WebUI; other clients choke on its events.

    :param headers: the request's headers.
    :returns: whether one of them is `X-OpenWebUI-...`.
    """
    return any(name.lower().startswith("x-openwebui-") for name in headers)


class OpenWebUIEvents:
    """The events of one answer, in the form that Open WebUI reads between the chunks."""

    def of(self, event: StreamEvent) -> Iterator[bytes]:
        """
        Tell what happened.

        :param event: an event of a run.
        :returns: at most one event.
        """
        if status := _status(event):
            yield _encoded(create_status_event(status))

    def end(self, result: QueryResult, url: DocumentURL) -> Iterator[bytes]:
        """
        Tell what the answer stands on.

        :param result: the answer.
        :param url: gives the address of a document.
        :returns: a source for each passage in its order, since Open WebUI takes `[2]` for the second; then that all is
            done.
        """
        documents = result.documents if result.citations else []
        for number, document in enumerate(documents, start=1):
            title = f"[{number}] {document.title or document.document_id}"
            address = url(document.document_id)
            yield _encoded(
                create_source_event(
                    {
                        "source": {"id": document.chunk_id, "name": title, "url": address},
                        "document": [document.text],
                        "metadata": [{"source": address, "name": title, "document_id": document.document_id}],
                        **({} if document.score is None else {"distances": [document.score]}),
                    }
                )
            )
        count = len({citation.chunk_id for citation in result.citations})
        said = f"Answered from {_passages(count)}" if count else "The documents do not hold the answer"
        yield _encoded(create_status_event(said, done=True))


def _status(event: StreamEvent) -> str | None:
    match event.data:
        case StandaloneQuestion(query=query):
            return f"Asked: {query}"
        case Retrieval(documents=documents):
            return f"Found {_passages(len(documents))}"
        case Grades(grades=grades):
            kept = sum(grade.kept for grade in grades)
            return f"Graded {_passages(len(grades))}, kept {kept}"
        case Rephrased(query=query):
            return f"Searching again: {query}"
        case Fallback(mode=mode):
            return f"Answering in the mode {mode} instead"
    return None


def _passages(count: int) -> str:
    return "1 passage" if count == 1 else f"{count} passages"


def encoded(event: dict[str, Any]) -> bytes:
    """
    Write an event as Open WebUI reads it.

    :param event: the event of one of Hayhooks' helpers, as a dictionary.
    :returns: a server-sent event.
    """
    return format_sse_event(data_str=json.dumps({"event": event}, ensure_ascii=False))


def _encoded(event: PipelineEvent) -> bytes:
    return encoded(event.to_event_dict())
