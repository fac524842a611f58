"""What happens inside a run, told to whoever listens: searches, grades, tokens, model calls, stage times.

The sink is a context variable, so that it reaches components inside stages without passing through sockets.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from haystack.tracing import tracer

Sink = Callable[[str, dict[str, Any]], None]

_sink: ContextVar[Sink | None] = ContextVar("event_sink", default=None)
_tokens: ContextVar[bool] = ContextVar("event_tokens", default=False)


def emit(kind: str, **data: Any) -> None:
    """
    Tell the listener of this run, if there is one.

    :param kind: `retrieval` (`query`, `documents`), `grades` (`grades`), `rephrased` (`query`), `standalone_question`
        (`query`), `prompt` (`hash`, `documents`, and for each the `places` of its text that are in the prompt),
        `token` (`text`), `llm_call` (`model`, `usage`, `finish_reason`, `seconds`), `stage_started` (`name`), `stage`
        (`name`, `seconds`), `component_started` (`name`) or `component_ended` (`name`).
    :param data: what there is to tell.
    """
    if (sink := _sink.get()) is not None:
        sink(kind, data)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """
    Tell when a stage begins, and how long it took when it ends well.

    :param name: the stage's name.
    """
    begin = time.perf_counter()
    emit("stage_started", name=name)
    with tracer.trace(f"stage {name}"):
        yield
    emit("stage", name=name, seconds=time.perf_counter() - begin)


def wants_tokens() -> bool:
    """
    Say whether the listener wants the answer token by token, which costs more than one reply.

    :returns: whether a generator should stream.
    """
    return _tokens.get()


@contextmanager
def listen(sink: Sink, tokens: bool = False) -> Iterator[None]:
    """
    Hear the events of what runs inside the `with` block, and of the tasks and threads that it starts.

    :param sink: called with kind and data; must be quick and must not raise.
    :param tokens: also ask the answering generator for `token` events.
    """
    sink_token, tokens_token = _sink.set(sink), _tokens.set(tokens)
    try:
        yield
    finally:
        _sink.reset(sink_token)
        _tokens.reset(tokens_token)
