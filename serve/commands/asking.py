"""Asking many questions of a service, some at a time, through whatever happens to the service meanwhile."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from serve.commands.answers import AnswerFile
from serve.commands.client import Client
from serve.commands.questions import AskedQuestion
from serve.commands.replies import Json, ServiceError, answer_in, problem_in, told, wait_in

Report = Callable[[bool], None]

# With Retry-After they pass: the service has much to do, or another one takes over.
_PASSING = (429, 503)
_KEPT_OUT = (401, 403)
_FULL = (":overloaded", ":rate-limited", ":too-many-requests")
_TRIES = 5
_MAX_WAIT_SECONDS = 60.0


class Asking:
    """
    Asks questions and writes each answer as it comes.

    A question is asked again when the connection breaks, for a question changes nothing; what was answered is not.
    """

    def __init__(self, client: Client, answers: AnswerFile, report: Report, problems: Counter[str]) -> None:
        """
        Remember whom to ask.

        :param client: the way to the service, reached.
        :param answers: takes the answers.
        :param report: told of each question that is through whether it was answered.
        :param problems: counts why questions fail, by reason.
        """
        self._client = client
        self._answers = answers
        self._report = report
        self._reaching = asyncio.Lock()
        self._problems = problems
        self._refusal: ServiceError | None = None

    async def ask(self) -> None:
        """
        Ask what has no answer yet; when this is cancelled, the service stops working on what is under way.

        :raises ServiceError: if the service lets nobody in with this key, which it would say of every question.
        """
        settings = self._client.settings
        waiting = iter(self._answers.open_questions)
        async with httpx.AsyncClient(timeout=settings.request_timeout + 10, trust_env=False) as http:
            workers = (self._work(http, waiting) for _ in range(settings.batch_concurrency))
            await asyncio.gather(*workers)
        if self._refusal:
            raise self._refusal

    async def _work(self, http: httpx.AsyncClient, waiting: Iterator[AskedQuestion]) -> None:
        for question in waiting:
            if self._refusal:
                return
            try:
                outcome = await self._outcome(http, question)
            except ServiceError as error:
                self._refusal = error
                return
            self._answers.add(question, outcome)
            if problem := outcome.get("problem"):
                self._problems[told(problem)] += 1
            self._report("result" in outcome)

    async def _outcome(self, http: httpx.AsyncClient, question: AskedQuestion) -> Json:
        problem: Json = {}
        tries = 0
        while tries < _TRIES:
            tries += 1
            url = self._client.url
            try:
                # Those of the service that is asked now.
                headers = _HEADERS | self._client.headers
                content = question.for_tenant(self._client.tenant_here)
                response = await http.post(f"{url}/query/", content=content, headers=headers)
            except (httpx.ReadTimeout, httpx.WriteTimeout):
                return {"problem": {"status": 504, "detail": "the service takes too long"}}
            except httpx.TransportError as error:
                problem = {"status": 503, "detail": f"the service does not answer: {error}"}
                await self._reach(url)
                continue
            if response.is_success:
                return _result(response)
            if response.status_code in _KEPT_OUT:
                answer_in(response)
            problem, wait = problem_in(response), wait_in(response)
            if response.status_code not in _PASSING or wait is None:
                break
            if str(problem.get("type")).endswith(_FULL):
                # It answers others meanwhile, mostly our own.
                tries -= 1
            await asyncio.sleep(min(wait, _MAX_WAIT_SECONDS))
        return {"problem": problem}

    async def _reach(self, lost: str) -> None:
        async with self._reaching:
            # One of the workers finds the service for all of them.
            if self._client.url == lost:
                await asyncio.to_thread(self._client.reach_again)


def _result(response: httpx.Response) -> Json:
    try:
        return {"result": answer_in(response)}
    except ServiceError as error:
        return {"problem": {"status": 502, "detail": str(error)}}


_HEADERS = {"Content-Type": "application/json", "Accept": "application/json"}


@contextmanager
def asking_bar(console: Console, total: int, finished: int) -> Iterator[Report]:
    """
    Show how far the questions of a file are, on a terminal.

    :param console: where to.
    :param total: how many questions there are.
    :param finished: how many of them had an answer before.
    :returns: told of each question that is through whether it was answered.
    """
    columns = (
        TextColumn("asking"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("[red]{task.fields[trouble]}[/]"),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total, completed=finished, trouble="")
        failed = 0

        def report(answered: bool) -> None:
            nonlocal failed
            failed += not answered
            progress.update(task, advance=1, trouble=f"{failed} failed" if failed else "")

        yield report
