"""What the current thread or task writes: set by the service around a pipeline's run, read by the store."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from components.storing.contract import Splitting


@dataclass(frozen=True)
class Indexing:
    """Which pipeline writes a tenant's documents, how it splits, and into which collection."""

    tenant_id: str
    pipeline: str
    splitting: Splitting
    collection: str | None
    """None for the one in use."""


_current: ContextVar[Indexing | None] = ContextVar("indexing", default=None)


@contextmanager
def indexing_as(indexing: Indexing) -> Iterator[None]:
    """
    Let what is inside the block write as told, in this thread or task.

    :param indexing: what is written.
    """
    token = _current.set(indexing)
    try:
        yield
    finally:
        _current.reset(token)


def current_indexing(tenant_id: str) -> Indexing | None:
    """
    Say what is written in this thread or task.

    :param tenant_id: whose documents.
    :returns: what `indexing_as` was told for this tenant; None outside of it.
    """
    indexing = _current.get()
    return indexing if indexing is not None and indexing.tenant_id == tenant_id else None
