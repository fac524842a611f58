"""The registry of modes, with the built-in files and files of one's own."""

import asyncio
import importlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from haystack import Document
from haystack.dataclasses import ByteStream

from components.storing import UnknownTenantError
from modes.checking import PipelineFileError
from modes.failures import UnsupportedInputError
from modes.indexing import IndexingPipeline
from modes.recording import StreamEvent
from modes.results import QueryResult, Token
from registry import BrokenModeError, ModeRegistry, UnknownModeError
from settings import BUILTIN_PIPELINES, Settings

BUILT_IN = {"standard", "crag", "structured", "crag_structured"}
LAKE = "Lake Constance is 63 km long. It borders Germany, Switzerland and Austria."
TOWER = "The Eiffel Tower in Paris is 330 metres tall."

ECHO = """\
# A mode that gives the nearest chunk back.
components:
  retrieval:
    type: components.staging.PipelineStage
    init_parameters: {file: stages/vector_search.yml}
  prompt:
    type: haystack.components.builders.prompt_builder.PromptBuilder
    init_parameters: {template: "{{ documents[0].content }}"}
connections:
  - {sender: retrieval.documents, receiver: prompt.documents}
inputs:
  query: retrieval.query
  tenant_id: retrieval.tenant_id
outputs:
  answer: prompt.prompt
  documents: retrieval.documents
metadata:
  description: Gives the nearest chunk back.
"""


def extractive_settings(folder: Path, **more: object) -> Settings:
    """Settings without a language model, so that a run takes milliseconds."""
    return Settings.load(data_dir=folder / "data", llm_provider="extractive", **more)


def index(registry: ModeRegistry, **texts: str) -> None:
    """Ingest texts by document id for the tenant acme."""
    documents = [
        Document(content=text, meta={"document_id": name, "title": ""}) for name, text in texts.items()
    ]
    registry.indexing["ingest"].run("acme", documents)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModeRegistry]:
    with ModeRegistry(extractive_settings(tmp_path_factory.mktemp("registry"))) as made:
        index(made, lake=LAKE, tower=TOWER)
        yield made


def test_every_built_in_file_loads(registry: ModeRegistry) -> None:
    """Every file of the built-in directory is a mode or an indexing pipeline without a fault."""
    names = {path.stem for path in BUILTIN_PIPELINES.glob("*.yml")}
    assert registry.faults == []
    assert set(registry) == BUILT_IN
    assert set(registry) | set(registry.indexing) == names


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in BUILTIN_PIPELINES.glob("*.yml") if path.stem != "ingest")
)
def test_every_mode_answers(registry: ModeRegistry, name: str) -> None:
    """Each mode answers from the right document and cites the very words."""
    result = registry[name].run(query="How tall is the Eiffel Tower?", tenant_id="acme")
    assert isinstance(result, QueryResult)
    assert result.mode == name
    assert "330" in result.answer
    assert result.citations[0].document_id == "tower"
    assert TOWER[result.citations[0].start : result.citations[0].end] == result.citations[0].quote
    assert result.timings["total"] > 0


def test_crag_grades_and_drops(registry: ModeRegistry) -> None:
    """Corrective RAG keeps the chunk that answers and drops the other."""
    result = registry["crag"].run(query="How tall is the Eiffel Tower?", tenant_id="acme")
    assert result.strategy == "PARTIAL"
    assert result.grades is not None
    assert {grade.document_id: grade.kept for grade in result.grades} == {"tower": True, "lake": False}
    assert [document.document_id for document in result.documents] == ["tower"]


@pytest.mark.parametrize("name", ["crag", "crag_structured"])
def test_crag_says_when_nothing_answers(registry: ModeRegistry, name: str) -> None:
    """When no chunk is good, nothing is invented: the question was rephrased once, and the answer says so."""
    result = registry[name].run(query="Who won the world cup of 1954?", tenant_id="acme")
    assert result.strategy == "INCORRECT"
    assert result.cannot_answer is True
    assert result.citations == []
    assert result.rephrased
    assert result.answer == "The documents do not hold the answer to this question."


def test_top_k_and_filters_reach_the_search(registry: ModeRegistry) -> None:
    """The number of chunks and the filters are inputs of a run."""
    one = registry["standard"].run(query="How tall?", tenant_id="acme", top_k=1)
    assert len(one.documents) == 1
    lake = {"field": "meta.document_id", "operator": "==", "value": "lake"}
    filtered = registry["standard"].run(query="How tall is the Eiffel Tower?", tenant_id="acme", filters=lake)
    assert {document.document_id for document in filtered.documents} == {"lake"}


def test_errors_are_the_components_own(registry: ModeRegistry) -> None:
    """A run raises what the component raised, through both layers of pipelines."""
    with pytest.raises(UnknownTenantError):
        registry["crag"].run(query="x", tenant_id="nobody")


def test_a_hundred_runs_at_once_keep_apart(registry: ModeRegistry) -> None:
    """One pipeline serves concurrent runs without mixing them."""

    async def ask(number: int) -> bool:
        wanted = "lake" if number % 2 else "tower"
        question = "How long is Lake Constance?" if number % 2 else "How tall is the Eiffel Tower?"
        result = await registry["crag"].run_async(query=question, tenant_id="acme")
        return result.citations[0].document_id == wanted

    async def ask_all() -> list[bool]:
        return await asyncio.gather(*(ask(number) for number in range(100)))

    assert all(asyncio.run(ask_all()))


def test_a_stream_ends_with_the_result(registry: ModeRegistry) -> None:
    """Streaming tells what was found, the tokens of the answer, its citations, and last the same result as a run."""

    async def collect() -> list[StreamEvent]:
        stream = registry["standard"].stream("How tall is the Eiffel Tower?", tenant_id="acme")
        return [event async for event in stream]

    events = asyncio.run(collect())
    kinds = [event.kind for event in events]
    assert list(dict.fromkeys(kinds)) == ["retrieval", "token", "citation", "result"]
    assert "330" in "".join(event.data.text for event in events if isinstance(event.data, Token))
    result = events[-1].data
    assert isinstance(result, QueryResult)
    assert [event.data for event in events if event.kind == "citation"] == result.citations


def test_run_works_inside_an_event_loop(registry: ModeRegistry) -> None:
    """A notebook has a running loop and calls `run` all the same."""

    async def cell() -> QueryResult:
        return registry["standard"].run(query="How tall is the Eiffel Tower?", tenant_id="acme")

    assert "330" in asyncio.run(cell()).answer


def test_adding_a_mode_is_adding_a_file(tmp_path: Path) -> None:
    """A YAML file in PIPELINES_DIR is a mode."""
    modes = tmp_path / "modes"
    modes.mkdir()
    (modes / "echo.yml").write_text(ECHO, "utf-8")
    with ModeRegistry(extractive_settings(tmp_path, pipelines_dir=modes)) as registry:
        index(registry, tower=TOWER)
        assert registry["echo"].run(query="tower", tenant_id="acme").answer == TOWER
        assert registry["echo"].origin == "directory"
        with pytest.raises(UnsupportedInputError, match="'model'"):
            registry["echo"].run(query="tower", tenant_id="acme", model="other")


def test_a_mode_can_be_added_later(registry: ModeRegistry, tmp_path: Path) -> None:
    """`add` loads one more file, and says what is wrong with a broken one."""
    (tmp_path / "late.yml").write_text(ECHO, "utf-8")
    assert registry.add(tmp_path / "late.yml").run(query="tower", tenant_id="acme").answer == TOWER
    (tmp_path / "late.yml").write_text(ECHO.replace("prompt.prompt", "prompt.promt"), "utf-8")
    with pytest.raises(PipelineFileError, match=r"late\.yml:15: outputs\.answer names 'prompt\.promt'"):
        registry.add(tmp_path / "late.yml")
    assert registry["late"].run(query="tower", tenant_id="acme").answer == TOWER


def test_a_package_can_bring_modes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry point of the group thresher.modes names a directory of modes."""
    package = tmp_path / "site" / "modepack"
    package.mkdir(parents=True)
    (package / "packed.yml").write_text(ECHO, "utf-8")
    (package / "__init__.py").write_text("from pathlib import Path\nMODES = Path(__file__).parent\n")
    info = tmp_path / "site" / "modepack-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: modepack\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[thresher.modes]\nmodepack = modepack:MODES\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    importlib.invalidate_caches()
    with ModeRegistry(extractive_settings(tmp_path)) as registry:
        assert registry["packed"].origin == "package"


def test_a_broken_mode_is_kept_and_named(tmp_path: Path) -> None:
    """A file with a fault is not skipped silently: the others load, and asking for it says why it did not."""
    modes = tmp_path / "modes"
    modes.mkdir()
    (modes / "broken.yml").write_text(ECHO.replace("retrieval.query", "retrieval.quary"), "utf-8")
    with ModeRegistry(extractive_settings(tmp_path, pipelines_dir=modes)) as registry:
        assert [fault.file.name for fault in registry.faults] == ["broken.yml"]
        assert set(registry) == BUILT_IN
        with pytest.raises(BrokenModeError, match=r"broken\.yml:12: "):
            registry["broken"]


def test_a_stage_of_ones_own_is_found_beside_the_mode(tmp_path: Path) -> None:
    """A mode may name stages that lie beside it; faults of a stage are reported with the stage's file."""
    stages = tmp_path / "modes" / "stages"
    stages.mkdir(parents=True)
    shutil.copy(BUILTIN_PIPELINES / "stages" / "vector_search.yml", stages / "mine.yml")
    (stages.parent / "echo.yml").write_text(ECHO.replace("vector_search", "mine"), "utf-8")
    with ModeRegistry(extractive_settings(tmp_path, pipelines_dir=stages.parent)) as registry:
        assert "echo" in registry
    (stages / "mine.yml").write_text("components: 5\n", "utf-8")
    with ModeRegistry(extractive_settings(tmp_path, pipelines_dir=stages.parent)) as registry:
        assert {fault.file.name for fault in registry.broken["echo"]} == {"mine.yml", "echo.yml"}


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (("  answer: prompt.prompt\n", "  reply: prompt.prompt\n"), "must have the output 'answer'"),
        (
            ("  answer: prompt.prompt\n", "  answer: prompt.prompt\n  reply: prompt.prompt\n"),
            "no output 'reply'",
        ),
        (("  query: retrieval.query\n", "  question: retrieval.query\n"), "must have the input 'query'"),
        (("  tenant_id:", "  tenant:"), "no input 'tenant'"),
        (("answer: prompt.prompt", "answer: retrieval.documents"), "outputs.answer must be str"),
        (("stages/vector_search.yml", "stages/none.yml"), "stages/vector_search.yml"),
    ],
)
def test_the_contract_of_a_mode(tmp_path: Path, change: tuple[str, str], part: str) -> None:
    """A mode takes what a request can give and gives what a response can hold."""
    modes = tmp_path / "modes"
    modes.mkdir()
    (modes / "mine.yml").write_text(ECHO.replace(*change), "utf-8")
    with ModeRegistry(extractive_settings(tmp_path, pipelines_dir=modes)) as registry:
        assert any(part in fault.message for fault in registry.faults), registry.faults


def test_unknown_modes_list_the_choices(registry: ModeRegistry) -> None:
    """A wrong name gets the right ones, and the nearest."""
    with pytest.raises(UnknownModeError, match=r"standard.*Did you mean 'crag'"):
        registry["crga"]


@pytest.mark.server
def test_the_same_modes_run_on_a_chroma_server(chroma_server: int, tmp_path: Path) -> None:
    """With CHROMA_HOST set, documents are written to and found on the server."""
    settings = extractive_settings(
        tmp_path, chroma_host="127.0.0.1", chroma_port=chroma_server, collection_prefix="registry_"
    )
    with ModeRegistry(settings) as registry:
        index(registry, lake=LAKE, tower=TOWER)
        assert (
            registry["crag"].run(query="How tall is the Eiffel Tower?", tenant_id="acme").strategy
            == "PARTIAL"
        )
    assert not (tmp_path / "data" / "chroma").exists()


INDEXING = """\
# Documents as they are, without a splitter.
components:
  embedder:
    type: components.document_embedding.ModelDocumentEmbedder
  writer:
    type: components.writing.TenantDocumentWriter
connections:
  - {sender: embedder.documents, receiver: writer.documents}
inputs:
  documents: embedder.documents
  tenant_id: writer.tenant_id
outputs:
  documents_written: writer.documents_written
metadata:
  description: Embed and write.
"""
FROM_SOURCES = INDEXING.replace(
    "components:\n",
    """\
components:
  splitter:
    type: haystack.components.preprocessors.document_splitter.DocumentSplitter
    init_parameters: {split_by: word, split_length: 3}
  converter:
    type: haystack.components.converters.txt.TextFileToDocument
""",
).replace(
    "connections:\n",
    """\
connections:
  - {sender: converter.documents, receiver: splitter.documents}
  - {sender: splitter.documents, receiver: embedder.documents}
""",
).replace("documents: embedder.documents", "sources: converter.sources")  # fmt: skip


def indexing_pipeline(registry: ModeRegistry, folder: Path, text: str) -> IndexingPipeline:
    """Add an indexing pipeline of one's own."""
    (folder / "mine.yml").write_text(text, "utf-8")
    added = registry.add(folder / "mine.yml")
    assert isinstance(added, IndexingPipeline)
    return added


def test_an_indexing_pipeline_can_be_added(registry: ModeRegistry, tmp_path: Path) -> None:
    """A file with an input `documents` is an indexing pipeline, which says how many chunks each document gave."""
    mine = indexing_pipeline(registry, tmp_path, INDEXING)
    assert registry.indexing["mine"] is mine
    documents = [Document(content=text, meta={"document_id": text}) for text in ("one", "two")]
    assert mine.run("mine", documents).written == {"one": 1, "two": 1}
    assert mine.run("mine").written == {}


def test_an_indexing_pipeline_says_whether_it_takes_files(registry: ModeRegistry, tmp_path: Path) -> None:
    """One without an input `sources` refuses files."""
    mine = indexing_pipeline(registry, tmp_path, INDEXING)
    assert not mine.takes_files
    with pytest.raises(UnsupportedInputError, match="'mine' takes texts only"):
        mine.run("acme", sources=[ByteStream(b"x", {"document_id": "x"})])


def test_an_indexing_pipeline_of_sources_takes_texts_too(registry: ModeRegistry, tmp_path: Path) -> None:
    """Where only `sources` is declared, texts come as sources."""
    mine = indexing_pipeline(registry, tmp_path, FROM_SOURCES)
    assert mine.takes_files
    document = Document(content="Größe one two three four", meta={"document_id": "text"})
    file = ByteStream(b"one", {"document_id": "file"}, "text/plain")
    assert mine.run("mine", [document], [file]).written == {"text": 2, "file": 1}


def test_splitting_and_fingerprint_come_from_the_file(registry: ModeRegistry, tmp_path: Path) -> None:
    """The settings of splitters are told; the fingerprint changes with what the file does, not with its description."""
    mine = indexing_pipeline(registry, tmp_path, FROM_SOURCES)
    assert {name: settings["split_length"] for name, settings in mine.splitting.items()} == {"splitter": 3}
    renamed = indexing_pipeline(registry, tmp_path, FROM_SOURCES.replace("Embed and write.", "Write."))
    changed = indexing_pipeline(
        registry, tmp_path, FROM_SOURCES.replace("split_length: 3", "split_length: 4")
    )
    assert renamed.fingerprint == mine.fingerprint
    assert changed.fingerprint != mine.fingerprint


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (("  tenant_id:", "  tenant:"), "an indexing pipeline has no input 'tenant'"),
        (("  documents_written:", "  written:"), "must have the output 'documents_written'"),
        (("  documents: ", "  texts: "), "must have the input 'documents' or 'sources'"),
        (
            ("written: writer.documents_written", "written: embedder.documents"),
            "documents_written must be int",
        ),
    ],
)
def test_the_contract_of_an_indexing_pipeline(tmp_path: Path, change: tuple[str, str], part: str) -> None:
    """An indexing pipeline takes what a job has and says what it wrote."""
    (tmp_path / "mine.yml").write_text(INDEXING.replace(*change), "utf-8")
    with ModeRegistry(extractive_settings(tmp_path, pipelines_dir=tmp_path)) as registry:
        assert any(part in fault.message for fault in registry.faults), registry.faults
