"""A source as a version of its document: what the pipeline is given, and how the version is known again."""

import hashlib
import json
from typing import Any

from haystack import Document
from haystack.dataclasses import ByteStream

from components.storing import DocumentState
from modes.indexing import IndexingPipeline, IndexingResult
from serve.jobs.model import JobInput, LoadedSource, SourceResult, SourceStatus

UNCHANGED = "unchanged"
NO_TEXT = "no text to index"
LATER_HELD = "a later version of the document is there already"


class SourceVersion:
    """
    A source as a version of its document.

    Usage example:
    ```python
    version = SourceVersion(source, pipeline, job)
    if not version.is_held(state):
        outcome = version.outcome(pipeline.run("acme", [version.document()]), None)
    ```
    """

    def __init__(self, source: LoadedSource, pipeline: IndexingPipeline, job: JobInput) -> None:
        """
        Tell the version from others.

        :param source: what was sent.
        :param pipeline: indexes it.
        :param job: brought it.
        """
        self.id = source.id
        self.accepted_at = source.accepted_at
        self.file = source.file
        self._source = source
        self._pipeline = pipeline
        self._job = job
        self.fingerprint = self._fingerprint()

    def document(self) -> Document:
        """:returns: What the pipeline takes of a text."""
        return Document(id=self.id, content=self._source.text, meta=self._meta())

    def stream(self) -> ByteStream:
        """:returns: What the pipeline takes of a file."""
        assert self.file is not None
        return ByteStream(self._source.content or b"", self._meta(), self.file.content_type)

    def is_held(self, state: DocumentState) -> bool:
        """
        :param state: what is held of the document.
        :returns: whether it is this very version, whole.
        """
        return state.complete and state.fingerprint == self.fingerprint

    def why_held(self, state: DocumentState) -> str | None:
        """
        :param state: what is held, for which `is_held` is true.
        :returns: what is told about it.
        """
        # Accepted at the same moment, it is this very source, written before the batch was interrupted.
        return None if state.accepted_at == self.accepted_at else UNCHANGED

    def outcome(self, result: IndexingResult, held: DocumentState | None) -> SourceResult:
        """
        Read what became of it.

        :param result: what the pipeline told.
        :param held: what is held of the document, where the pipeline wrote nothing of it.
        :returns: the outcome.
        """
        note = result.notes.get(self.id)
        if chunks := result.written.get(self.id):
            return self.result(SourceStatus.OK, note, chunks)
        if held is not None and held.accepted_at > self.accepted_at:
            return self.result(SourceStatus.SKIPPED, LATER_HELD)
        return self.result(SourceStatus.SKIPPED, note or NO_TEXT)

    def result(self, status: SourceStatus, reason: str | None = None, chunks: int = 0) -> SourceResult:
        """
        Make the outcome of this source.

        :param status: what became of it.
        :param reason: why, or what was left out.
        :param chunks: how many are held.
        :returns: the outcome.
        """
        name = self.file.name if self.file else None
        return SourceResult(document_id=self.id, name=name, status=status, reason=reason, chunks=chunks)

    def told(self, outcome: SourceResult) -> SourceResult:
        """
        Tell what became of the version as the outcome of this source.

        :param outcome: what became of the version, which several sources of a job may be.
        :returns: the same; "unchanged" without chunks, if an earlier source has brought them.
        """
        if self._source.repeated and outcome.status is SourceStatus.OK:
            return self.result(SourceStatus.OK, UNCHANGED)
        return outcome

    def _meta(self) -> dict[str, Any]:
        return {
            **self._source.meta,
            "document_id": self.id,
            "title": self._source.title or "",
            "accepted_at": self.accepted_at,
            "fingerprint": self.fingerprint,
            "job_id": self._job.job_id,
            # A text may bring a `source` of its own along.
            **({"source": self.file.name} if self.file else {}),
        }

    def _fingerprint(self) -> str:
        source = self._source
        content = self.file.sha256 if self.file else hashlib.sha256((source.text or "").encode()).hexdigest()
        kind = [self.file.name, self.file.content_type] if self.file else None
        whole = [content, kind, source.title, source.meta, self._pipeline.name, self._pipeline.fingerprint]
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
