"""Where runs are kept."""

from collections.abc import Callable, Sequence
from typing import Protocol

from serve.traces.records import KeptRun

RUNS_OF_A_REQUEST = 200
"""How many runs of one request are told; a batch has many."""
FULL_TENANTS = 10
"""The runs of how many tenants that have all they may have the whole store holds."""
MARK_SECONDS = 24 * 3_600.0
"""How long it is remembered that a tenant was forgotten; no question takes that long."""


class TraceStore(Protocol):
    """
    Keeps runs for a while, of each tenant only so many, and in all no more than `FULL_TENANTS` times as many.

    Called from threads. Two tenants may have requests of one id, for callers choose their ids; neither sees the other's
    runs. Every method raises `TraceStoreError` when the store fails.
    """

    def put(self, runs: Sequence[KeptRun]) -> None:
        """Keep runs, but none that began before its tenant was forgotten."""

    def find(self, request_id: str, may_read: Callable[[str], bool]) -> list[KeptRun]:
        """
        Give the runs of a request, in order.

        :param request_id: the request's id.
        :param may_read: tells whether a tenant's runs are asked for.
        :returns: the runs; none where none is known.
        """

    def forget(self, tenant_id: str) -> int:
        """
        Forget all runs of a tenant, and those that have begun and have not ended.

        :param tenant_id: the tenant.
        :returns: how many there were.
        """

    def close(self) -> None:
        """Let go of the store."""
