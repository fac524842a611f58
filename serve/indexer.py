"""The work of a job's batch: from the sources that were sent to chunks in the tenant's store.

A batch may come twice, after a fault or a crash: what it wrote the first time is recognised and left as it is.
"""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress

from components.converting.errors import EmptySourceError, SourceError
from components.storing import DocumentState, IndexMismatchError, UnknownTenantError
from modes.failures import UnsupportedInputError
from modes.indexing import IndexingPipeline
from registry import ModeRegistry
from serve.jobs.faults import JobFailedError
from serve.jobs.model import (
    JobInput,
    JobKind,
    LoadedSource,
    PostponeError,
    SourceResult,
    SourceStatus,
)
from serve.reindexing import Reindexer
from serve.versions import LATER_HELD, SourceVersion

DELETED = "the document was deleted after it was sent"
# How long a job waits before it looks whether its pipeline's file was mended.
_MEND_SECONDS = 30.0
_REINDEX_SECONDS = 5.0

logger = logging.getLogger("thresher.indexing")

Deleted = Callable[[str, Collection[str]], Mapping[str, float]]
"""Given a tenant and document ids: when those were deleted that were, in seconds since 1970."""


class UnknownPipelineError(LookupError):
    """There is no indexing pipeline of this name; the message lists those there are."""


class BrokenPipelineError(LookupError):
    """The indexing pipeline's file has faults; the message lists them."""


class Indexer:
    """
    Works on the batches of jobs.

    Usage example:
    ```python
    indexer = Indexer(registry, deleted=lambda tenant_id, ids: {}, reindexed_by=lambda tenant_id: None)
    indexer.prepare(job)
    results = indexer.work(job, sources)
    indexer.finish(job)
    ```
    """

    def __init__(
        self, registry: ModeRegistry, deleted: Deleted, reindexed_by: Callable[[str], str | None]
    ) -> None:
        """
        Create the indexer.

        :param registry: has the indexing pipelines, and the stores that they write to.
        :param deleted: says which documents were deleted since they were accepted.
        :param reindexed_by: given a tenant, the id of the unfinished job that indexes it anew, or None.
        """
        self._registry = registry
        self._stores = registry.resources.document_stores
        self._deleted = deleted
        self._reindexed_by = reindexed_by
        self._reindexer = Reindexer(registry)

    def prepare(self, job: JobInput) -> None:
        """
        Check that a job can be worked on at all, before any of its sources is.

        :param job: the job.
        :raises PostponeError: if its pipeline has faults that somebody may mend, or the tenant is being indexed anew.
        :raises JobFailedError: if none of its sources can be indexed, whatever is in them.
        """
        if job.kind is JobKind.INGEST:
            with self._contract(job):
                pass

    def work(self, job: JobInput, sources: list[LoadedSource]) -> list[SourceResult]:
        """
        Index the sources of a batch.

        :param job: the job that they belong to.
        :param sources: texts, or one file.
        :returns: for each source, in order, what became of it.
        :raises PostponeError: as `prepare` does.
        :raises JobFailedError: as `prepare` does.
        """
        if job.kind is JobKind.REINDEX:
            return self._reindexer.work(job, sources)
        with self._contract(job) as pipeline:
            versions = [SourceVersion(source, pipeline, job) for source in sources]
            # Of two versions in one batch, which only texts without an id can be, the later one counts.
            latest = {version.id: version for version in versions}
            outcomes = self._index(job.tenant_id, pipeline, latest)
        return [
            version.told(outcomes[version.id])
            if latest[version.id].fingerprint == version.fingerprint
            else version.result(SourceStatus.SKIPPED, LATER_HELD)
            for version in versions
        ]

    def finish(self, job: JobInput) -> None:
        """
        Do what is left when all sources of a job are through.

        :param job: the job.
        """
        if job.kind is JobKind.REINDEX:
            self._reindexer.finish(job)

    @contextmanager
    def _contract(self, job: JobInput) -> Iterator[IndexingPipeline]:
        """Let the job's pipeline write into the tenant's index, if that was made in the way that is in use."""
        try:
            pipeline = find_pipeline(self._registry, job.pipeline)
            with self._stores.indexing(job.tenant_id, pipeline.name, pipeline.splitting):
                yield pipeline
        except BrokenPipelineError as error:
            logger.warning("job %s waits: %s", job.job_id, error)
            raise PostponeError(_MEND_SECONDS) from error
        except IndexMismatchError as error:
            if self._reindexed_by(job.tenant_id) is None:
                raise JobFailedError(str(error)) from error
            logger.info("job %s waits until tenant %s is indexed anew", job.job_id, job.tenant_id)
            raise PostponeError(_REINDEX_SECONDS) from error
        except (UnknownPipelineError, UnsupportedInputError) as error:
            raise JobFailedError(str(error)) from error

    def _index(
        self, tenant_id: str, pipeline: IndexingPipeline, versions: dict[str, SourceVersion]
    ) -> dict[str, SourceResult]:
        outcomes = self._without_work(tenant_id, versions)
        todo = [version for name, version in versions.items() if name not in outcomes]
        if todo:
            outcomes |= self._run(tenant_id, pipeline, todo)
            # Deleted while it was worked on.
            outcomes |= self._deleted_since(tenant_id, {version.id: version for version in todo})
        return outcomes

    def _without_work(self, tenant_id: str, versions: dict[str, SourceVersion]) -> dict[str, SourceResult]:
        """Settle what is deleted, unchanged or superseded, which costs no conversion and no embedding."""
        outcomes = self._deleted_since(tenant_id, versions)
        states = self._states(tenant_id, [name for name in versions if name not in outcomes])
        accepted_again = {}
        for name, state in states.items():
            version = versions[name]
            if version.is_held(state):
                outcomes[name] = version.result(SourceStatus.OK, version.why_held(state), state.chunks)
                if state.accepted_at < version.accepted_at:
                    accepted_again[name] = version.accepted_at
            elif state.accepted_at > version.accepted_at:
                outcomes[name] = version.result(SourceStatus.SKIPPED, LATER_HELD)
        if accepted_again:
            store = self._stores.get(tenant_id)
            with store.writing:
                store.touch(accepted_again)
                # What a version that never was finished has left is older now.
                if torn := [name for name in accepted_again if not states[name].alone]:
                    store.settle(torn)
        return outcomes

    def _deleted_since(
        self, tenant_id: str, versions: Mapping[str, SourceVersion]
    ) -> dict[str, SourceResult]:
        """Skip what was deleted after it was accepted, and delete what an interrupted run has written of it."""
        deleted = self._deleted(tenant_id, versions.keys())
        late = {name: moment for name, moment in deleted.items() if moment > versions[name].accepted_at}
        if late:
            self._delete(tenant_id, late)
        return {name: versions[name].result(SourceStatus.SKIPPED, DELETED) for name in late}

    def _delete(self, tenant_id: str, moments: dict[str, float]) -> None:
        with suppress(UnknownTenantError):
            store = self._stores.get(tenant_id)
            for name, versions in store.held_versions(moments).items():
                old = [held.chunk_ids for held in versions if held.accepted_at <= moments[name]]
                # Without a pause, for a job that is cancelled now has nobody who would do it later.
                store.discard([chunk_id for chunk_ids in old for chunk_id in chunk_ids])

    def _states(self, tenant_id: str, names: list[str]) -> dict[str, DocumentState]:
        if not names:
            return {}
        try:
            store = self._stores.get(tenant_id)
            states = store.document_states(names)
            # A process that ended between its write and what follows from it left the version before.
            if torn := [name for name, state in states.items() if not state.alone]:
                with store.writing:
                    store.settle(torn)
                states |= store.document_states(torn)
        except UnknownTenantError:
            return {}
        return states

    def _run(
        self, tenant_id: str, pipeline: IndexingPipeline, versions: list[SourceVersion]
    ) -> dict[str, SourceResult]:
        try:
            result = pipeline.run(
                tenant_id,
                [version.document() for version in versions if version.file is None],
                [version.stream() for version in versions if version.file is not None],
            )
        except SourceError as error:
            if len(versions) > 1:
                # Each is tried alone, which shows whose fault it is.
                raise
            status = SourceStatus.SKIPPED if isinstance(error, EmptySourceError) else SourceStatus.FAILED
            return {versions[0].id: versions[0].result(status, str(error))}
        states = self._states(tenant_id, [item.id for item in versions if not result.written.get(item.id)])
        return {version.id: version.outcome(result, states.get(version.id)) for version in versions}


def find_pipeline(registry: ModeRegistry, name: str) -> IndexingPipeline:
    """
    Give an indexing pipeline.

    :param registry: where to look.
    :param name: its name.
    :returns: the pipeline.
    :raises BrokenPipelineError: if its file has faults.
    :raises UnknownPipelineError: if there is none.
    """
    if (pipeline := registry.indexing.get(name)) is not None:
        return pipeline
    if (faults := registry.broken.get(name)) is not None:
        shown = "; ".join(f"line {fault.line}: {fault.message}" for fault in faults)
        raise BrokenPipelineError(f"the indexing pipeline '{name}' could not be loaded: {shown}")
    there = ", ".join(registry.indexing) or "none"
    raise UnknownPipelineError(f"there is no indexing pipeline '{name[:80]}'; there are: {there}")
