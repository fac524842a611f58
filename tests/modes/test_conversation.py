"""Questions that follow others: the stage that makes them self-contained, and modes that take the history."""

import shutil
from pathlib import Path

import pytest
from haystack import Document
from haystack.dataclasses import ChatMessage

from modes.failures import QueryTimeoutError
from registry import STANDALONE_STAGE, ModeRegistry
from settings import BUILTIN_PIPELINES, Settings
from tests.modes.conftest import TOWER, stream
from tests.stub_llm import FOREVER, TEXT, Behaviour, StubLLM

HISTORY = [ChatMessage.from_user("Where is the Eiffel Tower?"), ChatMessage.from_assistant("In Paris.")]
QUESTION = "How tall is it?"
REWRITTEN = "How tall is the Eiffel Tower?"
MODES = ["standard", "crag", "structured", "crag_structured"]

# Gives the number of messages back: the mode itself sees the conversation.
COUNTING = """\
components:
  search: {type: components.staging.PipelineStage, init_parameters: {file: stages/vector_search.yml}}
  prompt:
    type: haystack.components.builders.prompt_builder.PromptBuilder
    init_parameters: {template: "{{ history | length }} messages before: {{ query }} {{ documents | length }}"}
connections: [{sender: search.documents, receiver: prompt.documents}]
inputs: {query: [search.query, prompt.query], tenant_id: search.tenant_id, history: prompt.history}
outputs: {answer: prompt.prompt}
metadata: {description: Counts the conversation.}
"""
SHOUTING = """\
components:
  prompt:
    type: haystack.components.builders.prompt_builder.PromptBuilder
    init_parameters: {template: "{{ query | upper }} {{ history[0].text }}"}
inputs: {query: prompt.query, history: prompt.history}
outputs: {query: prompt.prompt}
metadata: {description: Shouts.}
"""


def rewrite(body: dict) -> Behaviour:
    """The stub's reply: to the call that makes the question self-contained another one than to the answer's."""
    return Behaviour(text=REWRITTEN if "Last question: " in body["messages"][-1]["content"] else TEXT)


@pytest.mark.parametrize("mode", MODES)
def test_a_question_is_made_self_contained_first(registry: ModeRegistry, stub: StubLLM, mode: str) -> None:
    """Search and answer get the question that stands alone; its call and its time count, its model does not."""
    stub.behaviour = rewrite
    result = registry[mode].run(QUESTION, HISTORY, tenant_id="acme")
    assert result.standalone_question == REWRITTEN
    assert "330" in result.answer
    assert f"Question: {REWRITTEN}" in stub.requests[-1]["messages"][-1]["content"]
    assert (result.usage.llm_calls, result.model, result.finish_reason) == (2, "stub", "stop")
    assert 0 < result.timings["standalone_question"] < result.timings["total"]


def test_without_a_conversation_nothing_is_rewritten(registry: ModeRegistry, stub: StubLLM) -> None:
    """The step costs nothing where it is of no use."""
    result = registry["standard"].run(REWRITTEN, tenant_id="acme")
    assert (result.standalone_question, result.usage.llm_calls) == (None, 1)
    assert "standalone_question" not in result.timings


def test_a_stream_tells_the_question_first(registry: ModeRegistry, stub: StubLLM) -> None:
    """Its event comes once, before the search; its tokens are none of the answer's."""

    stub.behaviour = rewrite
    events = stream(registry, "standard", QUESTION, HISTORY)
    kinds = [event.kind for event in events]
    assert list(dict.fromkeys(kinds)) == ["standalone_question", "retrieval", "token", "citation", "result"]
    assert kinds.count("standalone_question") == 1
    assert "".join(event.data.text for event in events if event.kind == "token") == TEXT  # type: ignore[union-attr]


def test_the_deadline_holds_for_it_too(registry: ModeRegistry, stub: StubLLM) -> None:
    """A model that hangs at this step is named by the step's name."""
    stub.behaviour = Behaviour(delay=FOREVER)
    with pytest.raises(QueryTimeoutError, match="standalone_question was running"):
        registry["standard"].run(QUESTION, HISTORY, timeout=0.3, tenant_id="acme")


def test_a_mode_may_take_the_history_itself(registry: ModeRegistry, stub: StubLLM, tmp_path: Path) -> None:
    """A file that declares the input `history` gets the messages, and no question made of them."""
    (tmp_path / "counting.yml").write_text(COUNTING)
    registry.add(tmp_path / "counting.yml")
    result = registry["counting"].run(QUESTION, HISTORY, tenant_id="acme")
    assert result.answer.startswith(f"2 messages before: {QUESTION}")
    assert (result.standalone_question, stub.requests) == (None, [])


def ask(folder: Path, pipelines: Path) -> tuple[str | None, list[str]]:
    settings = Settings.load(data_dir=folder / "data", llm_provider="extractive", pipelines_dir=pipelines)
    with ModeRegistry(settings) as registry:
        registry.indexing["ingest"].run("acme", [Document(content=TOWER, meta={"document_id": "tower"})])
        result = registry["standard"].run(QUESTION, HISTORY, tenant_id="acme")
        return result.standalone_question, [str(fault) for fault in registry.faults]


def test_the_stage_may_be_replaced(tmp_path: Path) -> None:
    """A file of its name in PIPELINES_DIR counts, though its components tell no event of their own."""
    (tmp_path / "stages").mkdir()
    (tmp_path / STANDALONE_STAGE).write_text(SHOUTING)
    assert ask(tmp_path, tmp_path) == ("HOW TALL IS IT? Where is the Eiffel Tower?", [])


def test_a_broken_stage_is_a_fault_and_the_built_in_one_stands_in(tmp_path: Path) -> None:
    """A stage without what it must have is named, so that the service isn't ready, and questions still work."""
    (tmp_path / "stages").mkdir()
    shutil.copy(BUILTIN_PIPELINES / STANDALONE_STAGE, tmp_path / "stages")
    stage = tmp_path / STANDALONE_STAGE
    stage.write_text(stage.read_text().replace("  history: rephraser.history\n", ""))
    question, faults = ask(tmp_path, tmp_path)
    assert question == "How tall is it? (Eiffel Tower)"
    assert any("history" in fault for fault in faults)
