"""`thresher ask --file`: many questions from a file, answered into another one."""

import fcntl
import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import Result

from serve.commands.local import LocalService
from settings import Settings
from tests.serve.conftest import finished
from tests.serve.test_cli import ROOT, invoke, start, without_llm
from tests.stub_llm import FOREVER, TEXT, Behaviour, StubLLM

QUESTIONS: list[Any] = [{"id": str(number), "q": f"Which number is {number}?"} for number in range(6)]
Files = tuple[Path, Path]


@pytest.fixture(scope="module")
def folder(stub: StubLLM, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder whose data directory a service holds that asks the stub."""
    folder = tmp_path_factory.mktemp("asking")
    service = LocalService(Settings.load(data_dir=folder / "data", llm_concurrency=10, **stub.settings()))
    with httpx.Client(base_url=service.url, trust_env=False) as client:
        finished(client, client.post("/ingest/", json={"texts": [TEXT]}).json())
    yield folder
    service.close()


@pytest.fixture
def files(tmp_path: Path, stub: StubLLM) -> Files:
    """A file of questions, and one for the answers that is not there yet."""
    stub.behaviour = Behaviour()
    return lines(tmp_path / "questions.jsonl", QUESTIONS), tmp_path / "answers.jsonl"


def lines(path: Path, items: list[Any]) -> Path:
    """Write JSON Lines; a text stands as it is."""
    path.write_text("".join((item if isinstance(item, str) else json.dumps(item)) + "\n" for item in items))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def ask(folder: Path, files: Files, *more: str) -> Result:
    return invoke("ask", "--file", str(files[0]), "--out", str(files[1]), *more, folder=folder)


def _own_terminal() -> None:
    """Hear the Ctrl-C of the terminal that is the standard input."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def hang(stub: StubLLM, *numbers: int) -> None:
    """Have the model never answer some of the questions."""
    stub.behaviour = lambda body: Behaviour(
        delay=FOREVER if any(f"number is {number}?" in str(body) for number in numbers) else 0
    )


def fail(stub: StubLLM, *numbers: int) -> None:
    """Have the model refuse some of the questions."""
    stub.behaviour = lambda body: Behaviour(
        status=400 if any(f"number is {number}?" in str(body) for number in numbers) else 200
    )


def test_each_question_of_a_file_is_answered(folder: Path, files: Files) -> None:
    """Each answer stands in a line with its question's id and line, and options hold for all questions."""
    run = ask(folder, files, "-k", "1")
    assert (run.exit_code, run.stdout.split(";")[0]) == (0, "6 questions: 6 answered")
    answers = sorted(read(files[1]), key=lambda answer: int(answer["line"]))
    assert [(answer["id"], answer["line"]) for answer in answers] == [(str(n), n + 1) for n in range(6)]
    assert answers[3]["question"] == {
        "q": "Which number is 3?",
        "mode": "standard",
        "k": 1,
    }
    assert {answer["result"]["model"] for answer in answers} == {"stub"}


def test_what_is_answered_is_not_asked_again(folder: Path, files: Files, stub: StubLLM) -> None:
    """Given again, the command asks what failed and what is new; what is there stays byte for byte."""
    fail(stub, 1, 4)
    run = ask(folder, files)
    assert run.exit_code == 1
    assert "4 answered, 2 failed, which the same command asks again" in run.stdout
    assert re.search("^2 × the language model.s server refused", run.stderr, re.MULTILINE)
    problems = [answer for answer in read(files[1]) if "problem" in answer]
    assert sorted(answer["id"] for answer in problems) == ["1", "4"]
    kept = {line for line in files[1].read_text().splitlines() if '"result"' in line}
    lines(files[0], [*QUESTIONS, {"q": "Which number is 7?"}])
    stub.behaviour, started = Behaviour(), stub.started
    run = ask(folder, files)
    assert run.stdout.startswith("7 questions: 3 answered, 4 answered before")
    assert stub.started == started + 3
    assert kept < set(files[1].read_text().splitlines())
    assert sorted(str(answer["id"]) for answer in read(files[1])) == [*"012345", "None"]
    assert ask(folder, files).stdout.startswith("7 questions: 0 answered, 7 answered before")
    assert stub.started == started + 3


def test_ctrl_c_keeps_what_is_answered(folder: Path, files: Files, stub: StubLLM) -> None:
    """What is answered by then stands in the file, the model is stopped, and the same command asks the others."""
    hang(stub, 3, 5)
    started, aborted = stub.started, stub.aborted
    command = start("ask", "--file", str(files[0]), "--out", str(files[1]), folder=folder)
    stub.wait_until(lambda: stub.started == started + 6 and stub.running == 2, 30.0)
    while files[1].read_text().count("\n") < 4:
        time.sleep(0.01)
    command.send_signal(signal.SIGINT)
    _, said = command.communicate(timeout=30)
    assert command.returncode == 130
    assert "give the command again for the others" in said
    stub.wait_until(lambda: stub.aborted == aborted + 2, 1.0)
    stub.behaviour = Behaviour()
    assert ask(folder, files).stdout.startswith("6 questions: 2 answered, 4 answered before")
    assert sorted(answer["id"] for answer in read(files[1])) == [*"012345"]


def test_a_half_written_answer_is_asked_again(folder: Path, files: Files, stub: StubLLM) -> None:
    """What a killed command left of a line is dropped, and nothing else."""
    ask(folder, files)
    whole = files[1].read_text()
    for cut in (len(whole.rstrip().rpartition("\n")[0]) + 3, len(whole) - 20):
        files[1].write_text(whole[:cut])
        run = ask(folder, files)
        assert run.stdout.startswith("6 questions: 1 answered, 5 answered before"), run.stderr
        assert len(read(files[1])) == 6


def test_questions_without_an_id_are_known_by_what_they_ask(folder: Path, files: Files) -> None:
    """The same question twice is asked twice, and neither is asked again when lines have moved."""
    lines(files[0], [{"q": "Which?"}, {"q": "Which?"}])
    assert ask(folder, files).stdout.startswith("2 questions: 2 answered;")
    lines(files[0], [{"q": "What?"}, "", {"q": "Which?"}, {"q": "Which?"}, {"q": "Which?"}])
    assert ask(folder, files).stdout.startswith("4 questions: 2 answered, 2 answered before")


def test_wrong_lines_are_named_before_anything_is_asked(folder: Path, files: Files, stub: StubLLM) -> None:
    """Each line that is no question is named by its number with what is wrong, and no question is asked."""
    started = stub.started
    wrong = [
        '{"q": ',
        '["q"]',
        {"q": " "},
        {"id": "4"},
        {"q": "x", "modus": "crag"},
        {"q": "x", "tenant_id": "../etc"},
        {"q": "x", "id": "0"},
        '{"q": "x", "filters": {"a": NaN}}',
    ]
    lines(files[0], [*QUESTIONS[:1], "", *wrong])
    run = ask(folder, files)
    assert run.exit_code == 1
    parts = ["not valid JSON", "no JSON object", "must not be empty", "q: is missing", "modus: is unknown"]
    parts += ["a tenant id has", "has the id '0' of line 1", "NaN"]
    said = run.stderr.splitlines()[1:]
    for number, (line, part) in enumerate(zip(said, parts, strict=True), start=3):
        assert line.startswith(f"{files[0]}:{number}: ")
        assert part in line
    assert not files[1].exists()
    assert stub.started == started


@pytest.mark.parametrize("there", ["a diary\nof mine\n", "a diary", '{"id": "0"}\n', "[1]\n"])
def test_another_file_is_not_written_over(folder: Path, files: Files, there: str) -> None:
    """A file that holds something else than answers is left as it is."""
    files[1].write_text(there)
    run = ask(folder, files)
    assert (run.exit_code, files[1].read_text()) == (1, there)
    assert f"{files[1]}:1 is no answer of this command" in run.stderr


def test_an_answer_to_another_question_is_not_taken(folder: Path, files: Files, stub: StubLLM) -> None:
    """When the question of an id has changed, the command says so instead of keeping or losing the old answer."""
    ask(folder, files)
    before, started = files[1].read_text(), stub.started
    lines(files[0], [{"id": "0", "q": "Something else?"}])
    run = ask(folder, files)
    assert run.exit_code == 1
    assert "under the id '0' the answer to another question" in run.stderr
    assert (files[1].read_text(), stub.started) == (before, started)


def test_the_reasons_of_failures_are_shown(folder: Path, files: Files) -> None:
    """Each reason comes with its count, the most frequent first; of many, the first few."""
    lines(files[0], [{"q": "x", "mode": f"m{number}"} for number in (1, 2, 3, 3, 4, 5, 6, 7)])
    run = ask(folder, files)
    assert run.exit_code == 1
    first, *said = run.stderr.splitlines()
    assert first.startswith("2 × there is no mode 'm3'; there are")
    assert [line[:25] for line in said[:4]] == [f"1 × there is no mode 'm{n}'" for n in (1, 2, 4, 5)]
    assert said[4:] == ["and 2 more reasons, which stand in the answers"]


def test_a_mode_that_is_not_there_is_said_before_anything_is_asked(folder: Path, files: Files) -> None:
    """The mode of all questions is looked up once, and not found missing with each of them."""
    run = ask(folder, files, "--mode", "nope")
    assert run.exit_code == 1
    assert run.stderr.startswith("error: there is no mode 'nope'; there are")
    assert run.stdout == ""
    assert not files[1].exists()


def test_ctrl_c_leaves_what_was_written_of_an_answer(folder: Path, stub: StubLLM) -> None:
    """On a terminal, Ctrl-C stops the model and keeps the words that came."""
    stub.behaviour, aborted = Behaviour(hang_after=5), stub.aborted
    terminal, end = pty.openpty()
    command = [sys.executable, "-c", "from serve.cli import main; main()", "ask", "How tall is the tower?"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **without_llm(folder)}
    run = subprocess.Popen(
        command,
        env=environment,
        stdin=end,
        stdout=end,
        stderr=end,
        start_new_session=True,
        preexec_fn=_own_terminal,
    )
    os.close(end)
    said = b""
    while b"Paris" not in said:
        said += os.read(terminal, 10_000)
    os.write(terminal, b"\x03")
    # A terminal that nobody has any more is an error to read.
    with suppress(OSError):
        while more := os.read(terminal, 10_000):
            said += more
    os.close(terminal)
    assert run.wait() == 130
    assert said.decode().rpartition("\x1b[2K")[2].split() == [*TEXT.split()[:5], "stopped"]
    stub.wait_until(lambda: stub.aborted == aborted + 1, 1.0)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("ask",), "either a question or a --file"),
        (
            ("ask", "x", "--file", "questions.jsonl", "--out", "answers.jsonl"),
            "either a question or a --file",
        ),
        (("ask", "--file", "questions.jsonl"), "belong together"),
        (("ask", "--file", "no-such.jsonl", "--out", "a.jsonl"), "can't be read: No such file"),
    ],
)
def test_options_that_do_not_fit_are_refused(folder: Path, words: tuple[str, ...], part: str) -> None:
    """A command that can't be meant says what is missing."""
    run = invoke(*words, folder=folder)
    assert run.exit_code != 0
    assert part in " ".join(run.stderr.replace("│", " ").split())


def test_the_service_may_change_meanwhile(files: Files, stub: StubLLM, tmp_path: Path) -> None:
    """When the service ends in the middle, the command goes on with a service of its own, and loses no question."""
    settings = Settings.load(
        data_dir=tmp_path / "data", llm_concurrency=10, shutdown_grace=1, **stub.settings()
    )
    service = LocalService(settings)
    with httpx.Client(base_url=service.url, trust_env=False) as client:
        finished(client, client.post("/ingest/", json={"texts": [TEXT]}).json())
    hang(stub, 4, 5)
    started = stub.started
    variables = {name.upper(): value for name, value in stub.settings().items()}
    words = ("ask", "--file", str(files[0]), "--out", str(files[1]))
    command = start(*words, folder=tmp_path, **variables)
    stub.wait_until(lambda: stub.started == started + 6 and stub.running == 2, 30.0)
    stub.behaviour = Behaviour()
    service.close()
    said, _ = command.communicate(timeout=60)
    assert said.startswith("6 questions: 6 answered;")
    assert sorted(answer["id"] for answer in read(files[1])) == [*"012345"]
