"""Files through the built-in indexing pipeline, into the store."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from haystack import Document, component
from haystack.dataclasses import ByteStream

from components.converting.errors import EmptySourceError, SourceError
from modes.indexing import IndexingResult
from registry import ModeRegistry
from resources import Resources
from settings import Settings
from tests.file_samples import docx_file, pdf_file, pptx_file, xlsx_file

Ingest = Callable[..., IndexingResult]


@component
class FlatEmbedder:
    """Gives every text the same embedding: what is asked here is what becomes of files, not what is found."""

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, list[Document]]:
        """Embed documents."""
        return {
            "documents": [
                Document(id=one.id, content=one.content, meta=one.meta, embedding=[1.0, 0.0])
                for one in documents
            ]
        }


class FlatResources(Resources):
    """Resources without an embedding model."""

    document_embedder = FlatEmbedder()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModeRegistry]:
    settings = Settings.load(data_dir=tmp_path_factory.mktemp("files"), llm_provider="extractive")
    with ModeRegistry(settings, FlatResources(settings)) as made:
        yield made


@pytest.fixture
def ingest(registry: ModeRegistry) -> Ingest:
    def run(data: bytes, name: str, **meta: object) -> IndexingResult:
        source = ByteStream(
            data, {"document_id": name, "title": "", "source": name, "accepted_at": 1.0, **meta}
        )
        return registry.indexing["ingest"].run("acme", sources=[source])

    return run


def chunks_of(registry: ModeRegistry, name: str) -> list[Document]:
    """Give a document's chunks in order."""
    filters = {"field": "meta.document_id", "operator": "==", "value": name}
    found = registry.resources.document_stores.get_or_create("acme").filter_documents(filters)
    return sorted(found, key=lambda chunk: chunk.meta["chunk_index"])


@pytest.mark.parametrize(
    ("name", "data", "text", "page", "section"),
    [
        ("a.txt", "Größe".encode("cp1252"), "Größe", None, None),
        ("a.rst", b"Guide\n=====\n\nHello", "Guide\n=====\n\nHello", None, "Guide"),
        ("a.md", b"# Guide\n\nHello", "# Guide\n\nHello", None, "Guide"),
        ("a.html", b"<h1>Guide</h1>Hello", "# Guide\n\nHello", None, "Guide"),
        ("a.csv", b"name,age\nAnn,31", "name: Ann\nage: 31", None, None),
        ("a.json", b'{"list": [{"name": "Ann"}]}', "# list\n\nname: Ann", None, "list"),
        ("a.jsonl", b'{"name": "Ann"}\n{"name": "Bob"}', "name: Ann\n\nname: Bob", None, None),
        ("a.pdf", pdf_file("", "Hello"), "\f\n\nHello\n", 2, None),
        ("a.docx", docx_file(("Heading 1", "Guide"), ("Normal", "Hello")), "# Guide\nHello", None, "Guide"),
        ("a.pptx", pptx_file(("One", "Hello")), "# One\n\nHello", 1, "One"),
        ("a.xlsx", xlsx_file(One=[["name", "age"], ["Ann", 31]]), "# One\n\nname: Ann\nage: 31", 1, "One"),
    ],
)
def test_every_kind_of_file_is_indexed(
    registry: ModeRegistry,
    ingest: Ingest,
    name: str,
    data: bytes,
    text: str,
    page: int | None,
    section: str | None,
) -> None:
    """A file of each kind becomes a chunk that says its page and section where it has any."""
    assert ingest(data, name, colour="red").written == {name: 1}
    [chunk] = chunks_of(registry, name)
    assert chunk.content == text
    assert (chunk.meta.get("page"), chunk.meta.get("section")) == (page, section)
    assert chunk.meta["colour"] == "red"
    assert "_note" not in chunk.meta


def test_a_source_is_indexed_or_refused_never_lost(ingest: Ingest) -> None:
    """What gives no text is an error that tells whether something is wrong with it."""
    with pytest.raises(EmptySourceError):
        ingest(pdf_file(""), "scan.pdf")
    with pytest.raises(SourceError, match="incomplete"):
        ingest(pdf_file("x")[:-30], "cut.pdf")
    note = ingest(b'{"a": 1}\nno json\n{"a": 2}', "some.jsonl").notes
    assert note == {"some.jsonl": "1 of 3 lines are no JSON and were left out: line 2"}


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "a b\tc.txt", "größe 文件.txt", "n" * 300, ".", "a\nb.md"]
)
def test_names_are_only_names(registry: ModeRegistry, ingest: Ingest, name: str) -> None:
    """No name of a file is taken for a path, and none is too odd."""
    assert ingest(b"Hello", name).written == {name: 1}
    assert chunks_of(registry, name)[0].meta.get("source") == name


def test_texts_and_files_are_indexed_alike(registry: ModeRegistry) -> None:
    """Texts need no converter, and a blank one gives nothing and spoils no other."""
    documents = [
        Document(content=text, meta={"document_id": name, "title": ""})
        for name, text in (("one", "# A\n\nHello"), ("blank", " \n"), ("two", "Hello"))
    ]
    source = ByteStream(b"# A\n\nHello", {"document_id": "three", "title": "", "source": "three.md"})
    result = registry.indexing["ingest"].run("acme", documents, [source])
    assert result.written == {"one": 1, "two": 1, "three": 1}
    assert [chunks_of(registry, name)[0].meta.get("section") for name in ("one", "two", "three")] == [
        "A",
        None,
        "A",
    ]


def test_the_pipeline_runs_traced_too(registry: ModeRegistry) -> None:
    """Haystack's own runner, which tracing needs, gives the same."""
    pipeline = registry.indexing["ingest"].pipeline
    document = Document(content="Hello", meta={"document_id": "traced", "title": ""})
    source = ByteStream(b"<h1>Hi", {"document_id": "page", "title": "", "source": "a.html"})
    data = {
        "merger": {"documents": [document]},
        "router": {"sources": [source]},
        "writer": {"tenant_id": "acme"},
    }
    outputs = super(type(pipeline), pipeline).run(data)
    assert outputs["writer"]["written"] == {"traced": 1, "page": 1}


OUTCOMES = {
    "empty.txt": "skipped: there is no text in it",
    "whitespace_only.txt": "skipped: there is no text in it",
    "front_matter_only.md": "skipped: there is no text in it",
    "scripts_only.html": "skipped: there is no text in it",
    "no_pages.pdf": "skipped: there is no text in it",
    "image_only.pdf": "skipped: there is no text in it: it has no text layer",
    "garbage.pdf": "failed: cannot be read",
    "truncated.pdf": "failed: cannot be read",
    "text_renamed.pdf": "failed: cannot be read",
    "truncated.docx": "failed: cannot be read",
    "text_renamed.docx": "failed: cannot be read",
    "pdf_renamed.docx": "failed: cannot be read",
    "password.pdf": "password needed",
    "random_bytes.txt": "binary",
    "png_named.txt": "binary",
    "broken.json": "no valid JSON",
    "deep_nested.json": "nested",
}
SAID = {
    "latin1_german.txt": "Großbritannien",
    "cp1252_quotes.txt": "Tonqualität",
    "chinese_gb18030.txt": "社会政策领域",
    "utf16le_bom_arabic.txt": "إيطاليا",
    "shift_jis.csv": "佐藤太郎",
    "semicolon_latin1.csv": "Bürgermeister: Schröder",
    "charset_lies.html": "Große Gärtnergasse",
    "malformed.html": "B-117",
    "mixed.jsonl": "Vltava",
    "quoted_newlines.csv": "notes: line one\nline two, with comma",
    "unclosed_fence.md": "Port Ember",
    "prompt_injection.md": "{{ 7*7 }}",
    "invalid_utf8.txt": "Utrecht",
    "emoji_and_combining.txt": "👩‍👩‍👧‍👦 family",
    "long_words.md": "halcyon",
}


@pytest.mark.data
def test_the_files_for_evaluation_come_out_right(registry: ModeRegistry, ingest: Ingest) -> None:
    """Each nasty file ends as its README expects, and every real one is indexed."""
    folder = os.environ.get("THRESHER_EVAL_DATA")
    if not folder:
        pytest.skip("THRESHER_EVAL_DATA is not set")
    for path in sorted((Path(folder).parent / "files").glob("*/*.*")):
        if path.name == "maint-guide.en.pdf":
            continue  # the same text as the .txt, and a large part of a minute
        outcome = outcome_of(ingest, path)
        if path.name in OUTCOMES:
            assert OUTCOMES[path.name] in outcome, path.name
        else:
            check_chunks(path, outcome, chunks_of(registry, path.name))


def outcome_of(ingest: Ingest, path: Path) -> str:
    """Say what becomes of a file: the reason why it is not indexed, or how many chunks."""
    try:
        return str(ingest(path.read_bytes(), path.name).written[path.name])
    except EmptySourceError as error:
        return f"skipped: {error}"
    except SourceError as error:
        return f"failed: {error}"


def check_chunks(path: Path, outcome: str, chunks: list[Document]) -> None:
    """Check that a file's chunks hold its text, in pieces of a sensible size."""
    assert outcome == str(len(chunks)), path.name
    assert 0 < len(chunks) <= max(path.stat().st_size / 400, 300)
    assert max(len(chunk.content or "") for chunk in chunks) <= 1_300
    text = "".join(chunk.content or "" for chunk in chunks)
    assert SAID.get(path.name, "") in text, path.name
    assert not set(text) & set("\ufeff\x00"), path.name
    json.dumps(text, ensure_ascii=False).encode("utf-8")
