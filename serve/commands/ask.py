"""The command `thresher ask`: one question on the terminal, or a file of them."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from serve.commands.terminal import (
    INTERRUPTED,
    AsJson,
    Tenant,
    err,
    out,
    plain_errors,
    print_json,
    quiet_settings,
)
from settings import Settings

if TYPE_CHECKING:
    from serve.commands.answers import AnswerFile

_NAMED_REASONS = 5
_DASH = Path("-")
_STDIN = Path("/dev/stdin")

_Question = Annotated[str | None, typer.Argument(help="The question.")]
_Mode = Annotated[str, typer.Option("--mode", "-m", help="Which mode answers; `thresher modes` lists them.")]
_K = Annotated[int | None, typer.Option("--k", "-k", min=1, help="Chunks to retrieve.")]
_Model = Annotated[str | None, typer.Option(help="Another language model, of those allowed.")]
_Explain = Annotated[bool, typer.Option("--explain", help="Show each chunk's way to the answer.")]
_File = Annotated[
    Path | None,
    typer.Option(
        "--file", help='JSON Lines with a question each: `{"id": "1", "q": "…"}`; `-` reads them from a pipe.'
    ),
]
_Out = Annotated[
    Path | None,
    typer.Option("--out", help="Where the answers to --file go; what it holds is not asked again."),
]


def ask(
    question: _Question = None,
    mode: _Mode = "standard",
    tenant: Tenant = None,
    k: _K = None,
    model: _Model = None,
    as_json: AsJson = False,
    explain: _Explain = False,
    file: _File = None,
    answers: _Out = None,
) -> None:
    """Ask a question, for example `thresher ask "What is a mode?" --mode crag --tenant demo`, or a file of them."""
    with plain_errors():
        if (question is None) == (file is None):
            raise typer.BadParameter("give either a question or a --file of them")
        if (answers is None) != (file is None):
            raise typer.BadParameter("--file and --out belong together")
        settings = quiet_settings()
        asked = {"mode": mode, "tenant_id": tenant, "k": k, "model": model}
        if explain:
            asked["explain"] = True
        if file is not None and answers is not None:
            _ask_all(settings, file, answers, asked)
        elif question is None or not question.strip():
            raise typer.BadParameter("the question is empty")
        else:
            try:
                _ask_one(settings, question, asked, as_json)
            except KeyboardInterrupt:
                err.print("stopped")
                raise typer.Exit(INTERRUPTED) from None


def _ask_one(settings: Settings, question: str, asked: dict[str, Any], as_json: bool) -> None:
    from serve.commands.client import Client

    given = (
        question,
        asked["mode"],
        asked["tenant_id"],
        asked["k"],
        asked["model"],
        asked.get("explain"),
    )
    if as_json:
        with Client(settings) as client, err.status("asking …"):
            answer = client.ask(*given)
        print_json(answer)
        return
    from serve.commands.display import show_result, watch

    with Client(settings) as client:
        result = watch(out, client.tell(*given))
    show_result(out, result)


def _ask_all(settings: Settings, file: Path, out_file: Path, asked: dict[str, Any]) -> None:
    from serve.commands.answers import AnswerFile
    from serve.commands.questions import check_kind, read_questions

    if out_file == _DASH:
        raise typer.BadParameter("--out takes a file and not -, for the command also reads it: name a file")
    check_kind(out_file)
    questions = read_questions(_STDIN if file == _DASH else file, asked)
    problems: Counter[str] = Counter()
    try:
        with AnswerFile(out_file, questions) as answers:
            total, left = len(questions), len(answers.open_questions)
            if left:
                _ask_left(settings, answers, total, asked["mode"], problems)
    except KeyboardInterrupt:
        _print_reasons(problems)
        err.print(
            f"stopped; what was answered stands in {out_file}: give the command again for the others",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        raise typer.Exit(INTERRUPTED) from None
    failed = problems.total()
    parts = [f"{left - failed} answered"]
    parts += [f"{total - left} answered before"] if total > left else []
    parts += [f"{failed} failed, which the same command asks again"] if failed else []
    noun = "1 question" if total == 1 else f"{total} questions"
    out.print(f"{noun}: {', '.join(parts)}; see {out_file}", markup=False, highlight=False, soft_wrap=True)
    if failed:
        _print_reasons(problems)
        raise typer.Exit(1)


def _ask_left(
    settings: Settings, answers: "AnswerFile", total: int, mode: str, problems: Counter[str]
) -> None:
    from serve.commands.asking import Asking, asking_bar
    from serve.commands.client import Client
    from serve.commands.replies import ServiceError

    finished = total - len(answers.open_questions)
    with Client(settings) as client:
        client.check_mode(mode)
        with asking_bar(err, total, finished) as report:
            try:
                asyncio.run(Asking(client, answers, report, problems).ask())
            except ServiceError as error:
                stays = f"; what was answered stands in {answers.path}" if answers.path.stat().st_size else ""
                raise ServiceError(f"{error}{stays}") from None


def _print_reasons(problems: Counter[str]) -> None:
    for reason, count in problems.most_common(_NAMED_REASONS):
        err.print(f"{count} × {reason}", markup=False, highlight=False, soft_wrap=True)
    if (others := len(problems) - _NAMED_REASONS) > 0:
        noun = "reason" if others == 1 else "reasons"
        err.print(f"and {others} more {noun}, which stand in the answers", markup=False, soft_wrap=True)
