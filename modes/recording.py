"""What a run tells while it goes on: its events for a listener, and its tokens, model and times for the result."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from modes.results import (
    Citation,
    Fallback,
    Grade,
    Grades,
    QueryResult,
    Rephrased,
    Retrieval,
    RetrievedDocument,
    StandaloneQuestion,
    Token,
    Usage,
)

EventKind = Literal[
    "standalone_question", "retrieval", "grades", "rephrased", "fallback", "token", "citation", "result"
]
EventData = StandaloneQuestion | Retrieval | Grades | Rephrased | Fallback | Token | Citation | QueryResult
Heard = list[tuple[str, dict[str, Any]]]
_EXPLAINING = ("retrieval", "grades", "prompt")


@dataclass(frozen=True)
class StreamEvent:
    """
    Something that happened while a mode ran.

    In the order of a run: `standalone_question` (the question made self-contained from the conversation), `retrieval`
    (a search and its chunks), `grades`, `rephrased` (then `retrieval` and `grades` come once more), `fallback` (from
    here on another mode answers), `token` (a piece of the answer as the model writes it), `citation` (one for each,
    checked), `result` (all of it, final).
    """

    kind: EventKind
    data: EventData


class RunRecord:
    """What one run told."""

    def __init__(self, tell: Callable[[StreamEvent], Any] | None = None, explains: bool = False) -> None:
        """
        Begin with nothing told.

        :param tell: called with each event as it happens, from any thread; None when nobody listens.
        :param explains: whether to keep what an explanation is made from.
        """
        self.heard: Heard | None = [] if explains else None
        """What an explanation is made from, in the order in which it happened."""
        self.fallback: Fallback | None = None
        self.prompt_hash: str | None = None
        self.usage = Usage()
        self.model: str | None = None
        self.finish_reason: str | None = None
        self.standalone_question: str | None = None
        self.timings: dict[str, float] = {}
        self._tell = tell
        self._told: set[EventKind] = set()
        self._stages: list[tuple[str, float]] = []
        self._dropped: dict[str, bool] = {}
        self._components: list[str] = []
        self._through: set[str] = set()

    @property
    def streams(self) -> bool:
        """Whether somebody wants the answer token by token."""
        return self._tell is not None

    @property
    def running(self) -> str | None:
        """The stage, or the component of a mode without stages, that began last and has not ended."""
        if self._stages:
            return self._stages[-1][0]
        return self._components[-1] if self._components else None

    @property
    def dropped(self) -> frozenset[str]:
        """The ids of the chunks that a grader has thrown out, and no later one has kept."""
        return frozenset(chunk_id for chunk_id, dropped in self._dropped.items() if dropped)

    def is_through(self, component: str) -> bool:
        """
        Tell whether a component of the mode has done its part.

        :param component: its name.
        :returns: whether it has ended well.
        """
        return component in self._through

    @property
    def writing(self) -> bool:
        """Whether somebody has heard the beginning of the answer."""
        return "token" in self._told

    def fall_back(self, fallback: Fallback) -> None:
        """
        Begin again, for another mode; what was spent, found and thrown out so far stays.

        :param fallback: which, and why.
        """
        self.fallback = fallback
        self.model = self.finish_reason = self.prompt_hash = None
        now = time.perf_counter()
        for name, begin in self._stages:
            # Only a stage that ends well tells its own time.
            self._add_time(name, now - begin)
        self._stages.clear()
        self._components.clear()
        self._through.clear()
        self._told &= {"standalone_question"}
        self._tell_event(StreamEvent("fallback", fallback))

    def hear(self, kind: str, data: dict[str, Any]) -> None:
        """
        Take an event of `components.events`.

        :param kind: its kind.
        :param data: what it tells.
        """
        if self.heard is not None and kind in _EXPLAINING:
            self.heard.append((kind, data))
        match kind:
            case "stage_started":
                self._stages.append((data["name"], time.perf_counter()))
            case "component_started":
                self._components.append(data["name"])
            case "component_ended":
                self._components.remove(data["name"])
                self._through.add(data["name"])
            case "prompt":
                self.prompt_hash = data["hash"]
            case "stage":
                self._end_stage(data["name"])
                self._add_time(data["name"], data["seconds"])
            case "llm_call":
                self._add_call(data)
            case "standalone_question":
                self._stand_alone(data["query"])
            case _:
                if kind == "grades":
                    self._dropped |= {grade["chunk_id"]: not grade["kept"] for grade in data["grades"]}
                if self._tell is not None:
                    self._tell_of(kind, data)

    def untold(self, result: QueryResult) -> Iterator[StreamEvent]:
        """
        Give the events that a result holds and that no component told, and its citations.

        :param result: the result of the run.
        :returns: the events in order.
        """
        if result.documents and "retrieval" not in self._told:
            yield StreamEvent("retrieval", Retrieval(documents=result.documents))
        if result.grades and "grades" not in self._told:
            yield StreamEvent("grades", Grades(grades=result.grades))
        if result.rephrased and "rephrased" not in self._told:
            yield StreamEvent("rephrased", Rephrased(query=result.rephrased))
        yield from (StreamEvent("citation", citation) for citation in result.citations)

    def _end_stage(self, name: str) -> None:
        names = [running for running, _ in self._stages]
        del self._stages[names.index(name)]

    def _tell_of(self, kind: str, data: dict[str, Any]) -> None:
        match kind:
            case "token":
                event = StreamEvent("token", Token(text=data["text"]))
            case "retrieval":
                documents = [RetrievedDocument.from_haystack(document) for document in data["documents"]]
                event = StreamEvent("retrieval", Retrieval(query=data["query"], documents=documents))
            case "grades":
                grades = [Grade.model_validate(grade) for grade in data["grades"]]
                event = StreamEvent("grades", Grades(grades=grades))
            case "rephrased":
                event = StreamEvent("rephrased", Rephrased(query=data["query"]))
            case _:
                return
        self._tell_event(event)

    def _stand_alone(self, question: str) -> None:
        self.standalone_question = question
        # The model that made it so has not answered anything yet.
        self.model = self.finish_reason = None
        self._tell_event(StreamEvent("standalone_question", StandaloneQuestion(query=question)))

    def _tell_event(self, event: StreamEvent) -> None:
        self._told.add(event.kind)
        if self._tell is not None:
            self._tell(event)

    def _add_call(self, data: dict[str, Any]) -> None:
        self._add_time("llm", data["seconds"])
        self.model = data["model"]
        self.finish_reason = data["finish_reason"]
        self.usage.llm_calls += 1
        for field in ("prompt_tokens", "completion_tokens", "total_tokens"):
            setattr(self.usage, field, getattr(self.usage, field) + (data["usage"].get(field) or 0))

    def _add_time(self, name: str, seconds: float) -> None:
        self.timings[name] = self.timings.get(name, 0.0) + seconds
