"""Admission: whether one more job is taken, and when to ask again where it is not."""

import math
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from serve.jobs.engine import REVISION
from serve.jobs.errors import QueueFullError, TenantQueueFullError
from serve.jobs.spool import FairStore

DEFAULT_RETRY_AFTER = 5
LONGEST_RETRY_AFTER = 60


class Admission:
    """
    Keeps the limits of the queue and of each tenant.

    Usage example:
    ```python
    admission = Admission(store, max_jobs_per_tenant=1_000, seconds_per_job=lambda: None)
    async with admission.of("acme"):
        ...  # take the job
    ```
    """

    def __init__(
        self, store: FairStore, *, max_jobs_per_tenant: int, seconds_per_job: Callable[[], float | None]
    ) -> None:
        """
        :param store: counts the jobs, and knows how many the queue may hold.
        :param max_jobs_per_tenant: how many unfinished jobs of one tenant the queue holds.
        :param seconds_per_job: says how long it lately took until one more job had ended, where that is known.
        """
        self._store = store
        self._max_jobs_per_tenant = max_jobs_per_tenant
        self._seconds_per_job = seconds_per_job
        self._arriving: Counter[str] = Counter()

    async def check(self, tenant_id: str | None, arriving: int = 0) -> None:
        """
        :param tenant_id: whose job is to be taken, where that is known.
        :param arriving: how many of the tenant's are on their way in before it.
        :raises QueueFullError: when too many jobs are unfinished.
        :raises TenantQueueFullError: when too many of this tenant are.
        :raises ExecutionStoreError: when the store fails.
        """
        limit = self._store.config.max_nonterminal_executions
        if limit and (await self._store.operational_counts(revision=REVISION))["nonterminal"] >= limit:
            raise self.full()
        if tenant_id is not None:
            unfinished = await self._store.nonterminal_of(tenant_id) + arriving
            if unfinished >= self._max_jobs_per_tenant:
                raise TenantQueueFullError(self._max_jobs_per_tenant, self._retry_after())

    @asynccontextmanager
    async def of(self, tenant_id: str) -> AsyncIterator[None]:
        """
        Count a job while it arrives, so that many at once don't pass a limit side by side.

        :param tenant_id: whose job.
        :raises QueueFullError: as `check` does.
        :raises TenantQueueFullError: as `check` does.
        :raises ExecutionStoreError: as `check` does.
        """
        self._arriving[tenant_id] += 1
        try:
            await self.check(tenant_id, self._arriving[tenant_id] - 1)
            yield
        finally:
            self._arriving[tenant_id] -= 1
            if not self._arriving[tenant_id]:
                del self._arriving[tenant_id]

    def full(self) -> QueueFullError:
        """Make the error of a full queue, with a time after which one more job may have ended."""
        return QueueFullError(self._retry_after())

    def _retry_after(self) -> int:
        seconds = self._seconds_per_job()
        if seconds is None:
            return DEFAULT_RETRY_AFTER
        return max(1, min(LONGEST_RETRY_AFTER, math.ceil(seconds)))
