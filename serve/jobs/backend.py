"""JobBackend: where jobs are kept, as `JobQueue` takes it; here in one directory of one machine."""

from dataclasses import dataclass
from pathlib import Path

from hayhooks.durable import StoreConfig

from components.breaking import Breaker
from serve.jobs.database import JobDatabase
from serve.jobs.presence import WorkerPresence
from serve.jobs.spool import FairStore, JobSpool
from serve.jobs.sqlite_spool import SqliteJobSpool
from serve.jobs.store import SqliteExecutionStore

DEPLOYMENT = "ingest"
DATABASE_NAME = "jobs.sqlite3"
FOLDER_NAME = "staged"
DAY = 24 * 3_600


@dataclass(frozen=True)
class JobBackend:
    """The two places of one kind; `store` must be that of the deployment `DEPLOYMENT`."""

    store: FairStore
    spool: JobSpool
    presence: WorkerPresence | None = None
    """Where workers show themselves, if they are other processes."""
    breaker: Breaker | None = None
    """Opens when a store that is a server keeps failing."""


def sqlite_backend(
    data_dir: Path, *, max_jobs: int = 10_000, job_ttl: int = 7 * DAY, staged_ttl: int = 7 * DAY
) -> JobBackend:
    """
    Keep jobs in a SQLite file, and the files that they bring beside it.

    :param data_dir: the directory, on a local disk; this process must own it alone.
    :param max_jobs: how many unfinished jobs there may be.
    :param job_ttl: seconds for which a finished job is known.
    :param staged_ttl: seconds for which sources that were not done are kept after the end of their job.
    :returns: the backend.
    """
    database = JobDatabase(data_dir / DATABASE_NAME)
    store = SqliteExecutionStore(
        DEPLOYMENT, database, config=store_config(max_jobs=max_jobs, job_ttl=job_ttl), exclusive=True
    )
    spool = SqliteJobSpool(database, data_dir / FOLDER_NAME, job_ttl=job_ttl, staged_ttl=staged_ttl)
    return JobBackend(store, spool)


def store_config(*, max_jobs: int, job_ttl: int) -> StoreConfig:
    """
    :param max_jobs: how many unfinished jobs there may be.
    :param job_ttl: seconds for which a finished job is known.
    :returns: Hayhooks' limits for a store of jobs.
    """
    return StoreConfig(
        max_nonterminal_executions=max_jobs,
        terminal_ttl_seconds=job_ttl,
        max_stream_chunks=0,
    )
