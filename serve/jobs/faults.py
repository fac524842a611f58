"""Faults of the work on documents: which may pass, and how they are told to the person who posted the documents."""

import errno
from collections.abc import Iterator

from components.pacing import WorkCancelled
from serve.jobs.model import JobInterrupted

MAX_ERROR_LENGTH = 500
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class JobFailedError(RuntimeError):
    """A job has come to its end without success; the message is for the person who posted it."""


class JobCancelled(JobInterrupted, WorkCancelled):
    """Ends the work on a batch of a job that was cancelled; no other process goes on with it."""


def is_transient(error: BaseException) -> bool:
    """
    :param error: an error of the work on documents.
    :returns: True where it, or what caused it, is a failed connection, a missed deadline or a full disk.
    """
    return any(
        isinstance(cause, (ConnectionError, TimeoutError))
        or (isinstance(cause, OSError) and cause.errno in DISK_FULL)
        for cause in causes(error)
    )


def causes(error: BaseException) -> Iterator[BaseException]:
    """
    :param error: any error.
    :returns: the error, what it was raised for, and so on to the first; each once, though causes may go in a circle.
    """
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        # Clients also hide the first error behind one of their own without "from", as chromadb does.
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)


def describe(error: BaseException) -> str:
    """
    :param error: any error.
    :returns: its type and message, short, without what UTF-8 can't hold and without the names of the service's files.
    """
    message = str(error)
    for cause in causes(error):
        if isinstance(cause, OSError) and cause.strerror:
            message = message.replace(str(cause), cause.strerror)
    return clean(f"{type(error).__name__}: {message}" if message else type(error).__name__)


def clean(text: str) -> str:
    """
    :param text: any text.
    :returns: it, short and without what UTF-8 can't hold.
    """
    return text.encode(errors="replace").decode()[:MAX_ERROR_LENGTH]
