"""The command `thresher`, run as a user runs it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from serve.cli import app
from serve.locking import running_service
from settings import BUILTIN_PIPELINES
from tests.slow_reading import SLOW_PIPELINE

ROOT = Path(__file__).parents[2]


def thresher(*words: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a directory that is not the project's."""
    command = start(*words, folder=folder, **variables)
    stdout, stderr = command.communicate()
    return subprocess.CompletedProcess(words, command.returncode, stdout, stderr)


def start(*words: str, folder: Path, **variables: str) -> subprocess.Popen[str]:
    """Start the command in a directory that is not the project's."""
    command = [sys.executable, "-c", "from serve.cli import main; main()", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **without_llm(folder), **variables}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True, preexec_fn=_hear_ctrl_c
    )


def _hear_ctrl_c() -> None:
    # A shell that runs the tests in the background has its children ignore it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def invoke(*words: str, folder: Path, **variables: str) -> Result:
    """Run the command in this process, which is quicker."""
    return CliRunner().invoke(app, words, env={**without_llm(folder), **variables})


def without_llm(folder: Path) -> dict[str, str]:
    return {"DATA_DIR": str(folder / "data"), "LLM_PROVIDER": "extractive", "COLUMNS": "200"}


def test_help_names_every_command(tmp_path: Path) -> None:
    """`--help` lists the commands with what they do."""
    shown = thresher("--help", folder=tmp_path).stdout
    for command in (
        "serve",
        "ask",
        "ingest",
        "jobs",
        "documents",
        "reindex",
        "modes",
        "check",
        "models",
        "demo",
    ):
        assert command in shown


def test_ingest_then_ask(tmp_path: Path) -> None:
    """A folder of many kinds is ingested, and a question is answered from it with a citation."""
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "lakes.md").write_text(
        "# Lakes\n\nIntro.\n\n## Lake Constance\n\nLake Constance is 63 km long.\n"
    )
    (docs / "notes.txt").write_text("Bananas hold potassium.")
    (docs / "table.csv").write_text("name,length\nLake Zurich,40 km\n")
    (docs / "empty.md").write_text("  \n")
    (docs / "picture.png").write_bytes(b"\x89PNG")
    ingested = thresher("ingest", "docs", "-t", "acme", folder=tmp_path)
    assert ingested.stdout.startswith("4 documents: 3 indexed, 1 skipped; 3 chunks for tenant 'acme' in ")
    assert "left out below folders: 1 .png file (" in ingested.stderr
    assert re.search(r"docs/empty.md .* skipped ", ingested.stderr)
    assert ingested.returncode == 0
    asked = thresher(
        "ask", "How long is Lake Constance?", "-t", "acme", "-m", "crag_structured", "--json", folder=tmp_path
    )
    answer = json.loads(asked.stdout)
    assert "63 km" in answer["answer"]
    [citation] = answer["citations"]
    assert (citation["document_id"], citation["section"]) == ("docs/lakes.md", "Lakes > Lake Constance")
    shown = invoke("ask", "How long is Lake Constance?", "-t", "acme", "-m", "crag", folder=tmp_path).stdout
    assert '"Lakes > Lake Constance"' in shown
    assert "CORRECT" in shown


def test_what_cannot_be_ingested_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that fail are named with the reason, the others are indexed, and the exit status is 1."""
    (tmp_path / "good.txt").write_text("Bananas hold potassium.")
    (tmp_path / "broken.pdf").write_bytes(b"\x00\x01\x02")
    # Names are folded where a folder is long.
    monkeypatch.chdir(tmp_path)
    run = invoke("ingest", "good.txt", "broken.pdf", "missing.md", folder=tmp_path)
    assert run.exit_code == 1
    assert run.stdout.startswith("2 documents: 1 indexed, 1 failed; 1 chunk for tenant 'default'")
    assert re.search(r"broken.pdf .* failed .* name says pdf", run.stderr)
    assert re.search(r"missing.md .* failed .* does not exist", run.stderr)


def test_jobs_and_documents_are_listed_shown_and_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `ingest` did can be read back from `jobs` and `documents`; what is deleted there is gone."""
    for name in ("a.txt", "b.txt", "c.bin"):
        (tmp_path / name).write_text(f"The file {name} has a text.")
    (tmp_path / "c.bin").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    monkeypatch.chdir(tmp_path)
    assert invoke("ingest", "*.*", folder=tmp_path).exit_code == 1
    [job] = json.loads(invoke("jobs", "--json", folder=tmp_path).stdout)
    assert (job["status"], job["documents_ok"], job["documents_failed"]) == ("done", 2, 1)
    shown = invoke("jobs", "show", job["job_id"], folder=tmp_path).stdout
    assert re.search(r"c.bin .* failed", shown)
    assert job["job_id"] in invoke("jobs", "--status", "done", folder=tmp_path).stdout
    assert json.loads(invoke("jobs", "--status", "failed", "--json", folder=tmp_path).stdout) == []

    again = invoke("ingest", "a.txt", folder=tmp_path)
    assert "1 document: 1 indexed (1 unchanged)" in again.stdout

    documents = json.loads(invoke("documents", "--json", folder=tmp_path).stdout)
    first, second = sorted(document["document_id"] for document in documents)
    assert first == "a.txt"
    assert "The file a.txt has a text." in invoke("documents", "show", first, folder=tmp_path).stdout
    assert invoke("jobs", "show", job["job_id"], "-t", "default", folder=tmp_path).exit_code == 0
    assert invoke("jobs", "cancel", job["job_id"], "-t", "acme", folder=tmp_path).exit_code == 2
    deleted = invoke("documents", "delete", "nope", first, folder=tmp_path)
    assert deleted.exit_code == 1
    assert "'nope' is not deleted: " in deleted.stderr
    assert f"deleted {first}" in deleted.stdout
    left = invoke("documents", folder=tmp_path).stdout
    assert first not in left
    assert second in left
    assert CliRunner().invoke(app, ["documents", "drop-tenant", "-t", "default"], input="n\n").exit_code == 1
    assert invoke("documents", "drop-tenant", "-t", "default", "--yes", folder=tmp_path).exit_code == 0
    gone = invoke("documents", folder=tmp_path)
    assert gone.exit_code == 1
    assert "tenant 'default' has no documents" in gone.stderr


def test_what_ctrl_c_breaks_off_goes_on(tmp_path: Path) -> None:
    """Ctrl-C ends the command and says how its job goes on; until then other commands talk to its service."""
    slow = {"PIPELINES_DIR": str(tmp_path / "pipelines"), "ALLOWED_MODULES": "tests.slow_reading"}
    (tmp_path / "pipelines").mkdir()
    quick = tmp_path / "quick"
    (tmp_path / "pipelines" / "slow.yml").write_text(SLOW_PIPELINE.replace("QUICK", str(quick)))
    (tmp_path / "docs").mkdir()
    for number in range(8):
        (tmp_path / "docs" / f"{number}.txt").write_text(f"This is text {number}.")
    command = start("ingest", "docs", "--pipeline", "slow", folder=tmp_path, **slow)
    while command.poll() is None and running_service(tmp_path / "data") is None:
        time.sleep(0.05)
    jobs: list[dict] = []
    while command.poll() is None and not any(job["documents_ok"] for job in jobs):
        jobs = json.loads(invoke("jobs", "--json", folder=tmp_path, **slow).stdout)
    command.send_signal(signal.SIGINT)
    _, said = command.communicate(timeout=60)
    assert command.returncode == 130, said
    [job] = jobs
    quick.touch()
    assert f"thresher jobs watch {job['job_id']}" in " ".join(said.split())
    watched = invoke("jobs", "watch", job["job_id"], folder=tmp_path, **slow)
    assert watched.stdout.startswith("8 documents: 8 indexed; 8 chunks")


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
    (tmp_path / "lost.yml").write_text(
        (BUILTIN_PIPELINES / "crag.yml").read_text().replace("fallback: standard", "fallback: standrad")
    )
    checked = thresher("check", "mine.yml", "lost.yml", folder=tmp_path)
    assert checked.returncode == 1
    assert "mine.yml:12: inputs.query names 'retrieval.qurey'; it has" in checked.stderr
    assert "metadata.fallback names 'standrad', but there is no such mode" in checked.stderr


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("ask", "x", "-m", "nope"), "there is no mode 'nope'; there are"),
        (("ask", "x", "-t", "nobody"), "tenant 'nobody' has no documents"),
        (("ask", "x", "-t", "a b"), "a tenant id has"),
        (("ask", " "), "the question is empty"),
        (("ingest", "no/such/file"), "does not exist"),
        (("demo", "--docs", "/no/such"), "no files to ingest"),
        (("models", "fetch", "nope"), "nope"),
    ],
)
def test_mistakes_get_one_clear_line(tmp_path: Path, words: tuple[str, ...], part: str) -> None:
    """A user's mistake is an error that says what to do, without a traceback."""
    run = invoke(*words, folder=tmp_path)
    assert run.exit_code != 0
    assert part in " ".join(run.stderr.replace("│", " ").split())
    assert isinstance(run.exception, SystemExit)


def test_wrong_settings_are_said(tmp_path: Path) -> None:
    """A wrong variable stops each command with its name."""
    for command in ("serve", "modes"):
        run = thresher(command, folder=tmp_path, PORT="eighty")
        assert run.returncode == 1
        assert "PORT: " in run.stderr
        assert "Traceback" not in run.stderr
