"""The contract of a plain pipeline, and names that no pipeline may have."""

import asyncio
from pathlib import Path

import pytest
from haystack import Document

from modes.checking import PipelineFileError
from modes.plain import PlainPipeline
from registry import ModeRegistry
from settings import Settings

PLAIN = """\
components:
  joiner:
    type: haystack.components.joiners.document_joiner.DocumentJoiner
  llm:
    type: haystack.components.generators.chat.mock.MockChatGenerator
inputs:
  documents: joiner.documents
  top_k: joiner.top_k
  question: llm.messages
outputs:
  documents: joiner.documents
  replies: llm.replies
"""


def settings(folder: Path) -> Settings:
    """Settings without a language model."""
    return Settings.load(data_dir=folder / "data", llm_provider="extractive")


def loaded(folder: Path, text: str, name: str = "mine") -> PlainPipeline:
    """Write a file and load it."""
    path = folder / f"{name}.yml"
    path.write_text(text, "utf-8")
    with ModeRegistry(settings(folder)) as registry:
        entry = registry.add(path)
        assert isinstance(entry, PlainPipeline)
        assert registry.plain[name] is entry
        assert name not in registry
        return entry


def faults_of(folder: Path, text: str, name: str = "mine") -> list[str]:
    """Write a file that has faults, and give them as `line: message`."""
    with pytest.raises(PipelineFileError) as caught:
        loaded(folder, text, name)
    return [f"{fault.line}: {fault.message}" for fault in caught.value.faults]


def test_a_plain_pipeline_is_run_by_its_own_names(tmp_path: Path) -> None:
    """It needs no description, gets Haystack's objects or their JSON, and gives JSON."""
    pipeline = loaded(tmp_path, PLAIN)
    assert [(p.name, p.required) for p in pipeline.parameters] == [
        ("documents", True),
        ("top_k", False),
        ("question", True),
    ]
    documents = [Document(content="One", embedding=[1.0]), {"content": "Two"}]
    result = asyncio.run(pipeline.run_async(documents=documents, question="Hi", top_k=None))
    assert [document["content"] for document in result["documents"]] == ["One", "Two"]
    assert result["replies"][0]["content"] == [{"text": "Hi"}]


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (
            "  top_k: joiner.top_k",
            "  tools: llm.tools",
            "8: inputs.tools feeds 'llm.tools' of type Sequence[Tool | Toolset] | Toolset | None, which",
        ),
        ("  top_k:", "  top-k:", "8: inputs.top-k: give the input another name"),
        ("  top_k:", "  class:", "8: inputs.class: give the input another name"),
        ("  top_k:", "  _k:", "8: inputs._k: give the input another name"),
        ("  top_k:", "  files:", "8: inputs.files: give the input another name"),
        ("  top_k:", "  json:", "8: inputs.json: give the input another name"),
        ("outputs:", "metadata: {kind: modus}\noutputs:", "10: metadata.kind is 'modus'; it may be mode,"),
        ("outputs:", "metadata: {kind: mode, description: X}\noutputs:", "must have the output 'answer'"),
        (
            "outputs:\n",
            "metadata: {description: X}\noutputs:\n  anwser: llm.replies\n",
            "must have the output 'answer'; a pipeline of another kind says so",
        ),
        ("  question: llm.messages\n", "", "4: component 'llm' needs 'messages'"),
    ],
)
def test_each_fault_of_a_plain_pipeline_is_named(tmp_path: Path, old: str, new: str, fault: str) -> None:
    """What no request can give, a wrong kind and a slip in a mode's output are faults with their line."""
    assert old in PLAIN
    found = faults_of(tmp_path, PLAIN.replace(old, new))
    assert any(fault in one for one in found), found


def test_a_pipeline_has_no_name_of_a_route(tmp_path: Path) -> None:
    """A file called like a route of the service is a fault, and so is one with a name that is no path's."""
    assert "is a route of the service" in faults_of(tmp_path, PLAIN, "query")[0]
    assert "lower-case letters" in faults_of(tmp_path, PLAIN, "Mine")[0]


def test_what_hayhooks_says_of_streaming_is_accepted(tmp_path: Path) -> None:
    """A file of Hayhooks loads with its key `streaming_components`."""
    assert loaded(tmp_path, f"{PLAIN}streaming_components: all\n").outputs == ["documents", "replies"]
