"""The work of a job that indexes a tenant anew: from the old index, document by document, into one beside it."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from haystack import Document

from components.storing import UnknownTenantError
from components.storing.generations import Generation
from modes.indexing import IndexingPipeline
from registry import ModeRegistry
from serve.ingestion_schemas import DEFAULT_PIPELINE
from serve.jobs.faults import JobCancelled, JobFailedError
from serve.jobs.model import JobInput, LoadedSource, SourceResult, SourceStatus

GONE = "the document was deleted"
NO_CHUNKS = "its text gave no chunk"
_CATCH_UP = 32
# Each round copies what came during the one before, so that they get shorter.
_MOST_ROUNDS = 20


class Reindexer:
    """
    Works on the batches of jobs that index anew.

    Readers and other jobs go on with the old index until the new one takes its place.
    """

    def __init__(self, registry: ModeRegistry) -> None:
        """
        Create the reindexer.

        :param registry: has the indexing pipelines, and the stores that they write to.
        """
        self._registry = registry

    def begin(self, tenant_id: str) -> list[str]:
        """
        Begin a new index, or go on with one that was begun.

        :param tenant_id: whose.
        :returns: the ids of all documents.
        :raises UnknownTenantError: if the tenant has no documents.
        """
        return self._generation(tenant_id).document_ids()

    def work(self, job: JobInput, sources: Sequence[LoadedSource]) -> list[SourceResult]:
        """
        Copy the documents of a batch into the new index.

        :param job: the job.
        :param sources: name the documents.
        :returns: for each, in order, what became of it.
        """
        try:
            generation = self._generation(job.tenant_id)
            found = generation.documents([source.id for source in sources])
            written = self._copy(generation, found)
        except UnknownTenantError:
            # Dropped meanwhile.
            return [_result(source.id, SourceStatus.SKIPPED, GONE) for source in sources]
        except JobCancelled:
            generation.abandon()
            raise
        there = {document.id for document in found}
        return [
            _result(source.id, SourceStatus.OK, None, written[source.id])
            if written.get(source.id)
            else _result(source.id, SourceStatus.SKIPPED, NO_CHUNKS if source.id in there else GONE)
            for source in sources
        ]

    def finish(self, job: JobInput) -> None:
        """
        Copy what came meanwhile, and put the new index in the place of the old one.

        :param job: the job.
        :raises JobFailedError: if a document can't be copied; the old index stays then, so nothing is lost.
        """
        try:
            generation = self._generation(job.tenant_id)
            missing = generation.outstanding()
            for _ in range(_MOST_ROUNDS):
                if not missing and generation.switch():
                    return
                for begin in range(0, len(missing), _CATCH_UP):
                    self._copy(generation, generation.documents(missing[begin : begin + _CATCH_UP]))
                before, missing = missing, generation.outstanding()
                if missing and missing == before:
                    break
        except UnknownTenantError:
            return
        raise JobFailedError(
            f"{len(missing)} documents are not in the new index, so the old one stays in use; the first is"
            f" '{missing[0]}': delete it, send it again, or index anew once more"
        )

    def _generation(self, tenant_id: str) -> Generation:
        splitting = {name: pipeline.splitting for name, pipeline in self._registry.indexing.items()}
        return Generation.begin(self._registry.resources.document_stores, tenant_id, splitting)

    def _copy(self, generation: Generation, documents: Sequence[Document]) -> dict[str, int]:
        written: dict[str, int] = {}
        for pipeline, part in self._by_pipeline(documents):
            with generation.indexing(pipeline.name, pipeline.splitting):
                written |= pipeline.run(generation.tenant_id, part).written
        return written

    def _by_pipeline(
        self, documents: Sequence[Document]
    ) -> Iterator[tuple[IndexingPipeline, list[Document]]]:
        parts: dict[str, list[Document]] = defaultdict(list)
        for document in documents:
            name = document.meta.get("pipeline")
            parts[name if name in self._registry.indexing else DEFAULT_PIPELINE].append(document)
        for name, part in parts.items():
            yield self._registry.indexing[name], part


def _result(document_id: str, status: SourceStatus, reason: str | None, chunks: int = 0) -> SourceResult:
    return SourceResult(document_id=document_id, status=status, reason=reason, chunks=chunks)
