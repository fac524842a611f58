"""RedisJobSpool: the sources of jobs and what became of them, in Redis."""

import asyncio
import re
import secrets
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, BinaryIO

from hayhooks.durable.store import ExecutionStoreError
from redis.asyncio import Redis

from serve.jobs.model import JobInput, Source, SourceResult, SourceStatus
from serve.jobs.redis_client import redis_errors
from serve.jobs.redis_keys import (
    JobKeys,
    decode_member,
    decode_outcome,
    decode_row,
    job_of,
    listing_member,
    member_of,
    outcome_member,
    pending_member,
    ranges,
    texts,
)
from serve.jobs.spool import tombstone

# What is sent in one command or one round trip: Redis serves nobody else meanwhile.
PART_BYTES = 4 * 1024 * 1024
PART_SOURCES = 500
PAGE = 200
# What a crash leaves of a job that was not accepted goes by itself.
STAGING_SECONDS = 3_600
# A job may wait longer than finished ones are kept, when Chroma is away.
TOMBSTONE_SECONDS = 30 * 24 * 3_600

# Gives microseconds later than any given before, also when the clock of Redis' machine is set back. KEYS: the last.
TICK = """
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local later = math.max(now, tonumber(redis.call('GET', KEYS[1]) or 0) + 1)
redis.call('SET', KEYS[1], string.format('%.0f', later))
return string.format('%.0f', later)
"""

_DONE = (SourceStatus.OK, SourceStatus.SKIPPED)
_OPEN = (SourceStatus.PENDING, SourceStatus.FAILED, SourceStatus.CANCELLED)
_CURSOR = re.compile(r"\d{20}:.+")


class RedisJobSpool:
    """
    A spool in Redis, under keys of its own.

    Of each job there are: the row, which alone says that there is a job; the sources by position; the outcomes by
    position, one set for each status, `PENDING` at first; the files by hash. Sets are ordered by position, and each
    member begins with its own, so a range is one command.

    Usage example:
    ```python
    spool = RedisJobSpool(open_redis("redis://localhost:6379/0"), "thresher:spool", job_ttl=3600, staged_ttl=3600)
    await spool.put(job, sources, {})
    first_sixteen = await spool.batch(job.job_id, 0, 16)
    ```
    """

    def __init__(self, redis: Redis, prefix: str, *, job_ttl: int, staged_ttl: int) -> None:
        """
        :param redis: a client from `open_redis`; closed by `close`.
        :param prefix: what every key begins with.
        :param job_ttl: seconds for which a finished job is known.
        :param staged_ttl: seconds for which what failed in it is kept.
        """
        # Its types leave open whether replies are text; ours are bytes.
        self._redis: Any = redis
        self._tick = self._redis.register_script(TICK)
        self._prefix = prefix
        self._job_ttl = job_ttl
        self._staged_ttl = min(staged_ttl, job_ttl)

    async def open(self) -> None:
        with redis_errors():
            await self._redis.ping()

    async def close(self) -> None:
        with redis_errors():
            await self._redis.aclose()

    async def put(self, job: JobInput, sources: Sequence[Source], files: Mapping[str, BinaryIO]) -> bool:
        """
        Keep a new job, unless there is one of its id.

        Everything is written under names of this call's own first, which expire; then, at once, the names become those
        of the job.

        :param job: the row.
        :param sources: as many as `job.total`; they get Redis' time.
        :param files: contents by SHA-256.
        :returns: False when a job of this id is there already.
        """
        keys = JobKeys(self._prefix, job.job_id)
        staging = JobKeys(self._prefix, f"staging-{secrets.token_hex(8)}")
        renamed = [
            (staging.sources, keys.sources),
            (staging.outcomes(SourceStatus.PENDING), keys.outcomes(SourceStatus.PENDING)),
            *((staging.file(name), keys.file(name)) for name in files),
        ]
        if files:
            renamed.append((staging.files, keys.files))
        staged = [source for source, _ in renamed]

        async def take_over(pipe: Any) -> bool:
            if await pipe.exists(keys.row):
                return False
            if await pipe.exists(*staged) < len(staged):
                raise ExecutionStoreError("Redis: it has lost what was posted; send it again")
            pipe.multi()
            pipe.set(keys.row, job.model_dump_json())
            for source, target in renamed:
                pipe.rename(source, target)
                pipe.persist(target)
            pipe.zadd(self._listing(job.tenant_id), {listing_member(job): 0})
            pipe.sadd(self._tenants, job.tenant_id)
            self._begin(pipe, job)
            return True

        with redis_errors():
            if await self._redis.exists(keys.row):
                return False
            now = await self._now()
            for source in sources:
                source.accepted_at = now
            await self._stage(staging, sources, files)
            # Redis may lose them between two commands, and would then keep half a job.
            taken: bool = await self._redis.transaction(
                take_over, keys.row, *staged, value_from_callable=True
            )
            if not taken:
                await self._redis.unlink(*staged)
            return taken

    async def get(self, job_id: str) -> JobInput | None:
        with redis_errors():
            return decode_row(await self._redis.get(JobKeys(self._prefix, job_id).row))

    async def jobs(self, tenant_id: str, limit: int, cursor: str | None) -> tuple[list[JobInput], str | None]:
        """
        Give a page of a tenant's jobs, the newest first.

        :param tenant_id: whose jobs.
        :param limit: how many at most.
        :param cursor: what the page before gave.
        :returns: the rows, and a cursor for the next page or None where there is none.
        :raises ValueError: when the cursor is none of this spool's.
        """
        if cursor is not None and not _CURSOR.fullmatch(cursor):
            raise ValueError("no cursor of this list")
        jobs: list[JobInput] = []
        listing, highest = self._listing(tenant_id), "+" if cursor is None else f"({cursor}"
        with redis_errors():
            while True:
                members = await self._redis.zrevrangebylex(listing, highest, "-", 0, PAGE)
                for member, row in zip(members, await self._listed(members), strict=True):
                    if len(jobs) == limit:
                        return jobs, listing_member(jobs[-1])
                    if row is None:  # expired
                        await self._redis.zrem(listing, member)
                    else:
                        jobs.append(row)
                if len(members) < PAGE:
                    return jobs, None
                highest = f"({members[-1].decode()}"

    async def unfinished(self, created_before: float) -> list[JobInput]:
        return await self._unfinished_in(self._unfinished, created_before)

    async def unfinished_of(self, tenant_id: str) -> list[JobInput]:
        return await self._unfinished_in(self._unfinished_jobs(tenant_id), "+inf")

    async def batch(self, job_id: str, start: int, count: int) -> list[tuple[int, Source]]:
        with redis_errors():
            members = await self._redis.zrangebyscore(
                JobKeys(self._prefix, job_id).sources, start, "+inf", 0, count
            )
        return [(position, Source(**data)) for position, data in map(decode_member, members)]

    async def content(self, job: JobInput, sha256: str) -> bytes | None:
        with redis_errors():
            found: bytes | None = await self._redis.get(JobKeys(self._prefix, job.job_id).file(sha256))
            return found

    async def put_results(self, job_id: str, results: Mapping[int, SourceResult]) -> None:
        keys = JobKeys(self._prefix, job_id)

        async def note(pipe: Any) -> None:
            row = decode_row(await pipe.get(keys.row))
            pipe.multi()
            # Who lost the job to another process comes too late; and what is noted of a job that is gone would stay.
            if row is None or row.finished_at is not None:
                return
            for first, last in ranges(sorted(results)):
                for status in SourceStatus:
                    pipe.zremrangebyscore(keys.outcomes(status), first, last)
            for status in SourceStatus:
                new = [outcome for outcome in results.items() if outcome[1].status is status]
                if new:
                    pipe.zadd(keys.outcomes(status), dict(map(outcome_member, new)))

        with redis_errors():
            await self._redis.transaction(note, keys.row)

    async def sources(
        self, job_id: str, start: int, limit: int, status: Collection[SourceStatus] | None = None
    ) -> list[tuple[int, SourceResult]]:
        keys = JobKeys(self._prefix, job_id)
        with redis_errors():
            async with self._redis.pipeline(transaction=True) as pipe:
                for wanted in SourceStatus if status is None else status:
                    pipe.zrangebyscore(keys.outcomes(wanted), start, "+inf", 0, limit)
                found = [decode_outcome(member) for members in await pipe.execute() for member in members]
        return sorted(found, key=lambda outcome: outcome[0])[:limit]

    async def finish(self, job: JobInput) -> None:
        keys = JobKeys(self._prefix, job.job_id)

        async def end(pipe: Any) -> None:
            row = decode_row(await pipe.get(keys.row))
            if row is None or row.run != job.run:
                pipe.multi()
                return
            done = [await self._positions(pipe, keys, status) for status in _DONE]
            still_open = [str(at) for status in _OPEN for at in await self._positions(pipe, keys, status)]
            files = texts(await pipe.hvals(keys.files))
            needed = texts(await pipe.hmget(keys.files, still_open) if files and still_open else [])
            dropped = await pipe.zscore(self._deleted(job.tenant_id), tombstone(None))
            kept = await pipe.zrange(keys.sources, 0, 0)
            pipe.multi()
            ended = row.model_copy(update={"finished_at": time.time()})
            pipe.set(keys.row, ended.model_dump_json())
            self._end(pipe, job)
            for first, last in ranges(sorted(position for positions in done for position in positions)):
                pipe.zremrangebyscore(keys.sources, first, last)
            for name in files - needed:
                pipe.unlink(keys.file(name))
            for key in keys.records:
                pipe.expire(key, self._job_ttl)
            if dropped and kept and decode_member(kept[0])[1]["accepted_at"] < dropped:
                pipe.unlink(*keys.staged(files))
                return
            for key in keys.staged(needed):
                pipe.expire(key, self._staged_ttl)

        with redis_errors():
            await self._redis.transaction(end, keys.row)

    async def reopen(self, job: JobInput, request_id: str, traceparent: str = "") -> JobInput | None:
        keys = JobKeys(self._prefix, job.job_id)

        async def begin(pipe: Any) -> JobInput | None:
            row = decode_row(await pipe.get(keys.row))
            if row is None or row.run != job.run:
                pipe.multi()
                return row
            ok, skipped = [await self._outcomes(pipe, keys, status) for status in _DONE]
            failed = {
                position: SourceResult(
                    document_id=result.document_id, name=result.name, status=SourceStatus.PENDING
                )
                for status in _OPEN
                for position, result in await self._outcomes(pipe, keys, status)
            }
            kept = await pipe.zcard(keys.sources)
            files = texts(await pipe.hvals(keys.files))
            there = [name for name in files if await pipe.exists(keys.file(name))]
            wanted = texts(await pipe.hmget(keys.files, [*map(str, failed)]) if files and failed else [])
            pipe.multi()
            if kept < row.total - len(ok) - len(skipped) or not wanted <= set(there):
                return None
            begun = row.model_copy(
                update={
                    "documents_ok": len(ok),
                    "documents_skipped": len(skipped),
                    "chunks_ok": sum(result.chunks for _, result in ok),
                    "run": row.run + 1,
                    "request_id": request_id,
                    "traceparent": traceparent,
                    "finished_at": None,
                }
            )
            pipe.set(keys.row, begun.model_dump_json())
            self._begin(pipe, begun)
            pipe.unlink(*map(keys.outcomes, _OPEN))
            if failed:
                pipe.zadd(keys.outcomes(SourceStatus.PENDING), dict(map(outcome_member, failed.items())))
            for key in (*keys.records, *keys.staged(there)):
                pipe.persist(key)
            return begun

        with redis_errors():
            result: JobInput | None = await self._redis.transaction(begin, keys.row, value_from_callable=True)
            return result

    async def forget(self, job_id: str) -> None:
        keys = JobKeys(self._prefix, job_id)
        with redis_errors():
            row = decode_row(await self._redis.get(keys.row))
            files = texts(await self._redis.hvals(keys.files))
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.unlink(*keys.records, *keys.staged(files))
                if row is not None:
                    self._end(pipe, row)
                    pipe.zrem(self._listing(row.tenant_id), listing_member(row))
                await pipe.execute()

    async def forget_sources(self, tenant_id: str) -> None:
        cursor: str | None = None
        while True:
            rows, cursor = await self.jobs(tenant_id, PAGE, cursor)
            with redis_errors():
                async with self._redis.pipeline(transaction=False) as pipe:
                    for row in rows:
                        pipe.exists(JobKeys(self._prefix, row.job_id).sources)
                    kept = await pipe.execute()
                for row, is_kept in zip(rows, kept, strict=True):
                    if is_kept:
                        await self._forget_sources(JobKeys(self._prefix, row.job_id))
            if cursor is None:
                return

    async def _forget_sources(self, keys: JobKeys) -> None:
        async def drop(pipe: Any) -> None:
            row = decode_row(await pipe.get(keys.row))
            files = texts(await pipe.hvals(keys.files))
            pipe.multi()
            if row is not None and row.finished_at is not None:
                pipe.unlink(*keys.staged(files))

        await self._redis.transaction(drop, keys.row)

    async def expire(self) -> None:
        """Take out of the lists what Redis has let expire; a list is looked through from its oldest job on."""
        with redis_errors():
            async for tenant in self._redis.sscan_iter(self._tenants):
                listing = self._listing(tenant.decode())
                while members := await self._redis.zrange(listing, 0, PAGE - 1):
                    rows = await self._listed(members)
                    gone = [member for member, row in zip(members, rows, strict=True) if row is None]
                    if gone:
                        await self._redis.zrem(listing, *gone)
                    if len(gone) < len(members):
                        break
                else:
                    await self._redis.srem(self._tenants, tenant)

    async def mark_deleted(self, tenant_id: str, document_id: str | None) -> None:
        key, kept = self._deleted(tenant_id), self._job_ttl + TOMBSTONE_SECONDS
        with redis_errors():
            now = await self._now()
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.zadd(key, {tombstone(document_id): now}, gt=True)
                pipe.zremrangebyscore(key, "-inf", now - kept)
                pipe.expire(key, kept)
                await pipe.execute()

    async def deleted_since(self, tenant_id: str, document_ids: Iterable[str]) -> dict[str, float]:
        ids = [*document_ids]
        with redis_errors():
            everything, *times = await self._redis.zmscore(
                self._deleted(tenant_id), [tombstone(None), *map(tombstone, ids)]
            )
        latest = {id_: max(time_ or 0.0, everything or 0.0) for id_, time_ in zip(ids, times, strict=True)}
        return {id_: time_ for id_, time_ in latest.items() if time_}

    async def _now(self) -> float:
        return int(await self._tick(keys=[f"{self._prefix}:clock"])) / 1_000_000

    async def _stage(
        self, staging: JobKeys, sources: Sequence[Source], files: Mapping[str, BinaryIO]
    ) -> None:
        pending = staging.outcomes(SourceStatus.PENDING)
        for start in range(0, len(sources), PART_SOURCES):
            part = list(enumerate(sources[start : start + PART_SOURCES], start))
            named = {position: source.file.sha256 for position, source in part if source.file is not None}
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.zadd(staging.sources, {member_of(at, source.model_dump()): at for at, source in part})
                pipe.zadd(pending, dict(pending_member(at, source) for at, source in part))
                if named:
                    pipe.hset(staging.files, mapping=named)
                for key in (staging.sources, pending, staging.files):
                    pipe.expire(key, STAGING_SECONDS)
                await pipe.execute()
        for name, content in files.items():
            content.seek(0)
            await self._redis.set(staging.file(name), b"", ex=STAGING_SECONDS)
            while part_of_file := await asyncio.to_thread(content.read, PART_BYTES):
                await self._redis.append(staging.file(name), part_of_file)

    def _begin(self, pipe: Any, job: JobInput) -> None:
        for key in (self._unfinished, self._unfinished_jobs(job.tenant_id)):
            pipe.zadd(key, {job.job_id: job.created_at})

    def _end(self, pipe: Any, job: JobInput) -> None:
        for key in (self._unfinished, self._unfinished_jobs(job.tenant_id)):
            pipe.zrem(key, job.job_id)

    async def _unfinished_in(self, key: str, created_before: float | str) -> list[JobInput]:
        with redis_errors():
            ids = await self._redis.zrangebyscore(key, "-inf", created_before)
            rows = await self._rows(id_.decode() for id_ in ids)
        return [row for row in rows if row is not None and row.finished_at is None]

    async def _rows(self, job_ids: Iterable[str]) -> list[JobInput | None]:
        keys = [JobKeys(self._prefix, job_id).row for job_id in job_ids]
        return [decode_row(found) for found in await self._redis.mget(keys)] if keys else []

    async def _listed(self, members: Sequence[bytes]) -> list[JobInput | None]:
        rows = await self._rows(map(job_of, members))
        # Under an id that was used again is another job, which has a member of its own.
        return [
            row if row is not None and listing_member(row) == member.decode() else None
            for member, row in zip(members, rows, strict=True)
        ]

    async def _positions(self, pipe: Any, keys: JobKeys, status: SourceStatus) -> list[int]:
        return [int(at) for _, at in await pipe.zrange(keys.outcomes(status), 0, -1, withscores=True)]

    async def _outcomes(
        self, pipe: Any, keys: JobKeys, status: SourceStatus
    ) -> list[tuple[int, SourceResult]]:
        return [decode_outcome(member) for member in await pipe.zrange(keys.outcomes(status), 0, -1)]

    @property
    def _tenants(self) -> str:
        return f"{self._prefix}:tenants"

    @property
    def _unfinished(self) -> str:
        return f"{self._prefix}:unfinished"

    def _unfinished_jobs(self, tenant_id: str) -> str:
        return f"{self._unfinished}:{tenant_id}"

    def _listing(self, tenant_id: str) -> str:
        return f"{self._prefix}:jobs:{tenant_id}"

    def _deleted(self, tenant_id: str) -> str:
        return f"{self._prefix}:deleted:{tenant_id}"
