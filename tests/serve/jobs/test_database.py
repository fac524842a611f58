"""JobDatabase and what only the spool in it does: its log stays short, deletions are forgotten in time."""

import asyncio
import time
from pathlib import Path

from serve.jobs.database import LONG_WAL_BYTES, JobDatabase
from serve.jobs.model import JobInput
from serve.jobs.sqlite_spool import SqliteJobSpool
from tests.job_parts import make_sources


def test_log_stays_short(tmp_path: Path) -> None:
    """However much is written, the log is copied into the file and begun anew, and all of it can be read."""
    path = tmp_path / "jobs.sqlite3"

    async def scenario() -> int:
        database = JobDatabase(path)
        await database.open()
        await database.write(lambda db: db.execute("CREATE TABLE blobs (data BLOB)"))
        longest = 0
        for _ in range(40):
            await database.write(lambda db: db.execute("INSERT INTO blobs VALUES (zeroblob(2000000))"))
            longest = max(longest, (tmp_path / "jobs.sqlite3-wal").stat().st_size)
            if database._copying is not None:
                await asyncio.wrap_future(database._copying)
        count = await database.read(lambda db: db.execute("SELECT COUNT(*) FROM blobs").fetchone()[0])
        await database.close()
        assert count == 40
        return longest

    assert asyncio.run(scenario()) < 2 * LONG_WAL_BYTES
    assert path.stat().st_size > 80_000_000


def test_deletions_are_kept_as_long_as_a_job_may_undo_them(tmp_path: Path) -> None:
    """A deletion is forgotten only when every job that is known came long after it."""

    async def scenario() -> None:
        spool = SqliteJobSpool(JobDatabase(tmp_path / "jobs.sqlite3"), tmp_path / "staged")
        await spool.open()
        old = JobInput(job_id="a" * 32, tenant_id="acme", total=1, created_at=time.time() - 10)
        late = JobInput(job_id="b" * 32, tenant_id="acme", total=1, created_at=time.time() + 7_200)
        for job in (old, late):
            await spool.put(job, make_sources(1), {})
        await spool.mark_deleted("acme", "d0")
        await spool.expire()
        assert list(await spool.deleted_since("acme", ["d0"])) == ["d0"]
        await spool.forget(old.job_id)
        await spool.expire()
        assert await spool.deleted_since("acme", ["d0"]) == {}
        await spool.close()

    asyncio.run(scenario())
