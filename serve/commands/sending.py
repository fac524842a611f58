"""Sending files to the service in jobs, and following those to their end."""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

from serve.commands.client import Client, OutgoingFile, job_id_of
from serve.commands.replies import Json, ServiceError
from serve.commands.sources import SourceFile, title_of
from settings import Settings

UNCHANGED = "unchanged"
FINISHED = ("done", "failed", "cancelled")

# A job tells the outcome of each of its files up to so many.
_PART_FILES = 100
_SMALL_PART_FILES = 8
_PART_BYTES = 32 * 1024 * 1024
# What a file takes in a form beside its content and twice its name.
_FORM_BYTES = 1024
_POLL_SECONDS = 0.3
# Jobs end about in their order, so the later ones need not be asked for.
_POLLED_JOBS = 4


@dataclass(frozen=True)
class Remark:
    """What is to be said of a file: why it failed or was skipped, or what of it was left out."""

    name: str
    status: str
    reason: str


@dataclass
class Tally:
    """How far some documents have come."""

    total: int = 0
    ok: int = 0
    unchanged: int = 0
    skipped: int = 0
    failed: int = 0
    chunks: int = 0
    remarks: list[Remark] = field(default_factory=list)
    waiting: str = ""
    """Why nothing happens, where that is known."""

    @property
    def done(self) -> int:
        """Documents whose fate is known."""
        return self.ok + self.skipped + self.failed


Report = Callable[[Tally], None]


class Following:
    """
    Follows jobs to their end and adds up what becomes of their documents.

    Usage example:
    ```python
    following = Following(client, print)
    following.add(client.retry(job_id))
    tally = following.to_the_end()
    ```
    """

    def __init__(self, client: Client, report: Report, total: int = 0) -> None:
        """
        Follow nothing yet.

        :param client: the way to the service.
        :param report: told how far it is, several times a second.
        :param total: documents there will be; those of the jobs when that is more.
        """
        self.jobs: dict[str, Json] = {}
        self._client = client
        self._report = report
        self._total = total
        self._refused: list[Remark] = []

    @property
    def tenant_id(self) -> str | None:
        """Whose jobs these are, as the service says; None as long as there is none."""
        return next((job.get("tenant_id") for job in self.jobs.values()), None)

    @property
    def unfinished(self) -> list[str]:
        """The jobs that are not at their end."""
        return [name for name, job in self.jobs.items() if job["status"] not in FINISHED]

    def add(self, job: Json) -> None:
        """
        Follow one more job.

        :param job: as the service gave it.
        """
        self.jobs[job["job_id"]] = job
        self._report(self.tally())

    def refuse(self, remark: Remark) -> None:
        """
        Count a file that the service would not take.

        :param remark: the file and why.
        """
        self._refused.append(remark)

    def look(self, seconds: float = _POLL_SECONDS, waiting: str = "") -> None:
        """
        Wait a little, ask how far the jobs are, and report.

        :param seconds: how long to wait.
        :param waiting: why the caller waits.
        """
        time.sleep(seconds)
        for name in self.unfinished[:_POLLED_JOBS]:
            self.jobs[name] = self._client.job(name)
        tally = self.tally()
        tally.waiting = waiting
        self._report(tally)

    def to_the_end(self) -> Tally:
        """
        Follow every job until it is finished.

        :returns: what became of their documents.
        """
        while self.unfinished:
            self.look()
        tally = self.tally()
        self._report(tally)
        return tally

    def tally(self) -> Tally:
        """
        Add up the jobs.

        :returns: how far they are.
        """
        tally = Tally(failed=len(self._refused), remarks=list(self._refused))
        for job in self.jobs.values():
            tally.total += job["total"]
            tally.ok += job["documents_ok"]
            tally.skipped += job["documents_skipped"]
            tally.failed += job["documents_failed"]
            tally.chunks += job["chunks_ok"]
            tally.unchanged += sum(source["reason"] == UNCHANGED for source in job["sources"])
            if job["status"] in FINISHED:
                tally.remarks += _remarks(job)
        tally.total = max(tally.total + len(self._refused), self._total)
        return tally


class Sending:
    """Sends files in parts, each of them a job; where the queue is full, it waits until that takes more."""

    def __init__(
        self, client: Client, following: Following, tenant_id: str | None, pipeline: str | None
    ) -> None:
        """
        Send nothing yet.

        :param client: the way to the service.
        :param following: follows the jobs.
        :param tenant_id: whose the files are; None for whom the service takes them to be of.
        :param pipeline: another indexing pipeline than the usual one.
        """
        self.client = client
        self.following = following
        self.tenant_id = tenant_id
        self.pipeline = pipeline

    def send(self, files: Sequence[SourceFile]) -> None:
        """
        Send files.

        A part that is in an unfinished job already, sent by a command that was broken off, is not sent again.

        :param files: the files.
        """
        for part in _parts(files, self.client.settings):
            self._send_part(part)

    def _send_part(self, files: Sequence[SourceFile]) -> None:
        contents: list[OutgoingFile] = []
        for file in files:
            try:
                content = file.path.read_bytes()
                contents.append(OutgoingFile(file.name, title_of(file.path, content), content))
            except OSError as error:
                self.following.refuse(Remark(file.name, "failed", error.strerror or str(error)))
        if contents:
            self._upload(contents)

    def _upload(self, contents: list[OutgoingFile]) -> None:
        digest = self._digest(contents)
        for repeat in count():
            # Under a key of its content a part that is under way already is found; once that is finished, the same
            # content is sent under the next key, for a document may have been deleted since.
            key = f"{digest}-{repeat}"
            job = self._known(key) or self._submit(contents, key)
            if job is None:
                return
            if job["status"] not in FINISHED:
                self.following.add(job)
                return

    def _known(self, key: str) -> Json | None:
        if self.tenant_id is None:
            # Which job it is depends on the tenant. The upload itself tells, for under the key it makes no second job.
            return None
        try:
            return self.client.job(job_id_of(self.tenant_id, key))
        except ServiceError as error:
            if error.status == 404:
                return None
            raise

    def _submit(self, contents: list[OutgoingFile], key: str) -> Json | None:
        """Send a part, however long the queue takes no more; None where it was too much and went in smaller parts."""
        while True:
            try:
                job = self.client.upload(contents, self.tenant_id, self.pipeline, key)
                # The others too, whichever service takes them.
                self.tenant_id = job["tenant_id"]
                return job
            except ServiceError as error:
                if error.status == 413:
                    self._send_less(contents, error)
                    return None
                if not error.kind.endswith("queue-full"):
                    raise
                self.following.look(error.retry_after or 1.0, "the queue is full")

    def _send_less(self, contents: list[OutgoingFile], error: ServiceError) -> None:
        """Send what was too much in halves; what is too much by itself has failed."""
        if len(contents) == 1:
            self.following.refuse(Remark(contents[0].name, "failed", str(error)))
            return
        middle = len(contents) // 2
        self._upload(contents[:middle])
        self._upload(contents[middle:])

    def _digest(self, contents: Iterable[OutgoingFile]) -> str:
        # Without the tenant, which may not be known yet: a key holds within one.
        digest = hashlib.sha256(f"{self.pipeline}".encode())
        for file in contents:
            digest.update(hashlib.sha256(file.name.encode()).digest() + hashlib.sha256(file.content).digest())
        return digest.hexdigest()[:32]


def _parts(files: Sequence[SourceFile], settings: Settings) -> Iterator[list[SourceFile]]:
    # Few files are parted too, for each worker takes one job at a time.
    share = max(-(-len(files) // settings.ingest_workers), _SMALL_PART_FILES)
    most = min(share, _PART_FILES, settings.max_documents_per_job)
    most_bytes = min(_PART_BYTES, settings.max_upload_bytes)
    part: list[SourceFile] = []
    size = 0
    for file in files:
        more = file.size + 2 * len(file.name.encode()) + _FORM_BYTES
        if part and (len(part) == most or size + more > most_bytes):
            yield part
            part, size = [], 0
        part.append(file)
        size += more
    if part:
        yield part


def _remarks(job: Json) -> Iterator[Remark]:
    told = 0
    for source in job["sources"]:
        told += source["status"] in ("failed", "skipped")
        if source["status"] != "ok" or source["reason"] not in (None, "", UNCHANGED):
            name, reason = source["name"] or source["document_id"], source["reason"] or ""
            yield Remark(name, source["status"], reason)
    if untold := job["documents_failed"] + job["documents_skipped"] - told:
        yield Remark(f"{untold} more documents of job {job['job_id']}", "failed or skipped", "")
    if job["error"] and not told:
        yield Remark(f"job {job['job_id']}", job["status"], job["error"])
