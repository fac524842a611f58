"""A mode whose budget is spent, or whose grader can't be asked, leaves the question to another one."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from components.budgets import BudgetExceededError
from components.models.errors import ModelError
from modes.checking import PipelineFileError
from modes.failures import QueryTimeoutError
from modes.results import QueryResult
from registry import ModeRegistry
from settings import BUILTIN_PIPELINES
from tests.modes.conftest import run, stream
from tests.stub_llm import FOREVER, Behaviour, StubLLM

QUESTION = "How tall is the Eiffel Tower?"
GRADER = "components.llm_grading.LogprobGrader"


def grades(body: dict[str, Any]) -> bool:
    """Tell a grader's call from the answer's."""
    return body.get("max_tokens") == 1


def mode_file(folder: Path, like: str = "crag", name: str = "graded", **metadata: Any) -> Path:
    """Write a mode like a built-in one, but with a grader that asks the model about each chunk."""
    (folder / "stages").mkdir(exist_ok=True)
    stage = yaml.safe_load((BUILTIN_PIPELINES / "stages/corrective_search.yml").read_text("utf-8"))
    for grader in ("grader", "second_grader"):
        # One call after the other, so that what one has spent is known before the next.
        stage["components"][grader] = {"type": GRADER, "init_parameters": {"concurrency": 1}}
    (folder / "stages/corrective_search.yml").write_text(yaml.safe_dump(stage), "utf-8")
    content = yaml.safe_load((BUILTIN_PIPELINES / f"{like}.yml").read_text("utf-8"))
    for key, value in metadata.items():
        content["metadata"].pop(key, None)
        if value is not None:
            content["metadata"][key] = value
    path = folder / f"{name}.yml"
    path.write_text(yaml.safe_dump(content), "utf-8")
    return path


def ask(registry: ModeRegistry, mode: str = "graded", **more: Any) -> QueryResult:
    return run(registry, registry[mode].run_async(QUESTION, tenant_id="acme", **more))


def test_a_grader_within_its_budget_grades(registry: ModeRegistry, stub: StubLLM, tmp_path: Path) -> None:
    """With enough calls the mode itself answers, and says nothing of another one."""
    stub.behaviour = lambda body: Behaviour(text="yes" if grades(body) else Behaviour.text)
    registry.add(mode_file(tmp_path, budget={"llm_calls": 3}))
    result = ask(registry)
    assert (result.fallback, result.strategy, result.usage.llm_calls) == (None, "CORRECT", 3)


@pytest.mark.parametrize(
    ("like", "budget", "behaviour", "reason", "component"),
    [
        (
            "crag_structured",
            {"components": {"retrieval": {"llm_calls": 1}}},
            Behaviour(text="yes"),
            "llm_calls",
            "retrieval",
        ),
        ("crag_structured", None, Behaviour(break_after=1), "model", None),
        ("crag", {"llm_calls": 1}, Behaviour(text="yes"), "llm_calls", None),
        ("crag", {"components": {"retrieval": {"tokens": 8}}}, Behaviour(text="yes"), "tokens", "retrieval"),
        ("crag", {"seconds": 0.3}, Behaviour(delay=FOREVER), "seconds", None),
        (
            "crag",
            {"components": {"retrieval": {"seconds": 0.3}}},
            Behaviour(delay=FOREVER),
            "seconds",
            "retrieval",
        ),
        ("crag", None, Behaviour(status=500), "model", None),
        ("crag", None, Behaviour(status=429), "model", None),
        ("crag", None, Behaviour(raw=b"<html>"), "model", None),
    ],
)
def test_another_mode_answers_when_the_grader_cannot_go_on(
    registry: ModeRegistry,
    stub: StubLLM,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    like: str,
    budget: dict[str, Any] | None,
    behaviour: Behaviour,
    reason: str,
    component: str | None,
) -> None:
    """The answer is that of the mode named as fallback, made from the chunks found already, and says why."""
    monkeypatch.setattr("components.models.repeating.RETRY_SECONDS", 0.0)
    other = {"crag": "standard", "crag_structured": "structured"}[like]
    registry.add(mode_file(tmp_path, like, budget=budget))
    expected = ask(registry, other)
    stub.behaviour = lambda body: behaviour if grades(body) else Behaviour()
    searched = count_searches(registry, monkeypatch)
    result = ask(registry)
    assert (result.mode, result.answer, result.citations) == ("graded", expected.answer, expected.citations)
    assert (result.documents, result.data) == (expected.documents, expected.data)
    assert result.fallback is not None
    told = result.fallback
    assert (told.mode, told.reason, told.component) == (other, reason, component)
    assert stub.url not in told.detail
    assert (result.grades, result.strategy) == (None, None)
    assert len(searched) == 1


def count_searches(registry: ModeRegistry, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    store = registry.resources.document_stores.get("acme")
    searched: list[Any] = []
    search = store.search_embeddings_async

    def counting(*given: Any) -> Any:
        searched.append(given)
        return search(*given)

    monkeypatch.setattr(store, "search_embeddings_async", counting)
    return searched


def test_half_of_the_callers_time_is_left_for_the_other_mode(
    registry: ModeRegistry, stub: StubLLM, tmp_path: Path
) -> None:
    """A caller who waits less long than the budget gets the fallback's answer, not a timeout."""
    stub.behaviour = lambda body: Behaviour(delay=FOREVER) if grades(body) else Behaviour()
    registry.add(mode_file(tmp_path, budget={"components": {"retrieval": {"seconds": 60}}}))
    result = ask(registry, timeout=1)
    assert result.fallback is not None
    assert result.fallback.reason == "seconds"
    assert 0.4 < result.fallback.seconds < 1


def test_what_haystack_runs_is_held_to_its_budget_too(
    registry: ModeRegistry, stub: StubLLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Haystack runs itself, as it does where there are cycles, has the same limits and falls back likewise."""
    stub.behaviour = lambda body: Behaviour(delay=FOREVER) if grades(body) else Behaviour()
    registry.add(mode_file(tmp_path, budget={"components": {"retrieval": {"seconds": 0.2}}}))
    monkeypatch.setattr("modes.sharing.SharingPipeline._plan_for", lambda self, data: None)
    result = ask(registry)
    assert result.fallback is not None
    assert (result.fallback.component, result.answer) == ("retrieval", Behaviour.text)


def test_without_a_fallback_the_spent_budget_is_an_error(
    registry: ModeRegistry, stub: StubLLM, tmp_path: Path
) -> None:
    """The error names the part of the budget that was spent."""
    stub.behaviour = lambda body: Behaviour(text="yes" if grades(body) else Behaviour.text)
    registry.add(mode_file(tmp_path, budget={"llm_calls": 2}, fallback=None))
    with pytest.raises(BudgetExceededError, match="than the 2 that"):
        ask(registry)


def test_a_fault_of_the_answer_is_not_tried_twice(
    registry: ModeRegistry, stub: StubLLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the chunks are chosen and the model fails at the answer, the same model is not asked by another mode."""
    monkeypatch.setattr("components.models.repeating.RETRY_SECONDS", 0.0)
    stub.behaviour = lambda body: Behaviour(text="yes") if grades(body) else Behaviour(status=400)
    registry.add(mode_file(tmp_path))
    with pytest.raises(ModelError):
        ask(registry)
    assert sum(not grades(body) for body in stub.requests) == 1


def test_what_the_caller_has_to_mend_is_told(registry: ModeRegistry, tmp_path: Path) -> None:
    """An unknown model is the caller's fault, which no other mode hides."""
    registry.add(mode_file(tmp_path))
    with pytest.raises(ModelError, match="unknown model"):
        ask(registry, model="gpt-9")


def test_a_request_out_of_time_is_not_begun_again(
    registry: ModeRegistry, stub: StubLLM, tmp_path: Path
) -> None:
    """The deadline of the request holds for both modes together."""
    stub.behaviour = Behaviour(delay=FOREVER)
    registry.add(mode_file(tmp_path))
    with pytest.raises(QueryTimeoutError):
        ask(registry, timeout=0.6)


def test_a_stream_tells_of_the_fallback(registry: ModeRegistry, stub: StubLLM, tmp_path: Path) -> None:
    """The event stands before the chunks and the tokens of the mode that answers."""
    stub.behaviour = lambda body: Behaviour(text="yes" if grades(body) else Behaviour.text)
    registry.add(mode_file(tmp_path, budget={"llm_calls": 1}))
    events = stream(registry, "graded", QUESTION)
    kinds = [event.kind for event in events]
    begin = kinds.index("fallback")
    assert "token" not in kinds[:begin]
    assert kinds[begin + 1] == "retrieval"
    assert "token" in kinds[begin:]
    assert events[-1].data.fallback == events[begin].data  # type: ignore[union-attr]


def test_what_was_begun_to_be_told_is_not_told_otherwise(
    registry: ModeRegistry, stub: StubLLM, tmp_path: Path
) -> None:
    """Once somebody has heard the beginning of an answer, a spent budget ends it with the error."""
    stub.behaviour = lambda body: Behaviour(text="yes") if grades(body) else Behaviour(hang_after=3)
    registry.add(mode_file(tmp_path, budget={"seconds": 0.5}))
    told: list[str] = []

    async def read() -> None:
        async for event in registry["graded"].stream(QUESTION, tenant_id="acme"):
            told.append(event.kind)

    with pytest.raises(BudgetExceededError, match=r"0\.5 s"):
        run(registry, read())
    assert "token" in told
    assert "fallback" not in told


def test_one_fallback_leads_to_another(registry: ModeRegistry, stub: StubLLM, tmp_path: Path) -> None:
    """A fallback that can't go on either names the next one; the answer tells of the last."""
    stub.behaviour = lambda body: Behaviour(text="yes" if grades(body) else Behaviour.text)
    registry.add(mode_file(tmp_path, name="second", budget={"llm_calls": 2}))
    registry.add(mode_file(tmp_path, budget={"llm_calls": 1}, fallback="second"))
    result = ask(registry)
    assert result.fallback is not None
    assert result.fallback.mode == "standard"
    assert result.mode == "graded"


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"fallback": "standrad"}, "no such mode (did you mean 'standard'?)"),
        ({"fallback": "graded"}, "goes round: graded → graded"),
        ({"fallback": ["standard"]}, "must be the name of a mode"),
        ({"fallback": "terse"}, "'terse', which lacks the output 'citations'"),
        ({"fallback": "terse"}, "'terse', which lacks the input 'filters'"),
        ({"budget": 5}, "metadata.budget must be a mapping"),
        ({"budget": {"call": 5}}, "unknown key 'call'"),
        ({"budget": {"llm_calls": 0}}, "metadata.budget.llm_calls must be a whole number above 0"),
        ({"budget": {"tokens": True}}, "metadata.budget.tokens must be a whole number above 0"),
        ({"budget": {"seconds": float("nan")}}, "metadata.budget.seconds must be a number above 0"),
        (
            {"budget": {"components": {"retreival": {}}}},
            "no component 'retreival' (did you mean 'retrieval'?)",
        ),
        ({"budget": {"components": {"retrieval": 5}}}, "components.retrieval must be a mapping"),
        ({"budget": {"components": {"retrieval": {"seconds": "5"}}}}, "components.retrieval.seconds must be"),
    ],
)
def test_a_wrong_budget_or_fallback_is_a_fault_of_the_file(
    registry: ModeRegistry, tmp_path: Path, metadata: dict[str, Any], said: str
) -> None:
    """Each slip is told with its line and what would have been right."""
    terse = yaml.safe_load((BUILTIN_PIPELINES / "standard.yml").read_text("utf-8"))
    del terse["outputs"]["citations"], terse["inputs"]["filters"]
    (tmp_path / "terse.yml").write_text(yaml.safe_dump(terse), "utf-8")
    registry.add(tmp_path / "terse.yml")
    with pytest.raises(PipelineFileError) as raised:
        registry.add(mode_file(tmp_path, **metadata))
    (fault,) = [fault for fault in raised.value.faults if said in fault.message]
    assert fault.line > 1


def test_modes_that_fall_back_on_each_other_are_refused_and_the_others_stay(
    registry: ModeRegistry, tmp_path: Path
) -> None:
    """At the start a circle breaks its modes, and one that falls back on a broken mode can still be asked."""
    (tmp_path / "modes").mkdir()
    for name, other in (("first", "second"), ("second", "first"), ("third", "second")):
        mode_file(tmp_path / "modes", name=name, fallback=other)
    settings = registry.settings.model_copy(
        update={"pipelines_dir": tmp_path / "modes", "data_dir": tmp_path / "data"}
    )
    with ModeRegistry(settings) as circular:
        assert {"first", "second"} == circular.broken.keys()
        assert "first → second → first" in circular.broken["first"][0].message
        assert circular["third"].fallback == "second"


def test_only_a_mode_has_a_budget(registry: ModeRegistry, tmp_path: Path) -> None:
    """A budget in the file of an indexing pipeline would hold for nothing, so it is a fault."""
    content = yaml.safe_load((BUILTIN_PIPELINES / "ingest.yml").read_text("utf-8"))
    content["metadata"]["budget"] = {"llm_calls": 1}
    (tmp_path / "own.yml").write_text(yaml.safe_dump(content), "utf-8")
    with pytest.raises(PipelineFileError, match="only a mode"):
        registry.add(tmp_path / "own.yml")


@pytest.mark.parametrize(
    ("like", "other", "budget", "reason"),
    [
        # While the question is put in other words, and while the chunks of the second search are graded.
        ("crag", "standard", {"seconds": 1}, "seconds"),
        ("crag_structured", "structured", {"llm_calls": 3}, "llm_calls"),
    ],
)
def test_what_was_graded_incorrect_is_not_answered_from_by_another_mode(
    registry: ModeRegistry,
    stub: StubLLM,
    tmp_path: Path,
    like: str,
    other: str,
    budget: dict[str, Any],
    reason: str,
) -> None:
    """When all chunks were thrown out before the budget was spent, the documents do not hold the answer."""
    asked: list[str] = []

    def behave(body: dict[str, Any]) -> Behaviour:
        asked.append("grade" if grades(body) else "rephrase" if body.get("max_tokens") == 64 else "answer")
        hangs = asked[-1] == "rephrase" and reason == "seconds"
        return Behaviour(text="no" if grades(body) else "How high?", delay=FOREVER if hangs else 0)

    stub.behaviour = behave
    registry.add(mode_file(tmp_path, like, budget={"components": {"retrieval": budget}}))
    result = ask(registry, explain=True)
    assert result.fallback is not None
    assert (result.fallback.mode, result.fallback.reason) == (other, reason)
    assert (result.cannot_answer, result.documents, result.citations) == (True, [], [])
    assert asked == ["grade", "grade", "rephrase"]
    assert result.explanation is not None
    assert {chunk.why for chunk in result.explanation.chunks} == {"graded INCORRECT"}


def test_what_was_kept_is_answered_from_by_another_mode(
    registry: ModeRegistry, stub: StubLLM, tmp_path: Path
) -> None:
    """Of chunks that were graded, the other mode has those that are not INCORRECT."""

    def behave(body: dict[str, Any]) -> Behaviour:
        return Behaviour(text="yes" if "330" in str(body) else "no") if grades(body) else Behaviour()

    stub.behaviour = behave
    registry.add(mode_file(tmp_path, budget={"llm_calls": 2}))
    result = ask(registry)
    assert result.fallback is not None
    assert [document.document_id for document in result.documents] == ["tower"]
    assert result.answer == Behaviour.text


def test_a_budget_counts_calls_that_are_made(stub: StubLLM, registry: ModeRegistry, tmp_path: Path) -> None:
    """Calls that wait for their turn together do not end the run: as many are made as the budget allows."""
    stub.behaviour = lambda body: Behaviour(text="yes" if grades(body) else Behaviour.text)
    path = mode_file(tmp_path, budget={"components": {"retrieval": {"llm_calls": 1}}})
    stage = tmp_path / "stages/corrective_search.yml"
    stage.write_text(stage.read_text("utf-8").replace("concurrency: 1", "concurrency: 8"), "utf-8")
    registry.add(path)
    # One of the two slots that there are.
    with registry.resources.chat_models.slots.held(1, "stub"):
        result = ask(registry)
    assert result.fallback is not None
    assert "needs more calls of the language model than the 1 that" in result.fallback.detail
    assert result.usage.llm_calls == 2
    assert {"corrective_search", "vector_search", "cited_answer"} <= result.timings.keys()
