"""Figures for Prometheus: what a process counts of its requests, runs, model calls and jobs.

No label holds what a caller chooses freely: routes, modes, stages, models and kinds of problems are known beforehand.
"""

import platform
import time
from collections.abc import Callable, Container, Iterable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from components.models.watching import FinishedCall
from serve.jobs import JobInput, JobStatus, SourceResult
from serve.telemetry.run_metrics import SECONDS, RunMetrics, outcome_of

# A second series for each, of which nobody asks.
disable_created_metrics()

JOB_SECONDS = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 4 * 3_600.0)


class Metrics:
    """
    Everything that one process counts.

    Usage example:
    ```python
    metrics = Metrics(version="1.0.0", modes={"standard"})
    answering.watchers.append(metrics.runs)
    print(prometheus_client.generate_latest(metrics.registry).decode())
    ```
    """

    def __init__(
        self, version: str, modes: Container[str] = (), is_tenant: Callable[[str], bool] | None = None
    ) -> None:
        """
        Begin with nothing counted.

        :param version: the service's version.
        :param modes: the names of the modes.
        :param is_tenant: tells at once whether there is such a tenant; without it no runs are counted by tenant.
        """
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        build = Info("thresher_build", "What runs.", registry=self.registry)
        build.info({"version": version, "python": platform.python_version()})
        self.requests = RequestMetrics(self.registry)
        self.runs = RunMetrics(self.registry, modes, is_tenant)
        self.calls = CallMetrics(self.registry)
        self.jobs = JobMetrics(self.registry)


class RequestMetrics:
    """Counts HTTP requests."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """
        Begin with none.

        :param registry: where the figures are found.
        """
        self.count = Counter(
            "thresher_http_requests",
            "Requests answered, by route, method and class of status; 'none' where no answer was begun.",
            ["route", "method", "status"],
            registry=registry,
        )
        self.seconds = Histogram(
            "thresher_http_request_duration_seconds",
            "Time from a request to the end of its answer, by route.",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.under_way = Gauge(
            "thresher_http_requests_in_flight", "Requests that are being answered.", registry=registry
        )
        self.problems = Counter(
            "thresher_problems",
            "Problems that requests were answered with, by kind: refusals by limits among them.",
            ["kind"],
            registry=registry,
        )


class CallMetrics:
    """Counts calls of language models; `ended` is a `CallWatcher`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """
        Begin with none.

        :param registry: where the figures are found.
        """
        self._calls = Counter(
            "thresher_llm_calls",
            "Calls of language models, by model and outcome: 'ok', 'left', or the kind of problem.",
            ["model", "outcome"],
            registry=registry,
        )
        self._seconds = Histogram(
            "thresher_llm_call_duration_seconds",
            "Time of a call, without the wait for a free slot, by model.",
            ["model"],
            buckets=SECONDS,
            registry=registry,
        )
        self._tokens = Counter(
            "thresher_llm_tokens",
            "Tokens, by model and whether they were read (prompt) or written (completion).",
            ["model", "kind"],
            registry=registry,
        )

    def ended(self, call: FinishedCall) -> None:
        """
        Count a call.

        :param call: the call.
        """
        self._calls.labels(call.model, outcome_of(call.error)).inc()
        self._seconds.labels(call.model).observe(call.seconds)
        for kind in ("prompt", "completion"):
            self._tokens.labels(call.model, kind).inc(call.usage.get(f"{kind}_tokens") or 0)


class JobMetrics:
    """Counts the work on jobs of this process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """
        Begin with none.

        :param registry: where the figures are found.
        """
        self._ended = Counter(
            "thresher_jobs_ended",
            "Jobs that this process worked on to their end, by kind and outcome.",
            ["kind", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "thresher_job_duration_seconds",
            "Time from a job's acceptance to its end, by kind.",
            ["kind"],
            buckets=JOB_SECONDS,
            registry=registry,
        )
        self._documents = Counter(
            "thresher_documents",
            "Documents that jobs were through with, by outcome.",
            ["status"],
            registry=registry,
        )
        self._chunks = Counter("thresher_chunks_indexed", "Chunks that jobs wrote.", registry=registry)

    def ended(self, job: JobInput, status: JobStatus) -> None:
        """
        Count a job.

        :param job: the job.
        :param status: how it ended.
        """
        self._ended.labels(job.kind, status).inc()
        # Of a job that is run once more, since its first beginning.
        self._seconds.labels(job.kind).observe(max(0.0, time.time() - job.created_at))

    def indexed(self, results: Iterable[SourceResult]) -> None:
        """
        Count what became of documents.

        :param results: one for each.
        """
        for result in results:
            self._documents.labels(result.status).inc()
            self._chunks.inc(result.chunks)
