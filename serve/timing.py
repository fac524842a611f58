"""`Server-Timing`: what an answer's time went into, for whoever looks at the headers alone."""

import re
from contextvars import ContextVar

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Receive, Scope, Send

from modes.results import QueryResult
from serve.http_middleware import HttpMiddleware

_NO_NAME = re.compile(r"[^A-Za-z0-9_.-]")
# Without a comma, at which simple readers part the header.
_NO_TEXT = re.compile(r"[^ !#-+\--\[\]-~]")

# A list, for what a route's task notes in it is seen by the middleware around that task.
_answers: ContextVar[list[QueryResult] | None] = ContextVar("answers", default=None)


def note(result: QueryResult) -> None:
    """
    Remember what an answer took, for the response that is being made, if there is one.

    :param result: the answer.
    """
    if (answers := _answers.get()) is not None:
        answers.append(result)


class ServerTimingMiddleware(HttpMiddleware):
    """Puts the times of the answers that were made for a response on it; of many answers, their sums."""

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        answers: list[QueryResult] = []

        async def timed(message: Message) -> None:
            if message["type"] == "http.response.start" and answers:
                MutableHeaders(scope=message)["server-timing"] = server_timing(answers)
            await send(message)

        token = _answers.set(answers)
        try:
            await self.app(scope, receive, timed)
        finally:
            _answers.reset(token)


def server_timing(answers: list[QueryResult]) -> str:
    """
    Write the header's value.

    :param answers: one answer or more.
    :returns: milliseconds of each stage, of all model calls with the models and their tokens, and in total.
    """
    times: dict[str, float] = {}
    for answer in answers:
        for stage, seconds in answer.timings.items():
            name = _NO_NAME.sub("_", stage)
            times[name] = times.get(name, 0.0) + seconds
    tokens = [
        sum(getattr(a.usage, field) for a in answers) for field in ("prompt_tokens", "completion_tokens")
    ]
    models = " and ".join(dict.fromkeys(_NO_TEXT.sub("?", a.model) for a in answers if a.model))
    about = {"llm": f';desc="{models} {tokens[0]}+{tokens[1]} tokens"'}
    return ", ".join(
        f"{name};dur={1000 * seconds:.1f}{about.get(name, '')}" for name, seconds in times.items()
    )
