"""What can go wrong with a tenant's documents, and Chroma's errors told in these words."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from chromadb.errors import ChromaError, InternalError, NotFoundError, RateLimitError

from components.breaking import CircuitOpenError
from components.filtering import InvalidFilterError


class DocumentStoreError(Exception):
    """
    A tenant's documents can't be read or written.

    :param message: what happened.
    :param told: what callers are told in its place where the message is for the log.
    :param retry_after: seconds after which it may be tried again, where that is known.
    """

    def __init__(self, message: str = "", told: str = "", retry_after: int | None = None) -> None:
        super().__init__(message)
        self.told = told or message
        self.retry_after = retry_after


class InvalidTenantError(DocumentStoreError):
    """A tenant id has a form that is not allowed."""


class UnknownTenantError(DocumentStoreError):
    """Nothing was ever ingested for a tenant."""

    @classmethod
    def without_documents(cls, tenant_id: str) -> "UnknownTenantError":
        """
        Name the tenant, and say what to do.

        :param tenant_id: the tenant.
        :returns: the error.
        """
        return cls(
            f"tenant '{tenant_id}' has no documents; ingest some with POST /ingest/ or `thresher ingest`"
        )


class UnknownDocumentError(DocumentStoreError):
    """A tenant has no document of that id."""


class IndexMismatchError(DocumentStoreError):
    """A tenant's index was made in another way than the one in use."""


class EmbeddingMismatchError(IndexMismatchError):
    """A collection was made with another embedding model, dimension or distance than the one in use."""


class SplittingMismatchError(IndexMismatchError):
    """A collection holds documents that the same pipeline split in another way."""


class ReindexingError(DocumentStoreError):
    """A tenant's documents can't be indexed anew as asked."""


class DocumentStoreUnavailableError(DocumentStoreError):
    """Chroma does not answer, or not in time."""


@contextmanager
def translated_errors() -> Iterator[None]:
    """
    Raise Chroma's errors as ours.

    :raises DocumentStoreUnavailableError: if Chroma does not answer, or not now.
    :raises UnknownTenantError: if the collection is gone.
    :raises EmbeddingMismatchError: if embeddings have another dimension than the collection.
    :raises InvalidFilterError: if Chroma refuses the filters.
    :raises DocumentStoreError: if it refuses the call for another reason.
    """
    try:
        yield
    except CircuitOpenError as error:
        raise circuit_open(error) from error
    except (httpx.HTTPError, ConnectionError) as error:
        raise DocumentStoreUnavailableError("Chroma does not answer") from error
    except InvalidFilterError:
        raise
    except ValueError as error:
        # chromadb.HttpClient turns a refused connection into a ValueError.
        if "Could not connect" in str(error):
            raise DocumentStoreUnavailableError("Chroma does not answer") from error
        if _is_about_filters(error):
            raise InvalidFilterError(f"Chroma refuses the filters: {error}") from error
        raise
    except NotFoundError as error:
        raise UnknownTenantError("the tenant's collection is gone; ingest its documents again") from error
    except ChromaError as error:
        if "dimension" in str(error):
            raise EmbeddingMismatchError(
                "the embeddings have another dimension than the tenant's index: set the embedding model back, or run"
                " `thresher reindex` for the tenant"
            ) from error
        if _is_about_filters(error):
            raise InvalidFilterError(f"Chroma refuses the filters: {error}") from error
        if isinstance(error, InternalError | RateLimitError) or _answer_may_pass(error):
            told = "Chroma can't do it now; try again, and see its log if it stays so"
            raise DocumentStoreUnavailableError(f"Chroma can't do it now: {_short(error)}", told) from error
        told = "Chroma refused the call; with LOG_LEVEL=DEBUG the log says why"
        raise DocumentStoreError(f"Chroma refused the call: {_short(error)}", told) from error
    except Exception as error:
        # chromadb raises a plain one, with the page for its message, when a proxy answers in the place of Chroma.
        if type(error) is not Exception or (status := _status(error)) is None:
            raise
        told = f"Chroma, or what stands before it, answered with HTTP status {status}"
        if _answer_may_pass(error):
            raise DocumentStoreUnavailableError(told) from error
        raise DocumentStoreError(told) from error


def circuit_open(error: CircuitOpenError) -> DocumentStoreUnavailableError:
    """
    Say that Chroma is not asked at the moment.

    :param error: what its breaker raised.
    :returns: the error for callers.
    """
    told = "Chroma does not answer; try again after the seconds in Retry-After"
    return DocumentStoreUnavailableError(told, retry_after=error.retry_after)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _answer_may_pass(error: Exception) -> bool:
    status = _status(error)
    return status is not None and (status >= 500 or status == 429)


def _status(error: Exception) -> int | None:
    """:returns: The status of the HTTP answer that an error was raised for."""
    cause = error.__cause__ or error.__context__
    return cause.response.status_code if isinstance(cause, httpx.HTTPStatusError) else None


def _is_about_filters(error: Exception) -> bool:
    return any(words in str(error) for words in ("Invalid where", "Expected where"))
