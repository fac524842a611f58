"""What can go wrong with a tenant's documents, and Chroma's errors told in these words."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from chromadb.errors import ChromaError, NotFoundError

from components.filtering import InvalidFilterError


class DocumentStoreError(Exception):
    """A tenant's documents can't be read or written."""


class InvalidTenantError(DocumentStoreError):
    """A tenant id has a form that is not allowed."""


class UnknownTenantError(DocumentStoreError):
    """Nothing was ever ingested for a tenant."""


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

    :raises DocumentStoreUnavailableError: if Chroma does not answer.
    :raises UnknownTenantError: if the collection is gone.
    :raises EmbeddingMismatchError: if embeddings have another dimension than the collection.
    :raises InvalidFilterError: if Chroma refuses the filters.
    :raises DocumentStoreError: if it refuses the call for another reason.
    """
    try:
        yield
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
                f"{error}: set the embedding model back, or run `thresher reindex` for the tenant"
            ) from error
        if _is_about_filters(error):
            raise InvalidFilterError(f"Chroma refuses the filters: {error}") from error
        raise DocumentStoreError(f"Chroma refused the call: {error}") from error


def _is_about_filters(error: Exception) -> bool:
    return any(words in str(error) for words in ("Invalid where", "Expected where"))
