"""Answering questions for the callers of every door, under the service's limits."""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Unpack

from haystack.dataclasses import ChatMessage

from components.models.chat_models import EXTRACTIVE
from modes.mode import Mode, RunInputs
from modes.recording import StreamEvent
from modes.results import QueryResult
from registry import ModeRegistry
from serve import timing
from serve.errors import LimitError
from serve.limiting.admission import Admission
from serve.limiting.limits import CallerLimits
from serve.telemetry import current_request_id
from serve.watching import FinishedRun, RunWatcher, tell
from settings import Settings


@dataclass
class _Outcome:
    result: QueryResult | None = None
    first_token: float | None = None
    began: bool = False


class Answering:
    """
    Asks the modes for whoever came through a door: HTTP, OpenAI's protocol, MCP, Hayhooks.

    Usage example:
    ```python
    result = await answering.ask("crag", "What is a mode?", tenant_id="demo")
    async for event in answering.stream("crag", "What is a mode?", tenant_id="demo"):
        print(event.kind, event.data)
    ```
    """

    def __init__(self, settings: Settings, registry: ModeRegistry) -> None:
        """
        Remember the limits and the modes.

        :param settings: the service's settings.
        :param registry: the modes.
        """
        self.settings = settings
        self.registry = registry
        self.limits = CallerLimits(settings)
        registry.resources.chat_models.watchers.append(self.limits.call_ended)
        self.watchers: list[RunWatcher] = []
        self.admission = Admission(self._most_questions)

    async def ask(
        self,
        mode: str,
        query: str,
        history: Sequence[ChatMessage] = (),
        timeout: float | None = None,
        patient: bool = False,
        **inputs: Unpack[RunInputs],
    ) -> QueryResult:
        """
        Answer a question.

        :param mode: which mode answers.
        :param query: the question.
        :param history: the conversation before it.
        :param timeout: seconds that the caller waits; at most `REQUEST_TIMEOUT` counts.
        :param patient: whether the question waits until there is room for it, and its time begins only then.
        :param inputs: what else the mode is given.
        :returns: the answer.
        :raises UnknownModeError: if there is no such mode.
        :raises LimitError: if the question, the instructions or `top_k` are over their limit.
        :raises RateLimitedError: if the caller has used up its tokens.
        :raises OverloadedError: if there is no room for it.
        :raises QueryTimeoutError: if it takes too long.
        """
        self._check(query, inputs)
        asked = self.registry[mode]
        with self._watched(mode, query, history, inputs) as outcome:
            async with self._admitted(inputs, timeout, patient) as seconds:
                outcome.began = True
                result = await asked.run_async(query, history, seconds, **inputs)
            outcome.result = result
        timing.note(result)
        return result

    def stream(
        self,
        mode: str,
        query: str,
        history: Sequence[ChatMessage] = (),
        timeout: float | None = None,
        **inputs: Unpack[RunInputs],
    ) -> AsyncGenerator[StreamEvent, None]:
        """
        Answer a question while telling what happens; see `ask`.

        :param mode: which mode answers.
        :param query: the question.
        :param history: the conversation before it.
        :param timeout: seconds that the caller waits; at most `REQUEST_TIMEOUT` counts.
        :param inputs: what else the mode is given.
        :returns: the events, last `result`; closing the generator cancels the run. What the mode raises, its iteration
            raises.
        :raises UnknownModeError: if there is no such mode.
        :raises LimitError: if the question, the instructions or `top_k` are over their limit.
        """
        self._check(query, inputs)
        return self._watched_stream(self.registry[mode], query, history, timeout, inputs)

    async def _watched_stream(
        self,
        mode: Mode,
        query: str,
        history: Sequence[ChatMessage],
        timeout: float | None,
        inputs: RunInputs,
    ) -> AsyncGenerator[StreamEvent, None]:
        with self._watched(mode.name, query, history, inputs) as outcome:
            async with (
                self._admitted(inputs, timeout) as seconds,
                aclosing(mode.stream(query, history, seconds, **inputs)) as events,
            ):
                outcome.began = True
                async for event in events:
                    if isinstance(event.data, QueryResult):
                        outcome.result = event.data
                    elif event.kind == "token" and outcome.first_token is None:
                        outcome.first_token = time.perf_counter()
                    yield event

    @contextmanager
    def _watched(
        self, mode: str, query: str, history: Sequence[ChatMessage], inputs: RunInputs
    ) -> Iterator[_Outcome]:
        """Tell the watchers of what runs inside, which notes its outcome."""
        outcome = _Outcome()
        error: BaseException | None = None
        started_at, begin = datetime.now(UTC), time.perf_counter()
        try:
            yield outcome
        except BaseException as raised:
            error = raised
            raise
        finally:
            result, first = outcome.result, outcome.first_token
            seconds = time.perf_counter() - begin
            request_id = current_request_id()
            run = FinishedRun(
                request_id,
                mode,
                query,
                history,
                inputs,
                started_at,
                seconds,
                result,
                None if result else error,
                None if first is None else first - begin,
                outcome.began,
            )
            tell(self.watchers, run)

    @asynccontextmanager
    async def _admitted(
        self, inputs: RunInputs, timeout: float | None, patient: bool = False
    ) -> AsyncIterator[float]:
        limit = self.settings.request_timeout
        seconds = limit if timeout is None else min(timeout, limit)
        await self.limits.check_tokens()
        async with self.admission.question(inputs.get("tenant_id", ""), seconds, patient) as left:
            yield left

    def _most_questions(self) -> int | None:
        if self.settings.max_questions is not None:
            return self.settings.max_questions
        # Each of them asks the model, most of them once; without one there is nothing that they wait for.
        models = self.registry.resources.chat_models
        return None if models.provider == EXTRACTIVE else models.concurrency

    def _check(self, query: str, inputs: RunInputs) -> None:
        limit = self.settings.max_question_chars
        if len(query) > limit:
            raise LimitError(
                "q", f"has {len(query)} characters; at most {limit} (MAX_QUESTION_CHARS) are accepted"
            )
        wishes = len(inputs.get("instructions") or "")
        if wishes > limit:
            raise LimitError(
                "instructions",
                f"have {wishes} characters, in a chat with the system and developer messages; at most {limit} "
                "(MAX_QUESTION_CHARS) are accepted",
            )
        top_k, limit = inputs.get("top_k"), self.settings.max_top_k
        if top_k is not None and top_k > limit:
            raise LimitError("k", f"is {top_k}; at most {limit} (MAX_TOP_K) are accepted")
