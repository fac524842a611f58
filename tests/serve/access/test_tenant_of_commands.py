"""Whose documents a command is about when nobody names the tenant: those of the key in `API_KEY`."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result

from serve.access.key_file import KeyFile
from serve.commands.local import LocalService
from tests.serve.conftest import make_keys, without_llm
from tests.serve.test_cli import invoke

QUESTION = "How tall is the Eiffel Tower?"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str], LocalService]]:
    """A folder that a service with keys holds, the keys, and the service; the key of acme has ingested a file."""
    folder = tmp_path_factory.mktemp("commands")
    settings = without_llm(folder)
    secrets = make_keys(KeyFile(settings.keys_file))
    service = LocalService(settings)
    (folder / "tower.md").write_text("The Eiffel Tower in Paris is 330 metres tall.")
    ingested = invoke("ingest", str(folder / "tower.md"), folder=folder, API_KEY=secrets["acme"])
    assert ingested.exit_code == 0, ingested.output
    assert "1 chunk for tenant 'acme' in" in ingested.stdout
    yield folder, secrets, service
    service.close()


Running = tuple[Path, dict[str, str], LocalService]


def told(running: Running, who: str, *words: str) -> Result:
    folder, secrets, _ = running
    return invoke(*words, folder=folder, API_KEY=secrets[who])


def test_a_key_of_one_tenant_names_it(running: Running) -> None:
    """Every command is about the tenant of the key, without an option."""
    [document] = json.loads(told(running, "acme", "documents", "--json").stdout)
    [job] = json.loads(told(running, "acme", "jobs", "--json").stdout)
    assert job["tenant_id"] == "acme"
    assert told(running, "acme", "documents", "show", document["document_id"]).exit_code == 0
    assert "330 metres" in told(running, "acme", "ask", QUESTION).stdout
    again = told(running, "acme", "ingest", str(running[0] / "tower.md"))
    assert "1 indexed (1 unchanged)" in again.stdout
    assert "for tenant 'acme'" in again.stdout


def test_an_option_still_names_the_tenant(running: Running) -> None:
    """A tenant that is named is the one that is meant, and a key that has it not hears so."""
    assert "330 metres" in told(running, "both", "ask", QUESTION, "-t", "acme").stdout
    assert "tenant 'demo' has no documents" in told(running, "acme", "ask", QUESTION, "-t", "demo").stderr


@pytest.mark.parametrize("words", [("ask", QUESTION), ("ask", QUESTION, "--json"), ("jobs",), ("documents",)])
def test_a_key_of_several_tenants_hears_of_the_option(running: Running, words: tuple[str, ...]) -> None:
    """Who has to name a tenant is told how a command does it, and not how a request would."""
    refused = told(running, "both", *words)
    assert refused.exit_code == 1
    assert "name the one that is meant with --tenant" in refused.stderr
    assert "tenant_id" not in refused.stderr


def asked(running: Running, who: str, count: int) -> tuple[Result, Path]:
    folder = running[0]
    lines = [json.dumps({"id": number, "q": QUESTION}) for number in range(count)]
    (folder / "questions.jsonl").write_text("\n".join(lines) + "\n")
    words = ("ask", "--file", str(folder / "questions.jsonl"), "--out", str(folder / "answers.jsonl"))
    return told(running, who, *words), folder / "answers.jsonl"


def test_a_file_of_questions_is_asked_with_the_key(running: Running) -> None:
    """Each question of a file goes with the key; one that the service keeps out ends it, and what is there stays."""
    done, answers = asked(running, "acme", 3)
    assert done.exit_code == 0, done.output
    there = answers.read_text()
    assert there.count("330 metres") >= 3
    refused, _ = asked(running, "writer", 40)
    assert refused.exit_code == 1
    assert refused.stderr.startswith("error: this needs an API key with the role 'query'")
    assert "this command sends the key in API_KEY" in refused.stderr
    assert f"what was answered stands in {answers}" in refused.stderr
    assert answers.read_text() == there


def test_a_command_that_becomes_the_service_takes_the_same_tenant(running: Running) -> None:
    """Whether a service runs or not makes no difference: the key's tenant, else `default`, which has nothing here."""
    running[2].close()
    assert "330 metres" in told(running, "acme", "ask", QUESTION).stdout
    done, _ = asked(running, "acme", 5)
    assert "2 answered, 3 answered before" in done.stdout
    refused = told(running, "both", "ask", QUESTION)
    assert "name the one that is meant with --tenant" in refused.stderr
    keyless = invoke("ask", QUESTION, folder=running[0])
    assert "tenant 'default' has no documents" in keyless.stderr
