"""The command `thresher`, run as a user runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from serve.sources import read_sources
from settings import BUILTIN_PIPELINES

ROOT = Path(__file__).parents[2]


def thresher(*words: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a directory that is not the project's."""
    variables = {
        "DATA_DIR": str(folder / "data"),
        "LLM_PROVIDER": "extractive",
        "COLUMNS": "200",
        **variables,
    }
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, "-c", "from serve.cli import main; main()", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_help_names_every_command(tmp_path: Path) -> None:
    """`--help` lists the commands with what they do."""
    shown = thresher("--help", folder=tmp_path).stdout
    for command in ("serve", "ask", "ingest", "modes", "check", "models", "demo"):
        assert command in shown


def test_ingest_then_ask(tmp_path: Path) -> None:
    """A directory is ingested, skipping what is no text, and a question is answered from it with a citation."""
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "lake.md").write_text("# Lake Constance\n\nLake Constance is 63 km long.\n")
    (docs / "notes.txt").write_text("Bananas hold potassium.")
    (docs / "broken.txt").write_bytes(b"\xff\xfe\x00x")
    (docs / "empty.md").write_text("  \n")
    (docs / "picture.png").write_bytes(b"\x89PNG")
    ingested = thresher("ingest", "docs", "-t", "acme", folder=tmp_path)
    assert "2 documents, 2 chunks" in ingested.stdout
    assert "broken.txt: not UTF-8 text" in ingested.stderr
    assert "empty.md: no text in it" in ingested.stderr
    assert ingested.returncode == 1
    asked = thresher(
        "ask", "How long is Lake Constance?", "-t", "acme", "-m", "crag_structured", "--json", folder=tmp_path
    )
    answer = json.loads(asked.stdout)
    assert "63 km" in answer["answer"]
    assert answer["citations"][0]["document_id"] == "docs/lake.md"
    assert answer["citations"][0]["title"] == "Lake Constance"
    shown = thresher("ask", "How long is Lake Constance?", "-t", "acme", "-m", "crag", folder=tmp_path).stdout
    assert "[1]" in shown
    assert "CORRECT" in shown


def test_files_of_one_name_stay_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids are paths; where two files would get one id, the second is named and skipped."""
    for folder in ("here/a", "here/b", "there/docs", "elsewhere/docs"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "README.md").write_text(f"# {folder}\n")
    monkeypatch.chdir(tmp_path / "here")
    outside = tmp_path / "there" / "docs" / "README.md"
    paths = ["a/README.md", "./b/README.md", "a/../a/README.md", "../there/docs/README.md"]
    documents, skipped = read_sources([*map(Path, paths), Path("../there/docs"), Path("../elsewhere/docs")])
    assert [document["id"] for document in documents] == [
        "a/README.md",
        "b/README.md",
        outside.as_posix(),
        "docs/README.md",
    ]
    assert [(file.path.parts[-3], str(outside) in file.reason) for file in skipped] == [("elsewhere", True)]
    assert "has the same name as" in skipped[0].reason


def test_long_titles_are_cut_and_long_paths_refused(tmp_path: Path) -> None:
    """What the service would refuse is mended or said before anything is sent."""
    (tmp_path / "long.md").write_text("# " + "x" * 2_000)
    deep = tmp_path.joinpath(*["d" * 200] * 3)
    deep.mkdir(parents=True)
    (deep / "a.txt").write_text("text")
    documents, skipped = read_sources([tmp_path])
    assert [len(document["title"]) for document in documents] == [1_024]
    assert [file.reason for file in skipped] == ["its path has more than 512 characters"]


def test_modes_are_listed(tmp_path: Path) -> None:
    """`modes` shows each mode."""
    shown = thresher("modes", folder=tmp_path).stdout
    for name in ("standard", "crag", "structured", "crag_structured"):
        assert name in shown


def test_check_finds_every_fault(tmp_path: Path) -> None:
    """`check` accepts every built-in file, stages included, and prints each fault of a broken one as file:line."""
    sound = [str(path) for path in BUILTIN_PIPELINES.rglob("*.yml")]
    assert thresher("check", *sound, folder=tmp_path).returncode == 0
    text = (BUILTIN_PIPELINES / "crag.yml").read_text().replace("retrieval.query,", "retrieval.qurey,")
    (tmp_path / "mine.yml").write_text(
        text.replace("strategy: retrieval.strategy", "stratgy: retrieval.strategy")
    )
    checked = thresher("check", "mine.yml", folder=tmp_path)
    assert checked.returncode == 1
    assert "mine.yml:12: inputs.query names 'retrieval.qurey'; it has" in checked.stderr


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("ask", "x", "-m", "nope"), "there is no mode 'nope'; there are"),
        (("ask", "x", "-t", "nobody"), "tenant 'nobody' has no documents"),
        (("ask", "x", "-t", "a b"), "a tenant id has"),
        (("ask", " "), "the question is empty"),
        (("ingest", "no/such/file"), "does not exist"),
        (("demo", "--docs", "/no/such"), "no text files"),
        (("models", "fetch", "nope"), "nope"),
    ],
)
def test_mistakes_get_one_clear_line(tmp_path: Path, words: tuple[str, ...], part: str) -> None:
    """A user's mistake is an error that says what to do, without a traceback."""
    run = thresher(*words, folder=tmp_path)
    assert run.returncode != 0
    assert part in " ".join(run.stderr.replace("│", " ").split())
    assert "Traceback" not in run.stderr


def test_wrong_settings_are_said(tmp_path: Path) -> None:
    """A wrong variable stops each command with its name."""
    for command in ("serve", "modes"):
        run = thresher(command, folder=tmp_path, PORT="eighty")
        assert run.returncode == 1
        assert "PORT: " in run.stderr
        assert "Traceback" not in run.stderr
