"""The tools' results as text, for a language model to read and a person to check."""

from modes.recording import StreamEvent
from modes.results import Fallback, Grades, QueryResult, Rephrased, Retrieval, RetrievedDocument
from serve.chat.wording import source_list
from serve.ingestion_schemas import DocumentList
from serve.jobs import Job, JobStatus


def answer_text(result: QueryResult) -> str:
    """
    Write an answer with its sources.

    :param result: what a mode gave.
    :returns: the answer, and below it a line for each citation with the words that it rests on.
    """
    return result.answer + source_list(result.citations)


def search_text(found: Retrieval) -> str:
    """
    Write what a search found.

    :param found: the chunks.
    :returns: each with its place and score.
    """
    if not found.documents:
        return "Nothing was found."
    return "\n\n".join(_chunk(number, chunk) for number, chunk in enumerate(found.documents, 1))


def documents_text(page: DocumentList) -> str:
    """
    Write a list of documents.

    :param page: the documents.
    :returns: a line for each, and how to get more.
    """
    lines = [
        f"{item.document_id}: {item.title or 'without a title'}, {_counted(item.chunks, 'chunk')}"
        for item in page.items
    ]
    if page.next is not None:
        lines.append(f"There are more: call again with the cursor {page.next}")
    return "\n".join(lines) or "There are no documents."


def job_text(job: Job) -> str:
    """
    Write what became of a text that was to be ingested.

    :param job: its job.
    :returns: that, or how to learn it later.
    """
    source = job.sources[0] if job.sources else None
    if not job.status.finished or source is None:
        return (
            f"The text was accepted as job {job.job_id}, which is {job.status.value} still. No crash loses it; "
            "list_documents shows the document when it is indexed."
        )
    why = source.reason or job.error
    reason = f" ({why})" if why else ""
    if job.status is JobStatus.DONE:
        return f"Document {source.document_id}: {source.status.value}{reason}, {_counted(source.chunks, 'chunk')}."
    return f"Document {source.document_id} was not indexed: the job {job.status.value}{reason}."


def progress_text(event: StreamEvent) -> str | None:
    """
    Say what a mode does, to somebody who waits for its answer.

    :param event: what happened.
    :returns: a few words; None for what is not worth them.
    """
    match event.data:
        case Retrieval(documents=documents):
            return f"found {_counted(len(documents), 'chunk')}"
        case Grades(grades=grades):
            return f"kept {sum(grade.kept for grade in grades)} of {_counted(len(grades), 'chunk')}"
        case Rephrased(query=query):
            return f"searching again: {query}"
        case Fallback(mode=mode):
            return f"answering in the mode {mode} instead"
        case _:
            return None


def _chunk(number: int, chunk: RetrievedDocument) -> str:
    parts = (
        chunk.title,
        f"page {chunk.page}" if chunk.page else None,
        chunk.section,
        f"document {chunk.document_id}",
        None if chunk.score is None else f"score {chunk.score:.2f}",
    )
    return f"[{number}] {', '.join(part for part in parts if part)}\n{chunk.text}"


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
