"""How jobs lie in Redis: the keys of one job, and how its values are written."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from serve.jobs.model import JobInput, Source, SourceResult, SourceStatus


class JobKeys:
    """The keys of one job."""

    def __init__(self, prefix: str, job_id: str) -> None:
        base = f"{prefix}:job:{job_id}"
        self.row = base
        self.sources = f"{base}:sources"
        self.files = f"{base}:files"

    def outcomes(self, status: SourceStatus) -> str:
        return f"{self.row}:{status}"

    def file(self, sha256: str) -> str:
        return f"{self.row}:file:{sha256}"

    @property
    def records(self) -> list[str]:
        """What is kept as long as the job is known."""
        return [self.row, *map(self.outcomes, SourceStatus)]

    def staged(self, files: Iterable[str]) -> list[str]:
        """What is kept as long as it may be wanted again."""
        return [self.sources, self.files, *map(self.file, files)]


def decode_row(stored: bytes | None) -> JobInput | None:
    return None if stored is None else JobInput.model_validate_json(stored)


def member_of(position: int, data: dict[str, Any]) -> str:
    # ASCII JSON also holds what UTF-8 can't: lone surrogates. The position keeps two of one content apart.
    return f"{position} {json.dumps(data, allow_nan=False)}"


def decode_member(member: bytes) -> tuple[int, dict[str, Any]]:
    position, _, data = member.partition(b" ")
    return int(position), json.loads(data)


def pending_member(position: int, source: Source) -> tuple[str, int]:
    # Made for each source of a request, which waits: models would take twice the time.
    name = None if source.file is None else source.file.name
    data = {"document_id": source.id, "name": name, "status": SourceStatus.PENDING}
    return member_of(position, data), position


def decode_outcome(member: bytes) -> tuple[int, SourceResult]:
    position, data = decode_member(member)
    return position, SourceResult(**data)


def outcome_member(outcome: tuple[int, SourceResult]) -> tuple[str, int]:
    position, result = outcome
    return member_of(position, result.model_dump()), position


def listing_member(job: JobInput) -> str:
    return f"{int(job.created_at * 1_000_000):020d}:{job.job_id}"


def job_of(listing_member: bytes) -> str:
    return listing_member.decode().partition(":")[2]


def texts(found: Iterable[bytes | None]) -> set[str]:
    return {text.decode() for text in found if text is not None}


def ranges(positions: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Join neighbours, so that thousands of positions are few commands."""
    first = last = None
    for position in positions:
        if first is None or last is None:
            first = last = position
        elif position == last + 1:
            last = position
        else:
            yield first, last
            first = last = position
    if first is not None and last is not None:
        yield first, last
