"""The command `thresher replay`: a kept question once more, and what is different now."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from serve.commands.terminal import (
    AsJson,
    checked_tenant,
    err,
    out,
    plain_errors,
    print_json,
    quiet_settings,
)

if TYPE_CHECKING:
    from serve.traces.records import KeptRun

_FIELDS = {"top_k": "k", "model": "model"}
# Change how an answer is told, and not which.
_TELLING = ("explain", "stream")


class ReplayError(RuntimeError):
    """A run can't be asked again like this."""


_RequestID = Annotated[str, typer.Argument(metavar="REQUEST_ID", help="The `request_id` of the answer.")]
_Mode = Annotated[str | None, typer.Option("--mode", "-m", help="Another mode than the one that answered.")]
_Question = Annotated[
    str | None, typer.Option(help="The question, where only its hash is kept (TRACE_CONTENT is off).")
]
_Body = Annotated[
    Path | None,
    typer.Option(
        "--body",
        help="JSON file with what else was asked and is not kept, as in `POST /query/`: `history`, `filters`, …",
        exists=True,
        dir_okay=False,
    ),
]
_Owner = Annotated[
    str | None,
    typer.Option(
        "--tenant",
        "-t",
        help="Whose question, where several tenants used the id.",
        callback=checked_tenant,
    ),
]
_Run = Annotated[
    int | None, typer.Option("--run", min=1, help="Which question of a request that asked several.")
]


def replay(
    request_id: _RequestID,
    mode: _Mode = None,
    question: _Question = None,
    body: _Body = None,
    tenant: _Owner = None,
    run: _Run = None,
    as_json: AsJson = False,
) -> None:
    """Ask a question again that was asked before, and show what is different: chunks, grades, answer, times."""
    with plain_errors():
        from modes.results import QueryResult
        from serve.commands.client import Client
        from serve.commands.differences import compare, show_differences

        with Client(quiet_settings()) as client:
            kept = _chosen(client.runs(request_id, tenant), run)
            asked = _asked(kept, question, _read(body), mode or kept.mode)
            with err.status("asking again …"):
                answer = client.query(asked)
        found = compare(kept, QueryResult.model_validate(answer), answer["request_id"])
        if as_json:
            print_json(found.model_dump(mode="json"))
        else:
            show_differences(out, found)


def _chosen(items: list[dict[str, Any]], number: int | None) -> "KeptRun":
    from serve.traces.records import KeptRun

    if number is None and len(items) > 1:
        raise ReplayError(
            f"this request asked {len(items)} questions: name one of them with --run 1 to --run {len(items)}"
        )
    if (number or 1) > len(items):
        asked = "1 question" if len(items) == 1 else f"{len(items)} questions"
        raise ReplayError(f"--run {number}: this request asked {asked}")
    return KeptRun.model_validate(items[(number or 1) - 1])


def _read(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        given = json.loads(file.read_text("utf-8"))
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise ReplayError(f"{file} holds no JSON object")
    return given


def _asked(kept: "KeptRun", question: str | None, body: dict[str, Any], mode: str) -> dict[str, Any]:
    """Make the request anew; what was not kept must be given, and be the same."""
    from serve.traces.records import as_json

    question = question if question is not None else body.get("q")
    if question is None:
        question = kept.question.text
    if question is None:
        raise ReplayError("the question was not kept (TRACE_CONTENT is off): give it with --question")
    if not kept.question.is_of(question, kept.salt):
        raise ReplayError("this is not the question that was asked; its hash is another")
    asked: dict[str, Any] = {"q": question, "mode": mode, "tenant_id": kept.tenant_id, "explain": True}
    asked |= {_FIELDS[name]: value for name, value in kept.inputs.items()}
    _check_others(kept, body)
    for name, text in kept.texts.items():
        if name in body:
            if not text.is_of(as_json(body[name]), kept.salt):
                raise ReplayError(f"{name} is not what was sent; its hash is another")
            asked[name] = body[name]
        elif text.text is None:
            raise ReplayError(
                f"the request also had {', '.join(kept.texts)}, which was not kept (TRACE_CONTENT is off): give a"
                " JSON file with it as --body"
            )
        else:
            asked[name] = json.loads(text.text)
    return asked


def _check_others(kept: "KeptRun", body: dict[str, Any]) -> None:
    """Refuse what the request did not have: it would not be asked, and the comparison would be of something else."""
    from serve.parameters import did_you_mean
    from serve.schemas import QueryBody

    known = QueryBody.model_fields
    had = {"mode": kept.mode, "tenant_id": kept.tenant_id}
    had |= {_FIELDS[name]: value for name, value in kept.inputs.items()}
    for name, value in body.items():
        if name not in known:
            raise ReplayError(f"--body: a question has no field '{name}'{did_you_mean(name, known)}")
        # Without a value a field says nothing, and a conversation without a message neither.
        if name in ("q", *_TELLING, *kept.texts) or value in (None, []):
            continue
        if name not in had:
            raise ReplayError(f"--body: the request had no {name}; leave it out")
        if value != had[name]:
            hint = "; --mode asks another one" if name == "mode" else ""
            raise ReplayError(f"--body: the request had the {name} {had[name]!r}, and not {value!r}{hint}")
