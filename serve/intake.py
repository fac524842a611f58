"""From a request's body to the sources of a job."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from pydantic import ValidationError

from serve.bodies import request_error
from serve.errors import LimitError
from serve.ingestion_schemas import DocumentFields, FileFields, IngestBody
from serve.jobs.model import Source, StagedFile
from serve.naming import id_of_file, id_of_text
from serve.uploads import FILES_FIELD, Upload, UploadedFile

_NO_FIELDS = DocumentFields()


@dataclass(frozen=True)
class Intake:
    """
    What a request brings.

    `digest` is of what it asks for, not of how it is written: order of keys, white space and the form of a number
    don't count, so that a client that repeats a request under its idempotency key need not repeat it byte for byte.
    """

    tenant_id: str
    pipeline: str
    sources: list[Source]
    digest: str
    files: Mapping[str, BinaryIO] = field(default_factory=dict)


def texts_intake(body: IngestBody, tenant_id: str) -> Intake:
    """
    Take in texts.

    :param body: the request's body.
    :param tenant_id: whose documents they are.
    :returns: one source for each text.
    """
    digest = _Digest(tenant_id, body.pipeline)
    sources = []
    for text in body.texts or []:
        content = _sha256(text)
        repeated = digest.add(id_of_text(content), None, {}, content)
        # Without fields that are not set: each takes its time, and there are thousands of texts.
        sources.append(Source(id=id_of_text(content), text=text, repeated=repeated))
    for document in body.documents or []:
        content = _sha256(document.text)
        name, title, meta = document.id or id_of_text(content), document.title, document.meta
        repeated = digest.add(name, title, meta, content)
        sources.append(Source(id=name, title=title, meta=meta, text=document.text, repeated=repeated))
    return Intake(tenant_id, body.pipeline, sources, digest.hexdigest())


def files_intake(upload: Upload, tenant_id: str, pipeline: str) -> Intake:
    """
    Take in files.

    :param upload: the request's parts.
    :param tenant_id: whose documents they are.
    :param pipeline: which indexing pipeline takes them.
    :returns: one source for each file; of two with one name and one content only one.
    :raises LimitError: if a file has no name, two of one name differ, or `metadata` can't be read or names no file.
    """
    digest = _Digest(tenant_id, pipeline)
    described = _described(upload.fields.get("metadata", ""))
    sources: dict[str, Source] = {}
    for name, file in _by_name(upload.files).items():
        fields = described.pop(name, _NO_FIELDS)
        document_id = fields.id or name
        if document_id in sources:
            raise LimitError("metadata", f"gives two files the id '{document_id[:80]}'")
        digest.add(document_id, fields.title, fields.meta, file.sha256, name, file.content_type)
        staged = StagedFile(name=name, sha256=file.sha256, size=file.size, content_type=file.content_type)
        sources[document_id] = Source(
            id=document_id, title=fields.title, meta=fields.meta, text=None, file=staged
        )
    if described:
        raise LimitError("metadata", f"describes '{next(iter(described))[:80]}', but no such file was sent")
    files = {file.sha256: file.content for file in upload.files}
    return Intake(tenant_id, pipeline, list(sources.values()), digest.hexdigest(), files)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _by_name(files: Iterable[UploadedFile]) -> dict[str, UploadedFile]:
    named: dict[str, UploadedFile] = {}
    for file in files:
        name = id_of_file(file.name)
        if not name:
            raise LimitError(FILES_FIELD, f"has a file without a usable name: '{file.name[:80]}'")
        if named.setdefault(name, file).sha256 != file.sha256:
            raise LimitError(FILES_FIELD, f"has two different files named '{name[:80]}'; rename one")
    return named


def _described(metadata: str) -> dict[str, DocumentFields]:
    if not metadata:
        return {}
    try:
        described = FileFields.validate_json(metadata)
    except ValidationError as error:
        raise request_error(error, "metadata", dict[str, DocumentFields]) from None
    return {id_of_file(name): fields for name, fields in described.items()}


class _Digest:
    """A hash of what is asked for."""

    def __init__(self, tenant_id: str, pipeline: str) -> None:
        self._hash = hashlib.sha256(json.dumps([tenant_id, pipeline]).encode())
        self._added: set[str] = set()

    def add(
        self, document_id: str, title: str | None, meta: dict[str, Any], content: str, *file: str | None
    ) -> bool:
        """Add a source, and say whether the very same was added before."""
        if title is None and not meta and not file:
            entry = f"{document_id}\0{content}\0"
        else:
            entry = json.dumps([document_id, content, title, meta, *file], sort_keys=True)
        self._hash.update(entry.encode("utf-8", "surrogatepass"))
        known = entry in self._added
        self._added.add(entry)
        return known

    def hexdigest(self) -> str:
        return self._hash.hexdigest()
