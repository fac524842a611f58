"""Keeping jobs in Redis, which any number of processes share; and choosing between that and SQLite."""

from components.breaking import Breaker
from serve.jobs.backend import DAY, DEPLOYMENT, JobBackend, sqlite_backend, store_config
from serve.jobs.presence import WorkerPresence
from serve.jobs.redis_client import RedisOutage, open_redis
from serve.jobs.redis_spool import RedisJobSpool
from serve.jobs.redis_store import FairRedisStore
from settings import Settings


def open_backend(settings: Settings) -> JobBackend:
    """
    Choose where jobs are kept.

    :param settings: `REDIS_URL` decides.
    :returns: the backend; nothing is opened yet.
    """
    if settings.redis_url is None:
        return sqlite_backend(
            settings.data_dir,
            max_jobs=settings.max_queued_jobs,
            job_ttl=settings.job_ttl,
            staged_ttl=settings.staged_ttl,
        )
    return redis_backend(
        settings.redis_url.get_secret_value(),
        settings.redis_prefix,
        max_jobs=settings.max_queued_jobs,
        job_ttl=settings.job_ttl,
        staged_ttl=settings.staged_ttl,
        breaker=Breaker("Redis", settings.breaker_failures, settings.breaker_seconds),
    )


def redis_backend(
    url: str,
    prefix: str,
    *,
    max_jobs: int = 10_000,
    job_ttl: int = 7 * DAY,
    staged_ttl: int = 7 * DAY,
    breaker: Breaker | None = None,
) -> JobBackend:
    """
    Keep jobs, and the files that they bring, in Redis.

    :param url: `redis://…`, `rediss://…` or `unix://…`.
    :param prefix: what every key begins with.
    :param max_jobs: how many unfinished jobs there may be.
    :param job_ttl: seconds for which a finished job is known.
    :param staged_ttl: seconds for which sources that were not done are kept after the end of their job.
    :param breaker: opens when Redis keeps failing.
    :returns: the backend; nothing is opened yet.
    """
    breaker = breaker or Breaker("Redis")
    client, outage = open_redis(url), RedisOutage(breaker)
    config = store_config(max_jobs=max_jobs, job_ttl=job_ttl)
    store = FairRedisStore(client, DEPLOYMENT, config=config, key_prefix=f"{prefix}:jobs")
    spool = RedisJobSpool(client, f"{prefix}:spool", job_ttl=job_ttl, staged_ttl=staged_ttl)
    presence = outage.watch(WorkerPresence(client, f"{prefix}:workers"))
    return JobBackend(outage.watch(store), outage.watch(spool), presence, breaker)
