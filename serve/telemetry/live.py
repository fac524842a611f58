"""What stands now, read when Prometheus asks: queues, slots and breakers."""

import asyncio
import logging
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from resources import Resources
from serve.jobs import JobQueue, QueueUnavailableError
from serve.limiting.admission import Admission

logger = logging.getLogger("thresher.metrics")

_STORE_SECONDS = 2.0
_BREAKER_STATES = ("closed", "half-open", "open")


class LiveFigures(Collector):
    """Reads the state of a process's parts; what has not been used yet has no figure."""

    def __init__(self, resources: Resources, jobs: JobQueue, admission: Admission | None = None) -> None:
        """
        Remember what to look at.

        :param resources: have the language models and the breakers.
        :param jobs: the queue.
        :param admission: lets questions in, where there are any.
        """
        self._resources = resources
        self._jobs = jobs
        self._admission = admission
        self._job_counts: dict[str, int] | None = None

    async def refresh(self) -> None:
        """Ask the job store, which may be far; without an answer there are no figures of it."""
        self._job_counts = None
        try:
            self._job_counts = await asyncio.wait_for(self._jobs.counts(), _STORE_SECONDS)
        except (QueueUnavailableError, TimeoutError) as error:
            logger.debug("no figures of the jobs: %s", type(error).__name__)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """
        Give the figures.

        :returns: them.
        """
        yield _gauge(
            "thresher_job_store_up", "Whether the job store answered.", int(self._job_counts is not None)
        )
        if self._job_counts is not None:
            about = "Jobs that have not ended, by state, in the whole job store."
            yield _gauges("thresher_jobs", about, "state", self._job_counts)
        if self._admission is not None:
            yield _gauge("thresher_questions_in_flight", "Questions being answered.", self._admission.taken)
            yield _gauge(
                "thresher_questions_waiting", "Questions that wait to be let in.", self._admission.waiting
            )
        yield from self._model_figures()
        breakers = dict(self._resources.breakers)
        if self._jobs.breaker is not None:
            breakers["redis"] = self._jobs.breaker
        family = GaugeMetricFamily(
            "thresher_breaker_state",
            "1 for the state in which the circuit breaker of a dependency is, else 0.",
            labels=("dependency", "state"),
        )
        for name, breaker in breakers.items():
            state = breaker.state
            for possible in _BREAKER_STATES:
                family.add_metric((name, possible), int(state == possible))
        yield family

    def _model_figures(self) -> Iterator[GaugeMetricFamily]:
        models = self._resources.chat_models
        slots = models.slots
        yield _gauge("thresher_llm_slots", "Language model calls that may run at a time.", models.concurrency)
        yield _gauge("thresher_llm_calls_running", "Language model calls that run.", slots.taken)
        yield _gauge(
            "thresher_llm_calls_waiting", "Language model calls that wait for a slot.", slots.waiting
        )

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """
        Give no names beforehand, so that nothing is read when this is registered.

        :returns: nothing.
        """
        yield from ()


def _gauge(name: str, about: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, about, value=value)


def _gauges(name: str, about: str, label: str, values: dict[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, about, labels=(label,))
    for key, value in values.items():
        family.add_metric((key,), value)
    return family
