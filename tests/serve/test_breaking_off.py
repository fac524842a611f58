"""What a command says when Ctrl-C breaks it off."""

import pytest
import typer

from serve.commands.client import Client
from serve.commands.ingest import shown_following
from settings import Settings

JOB = {"status": "running", "documents_ok": 0, "documents_skipped": 0, "documents_failed": 0, "chunks_ok": 0}


def break_off(client: Client, jobs: int) -> None:
    with shown_following(client, "ingesting", 2 * jobs + 3) as following:
        for number in range(jobs):
            following.add({**JOB, "job_id": f"{number:032}", "total": 2, "sources": [], "tenant_id": "acme"})
        raise KeyboardInterrupt


def said_after(jobs: int, capsys: pytest.CaptureFixture[str], here: bool = True) -> list[str]:
    """Break off a command that follows some jobs of two files each, and give the lines that it prints."""
    client = Client(Settings())
    client.here = here
    with pytest.raises(typer.Exit) as ended:
        break_off(client, jobs)
    assert ended.value.exit_code == 130
    return capsys.readouterr().err.splitlines()


def test_one_job_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """The command that goes on with the job stands in one line, to be copied, and what was not sent is counted."""
    unsent, goes_on = said_after(1, capsys)
    assert unsent.startswith("3 files were not sent")
    assert f"`thresher jobs watch {0:032}`" in goes_on
    assert "the service goes on" in said_after(1, capsys, here=False)[1]


def test_several_jobs_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    """Each of a few jobs is named; of many the first ones, and the command that lists the others."""
    assert said_after(3, capsys)[2:] == [f"  thresher jobs watch {number:032}" for number in range(3)]
    assert said_after(9, capsys)[7:] == ["  … and 4 more, which `thresher jobs --tenant acme` lists"]
