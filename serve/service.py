"""What the service is made of, from its settings: registry, jobs, and the lock on its data."""

import asyncio
import gc
import logging
from typing import TYPE_CHECKING, Any

from components.storing import DocumentStoreError
from registry import ModeRegistry
from resources import Resources
from serve.access.asking import Access
from serve.answering import Answering
from serve.errors import LimitError
from serve.holdings import Holdings
from serve.indexer import find_pipeline
from serve.indexing import open_queue
from serve.ingestion_schemas import DEFAULT_PIPELINE
from serve.intake import Intake
from serve.jobs import Job, JobQueue, QueueUnavailableError
from serve.locking import DataDirLock
from serve.pacing import Activity
from serve.schemas import Ready
from serve.tracing.recording import Tracing
from settings import Settings

if TYPE_CHECKING:
    # What only works on jobs needs no Hayhooks application.
    from serve.hayhooks_door.wrappers import NativeWrapper

logger = logging.getLogger("thresher.service")

_CHECK_SECONDS = 3.0
_REOPEN_SECONDS = 1.0
_REDIS_FAULT = "Redis does not answer, or refuses to write; the log says why"
_JOBS_FILE_FAULT = "the jobs' file can't be read or written; the log says why"


class Service:
    """
    The running parts behind the HTTP routes and the command line.

    Making one takes the lock on `DATA_DIR`; `close` gives it back.
    """

    serves_wrappers = True
    """Whether the wrappers of `PIPELINES_DIR` are loaded with the application."""
    serves_itself = False
    """Whether this process is its own caller, who needs none of the keys that others are given."""

    def __init__(self, settings: Settings, resources: Resources | None = None, works: bool = True) -> None:
        """
        Take the data directory and load every mode; models are loaded by `start`.

        :param settings: the service's settings.
        :param resources: shared objects to use instead of those that the settings describe.
        :param works: whether jobs that are kept in the data directory are worked on; those in Redis are the workers'.
        :raises DataDirInUseError: if another process has the data directory.
        :raises KeysError: if there is no API key where there must be one, or they can't be read.
        """
        self.settings = settings
        self.access = Access(settings, self.serves_itself)
        self.lock = DataDirLock(settings.data_dir)
        self.lock.acquire()
        try:
            self.registry = ModeRegistry(settings, resources)
        except BaseException:
            self.lock.release()
            raise
        self.wrappers: dict[str, NativeWrapper] = {}
        self.answering = Answering(settings, self.registry)
        self.activity = Activity()
        works = works and settings.redis_url is None
        self.tracing = Tracing(settings)
        self.jobs: JobQueue = open_queue(
            settings, self.registry, self.tracing, works=works, activity=self.activity
        )
        self._warming: asyncio.Task[None] | None = None
        self._opening: asyncio.Task[None] | None = None
        shared = self.registry.resources
        logger.info(
            "documents: %s Chroma; embeddings: %s", shared.document_stores.location, shared.embedding_name
        )
        self.holdings = Holdings(self.registry, self.jobs)
        for fault in self.registry.faults:
            logger.error("%s", fault)

    async def start(self) -> None:
        """
        Begin to accept jobs and, where they are in this process, to work on them; load the models in the background.

        :raises QueueUnavailableError: if the job store in `DATA_DIR` can't be opened. Redis is waited for instead.
        """
        try:
            await self.jobs.start()
        except QueueUnavailableError as error:
            if self.settings.redis_url is None:
                raise
            logger.error("jobs can't be accepted yet: %s", error)
            self._opening = asyncio.create_task(self._open_jobs())
        self._warming = asyncio.create_task(asyncio.to_thread(self._warm_up))

    async def close(self) -> None:
        """Stop working, give everything back, and release the data directory."""
        try:
            while self._opening is not None and not self._opening.done():
                # Until it is: in Python 3.11 a task that waits for Redis may miss that it was cancelled.
                self._opening.cancel()
                await asyncio.wait({self._opening}, timeout=0.1)
            await self.jobs.close()
            await self.answering.limits.close()
            if self._warming is not None:
                await asyncio.gather(self._warming, return_exceptions=True)
            await self.registry.resources.close_async()
            await asyncio.to_thread(self.registry.close)
            await asyncio.to_thread(self.tracing.close)
        finally:
            self.lock.release()

    async def submit(self, intake: Intake, request_id: str, idempotency_key: str | None) -> Job:
        """
        Accept what a request brings as a job.

        :param intake: the request's content.
        :param request_id: the request's id.
        :param idempotency_key: the caller's name for the request; repeated, it gives the same job.
        :returns: the job.
        :raises UnknownPipelineError: if there is no indexing pipeline of that name.
        :raises BrokenPipelineError: if its file has faults.
        :raises LimitError: if there are files and it takes none.
        """
        pipeline = find_pipeline(self.registry, intake.pipeline)
        if intake.files and not pipeline.takes_files:
            takers = [name for name, other in self.registry.indexing.items() if other.takes_files]
            raise LimitError(
                "pipeline", f"'{pipeline.name}' takes no files; those that do: {', '.join(takers) or 'none'}"
            )
        submission = await self.jobs.submit(
            intake.tenant_id,
            intake.sources,
            request_id=request_id,
            pipeline=intake.pipeline,
            files=intake.files,
            idempotency_key=idempotency_key,
            body_digest=intake.digest,
        )
        return submission.job

    async def readiness(self) -> Ready:
        """
        Ask every dependency whether it can serve, all at once and no longer than a few seconds.

        :returns: what is there and what is in the way.
        """
        chroma, jobs, llm = await asyncio.gather(
            _state(self.registry.resources.document_stores.ping()),
            _state(self.jobs.ping(), _JOBS_FILE_FAULT if self.settings.redis_url is None else _REDIS_FAULT),
            _state(self.registry.resources.chat_models.check_async()),
        )
        loading = self._warming is None or not self._warming.done()
        problems = [fault.brief for fault in self.registry.faults]
        if DEFAULT_PIPELINE not in self.registry.indexing and not problems:
            problems.append(f"there is no indexing pipeline '{DEFAULT_PIPELINE}'")
        if not loading and self._warming is not None and self._warming.exception() is not None:
            problems.append("the models could not be loaded; the log says why")
        problems += [
            f"{name}: {state}"
            for name, state in (("chroma", chroma), ("jobs", jobs), ("llm", llm))
            if state != "ok"
        ]
        return Ready(
            status="degraded" if problems else "loading" if loading else "ok",
            chroma=chroma,
            store=self.registry.resources.document_stores.location,
            llm={**self.registry.resources.chat_models.describe(), "status": llm},
            embeddings=self.registry.resources.embedding_name,
            jobs=jobs,
            modes=list(self.registry),
            pipelines=list(self.registry.indexing),
            runnable=[*self.registry.plain, *self.wrappers],
            problems=problems,
        )

    async def _open_jobs(self) -> None:
        while True:
            await asyncio.sleep(_REOPEN_SECONDS)
            try:
                await self.jobs.start()
            except QueueUnavailableError:
                continue
            logger.info("jobs are accepted now")
            return

    def _warm_up(self) -> None:
        try:
            self.registry.warm_up()
        except Exception:
            logger.exception("the models could not be loaded")
            raise
        # What is loaded stays. Else a request that makes thousands of objects pays for looking through all of it.
        gc.collect()
        gc.freeze()
        served = {"modes": self.registry, "pipelines": self.registry.plain, "wrappers": self.wrappers}
        logger.info("ready: %s", "; ".join(f"{kind} {', '.join(of)}" for kind, of in served.items() if of))


async def _state(check: Any, fault: str = "does not answer") -> str:
    try:
        await asyncio.wait_for(check, _CHECK_SECONDS)
    except (TimeoutError, QueueUnavailableError):
        return fault
    except DocumentStoreError as error:
        return str(error)
    except Exception as error:
        logger.warning("readiness: %s: %s", type(error).__name__, error)
        return "unavailable"
    return "ok"
