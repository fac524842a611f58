"""Finding every fault of a pipeline file."""

from pathlib import Path
from textwrap import dedent

import pytest

from modes.checking import PipelineChecker, PipelineFileError

SOUND = """\
components:
  joiner:
    type: haystack.components.joiners.string_joiner.StringJoiner
  prompt:
    type: haystack.components.builders.prompt_builder.PromptBuilder
    init_parameters:
      template: "{{ query }}"
connections:
  - {sender: prompt.prompt, receiver: joiner.strings}
inputs:
  query: prompt.query
outputs:
  answer: joiner.strings
metadata:
  description: Gives the question back.
"""


def faults_of(folder: Path, text: str) -> list[str]:
    """Write a file, check it, and give its faults as `line: message`."""
    path = folder / "mine.yml"
    path.write_text(dedent(text), "utf-8")
    with pytest.raises(PipelineFileError) as caught:
        PipelineChecker({}).build(path)
    assert all(str(fault).startswith(f"{path}:") for fault in caught.value.faults)
    return [f"{fault.line}: {fault.message}" for fault in caught.value.faults]


def test_a_sound_file_is_built(tmp_path: Path) -> None:
    """A file without a fault gives a pipeline that runs, with its declared names."""
    path = tmp_path / "mine.yml"
    path.write_text(SOUND, "utf-8")
    checked = PipelineChecker({}).build(path)
    assert checked.inputs == {"query": ["prompt.query"]}
    assert checked.pipeline.run({"prompt": {"query": "hello"}})["joiner"]["strings"] == ["hello"]


@pytest.mark.parametrize(
    ("old", "new", "line", "part"),
    [
        ("components:\n  joiner", "componants:\n  joiner", 1, "did you mean 'components'?"),
        (
            "    init_parameters:",
            "    init_params:",
            6,
            "unknown key 'init_params' (did you mean 'init_parameters'?)",
        ),
        ("      template:", "      templte:", 7, "no init parameter 'templte' (did you mean 'template'?)"),
        ("prompt_builder.PromptBuilder", "prompt_builder.PromptBilder", 5, "component 'prompt'"),
        ("haystack.components.joiners.string_joiner.StringJoiner", "os.system", 3, "component 'joiner'"),
        ("sender: prompt.prompt", "sender: prompt.promt", 9, "names 'prompt.promt'; it has 'prompt'"),
        (
            "receiver: joiner.strings",
            "receiver: joinr.strings",
            9,
            "no component 'joinr' (did you mean 'joiner'?)",
        ),
        (
            "  query: prompt.query",
            "  query: prompt.qurey",
            11,
            "inputs.query names 'prompt.qurey'; it has 'query', 'template",
        ),
        ("  query: prompt.query", "  query: joiner.strings", 4, "'prompt' needs 'query'"),
        ("  answer: joiner.strings", "  answer: joiner", 13, "without a socket; it has 'strings'"),
        ("  answer: joiner.strings", "  answer: [joiner.strings]", 13, "must be 'component.socket'"),
        ("metadata:\n  description: Gives the question back.", "metadata: {}", 14, "metadata.description"),
        ("inputs:\n  query: prompt.query\n", "", 1, "'inputs' is missing"),
        ("connections:", "max_runs_per_component: 0\nconnections:", 8, "max_runs_per_component"),
        ("connections:", "connections: 5\nextra:", 8, "must be a list"),
    ],
)
def test_each_fault_is_named_with_its_line(tmp_path: Path, old: str, new: str, line: int, part: str) -> None:
    """A fault has the line where it stands and says what would have been right."""
    assert old in SOUND
    faults = faults_of(tmp_path, SOUND.replace(old, new))
    assert any(fault.startswith(f"{line}: ") and part in fault for fault in faults), faults


def test_every_fault_is_reported_at_once(tmp_path: Path) -> None:
    """One check finds faults of different kinds."""
    text = (
        SOUND.replace("connections:", "conections:")
        .replace("template:", "tmplate:")
        .replace("metadata", "metdata")
    )
    assert len(faults_of(tmp_path, text)) >= 4


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("", 1, "must be a mapping"),
        ("- a\n- b\n", 1, "must be a mapping"),
        ("components:\n  a: [", 2, "not valid YAML"),
        ("a: 1\nb: 2\na: 3\n", 3, "'a' is given twice"),
        ("components: !!python/object/apply:os.system ['true']\n", 1, "not valid YAML"),
        ("a: &again\n  - *again\n", 1, "an anchor holds itself"),
        ("outputs:\n  on: x\n", 2, "key 'on' is no text"),
        ("components: {}\n", 1, "'components' is missing or empty"),
        ("components:\n  a: text\n", 2, "must have a 'type'"),
    ],
)
def test_what_is_no_pipeline_is_refused(tmp_path: Path, text: str, line: int, part: str) -> None:
    """Broken YAML, a repeated key and a wrong shape are faults with a line, not exceptions."""
    assert any(fault.startswith(f"{line}: ") and part in fault for fault in faults_of(tmp_path, text))


def test_a_file_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    """A missing file, and one that is no UTF-8, say so."""
    with pytest.raises(PipelineFileError, match="can't be read"):
        PipelineChecker({}).build(tmp_path / "none.yml")
    (tmp_path / "latin.yml").write_bytes("metadata: Ü".encode("latin-1"))
    with pytest.raises(PipelineFileError, match="can't be read"):
        PipelineChecker({}).build(tmp_path / "latin.yml")


SEARCH = """\
components:
  search:
    type: haystack.components.builders.prompt_builder.PromptBuilder
    init_parameters: {template: "{{ tenant_id }} {{ query }}", required_variables: [query]}
inputs:
  query: search.query
  owner: search.tenant_id
outputs:
  answer: search.prompt
metadata:
  description: Names the tenant.
"""


def test_an_input_has_to_say_whose_documents_are_read(tmp_path: Path) -> None:
    """A socket for the tenant that no input feeds would be one tenant's for everybody; in a stage its name is fixed."""
    [fault] = faults_of(tmp_path, SEARCH.replace("  owner: search.tenant_id\n", ""))
    assert fault == "2: component 'search' reads a tenant's documents: let an input feed 'search.tenant_id'"
    path = tmp_path / "mine.yml"
    path.write_text(SEARCH, "utf-8")
    assert PipelineChecker({}).build(path).inputs["owner"] == ["search.tenant_id"]
    (tmp_path / "stages").mkdir()
    with pytest.raises(PipelineFileError, match="a stage must call it 'tenant_id'"):
        PipelineChecker({}).build(path.rename(tmp_path / "stages" / "mine.yml"))
