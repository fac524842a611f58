"""`thresher keys`: make, list and revoke keys; and the commands' own key."""

import json
import re
from pathlib import Path

import httpx
import pytest
from starlette.datastructures import Headers
from typer.testing import CliRunner

from serve.access import Role
from serve.access.asking import Access
from serve.access.keys import new_key
from serve.cli import app
from serve.commands.client import Client
from settings import Settings
from tests.serve.conftest import without_llm

run = CliRunner().invoke


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path / "data"


def test_a_key_is_shown_once_and_works_until_it_is_revoked(folder: Path) -> None:
    """`create` prints the key alone, `list` neither it nor its hash, and after `revoke` it is nobody's."""
    made = run(
        app,
        ["keys", "create", "-t", "acme", "-t", "demo", "-r", "ingest", "--name", "site", "--expires", "2d"],
    )
    assert made.exit_code == 0, made.output
    secret = made.stdout.strip()
    headers = Headers({"X-API-Key": secret})
    access = Access(Settings.load(data_dir=folder))
    caller = access.caller(headers)
    assert (caller.tenants, caller.roles) == ({"acme", "demo"}, {"ingest"})
    for options in ([], ["--json"]):
        listed = run(app, ["keys", "list", *options]).output
        assert str(caller.key_id) in listed
        assert "site" in listed
        assert secret not in listed
        assert access.keyring._read[0].sha256 not in listed
    assert run(app, ["keys", "revoke", str(caller.key_id)]).exit_code == 0
    assert access.keyring.find(secret.encode()) is None
    assert run(app, ["keys", "revoke", str(caller.key_id)]).exit_code == 1


def test_a_key_for_programs_is_json(folder: Path) -> None:
    """`--json` gives the key with its id, and `*` is every tenant; without a role it may only ask."""
    made = json.loads(run(app, ["keys", "create", "-t", "*", "--json"]).stdout)
    assert (made["tenants"], made["roles"], made["expires_at"]) == (["*"], ["query"], None)
    assert Access(Settings.load(data_dir=folder)).caller(Headers({"X-API-Key": made["key"]})).tenants is None


@pytest.mark.parametrize(
    "wrong",
    [
        ["-t", "../x"],
        [],
        ["-t", "a", "-r", "owner"],
        ["-t", "a", "-t", "*"],
        ["-t", "a", "--name", "x" * 201],
        ["-t", "a", "--expires", "soon"],
        ["-t", "a", "--expires", "2020-01-01"],
    ],
)
def test_wrong_wishes_make_no_key(folder: Path, wrong: list[str]) -> None:
    """A wrong tenant, role or time is a fault of the command line, and nothing is written."""
    made = run(app, ["keys", "create", *wrong])
    assert made.exit_code == 2
    assert "Value error" not in made.output
    assert not (folder / "api_keys.json").exists()


def test_a_command_that_becomes_the_service_lets_itself_in(folder: Path) -> None:
    """Where there are keys, a service inside a command asks others for one, and has one of its own."""
    assert run(app, ["keys", "create", "-t", "acme"]).exit_code == 0
    with Client(without_llm(folder.parent)) as client:
        assert client.here
        assert list(client.jobs("acme")) == []
        assert httpx.get(f"{client.url}/ingest/", trust_env=False).status_code == 401


def test_the_list_names_keys_of_the_environment_and_says_when_there_are_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys in `API_KEYS` are listed with where they are kept, and are not revoked here; no key is no empty table."""
    none = run(app, ["keys", "list"])
    assert (none.exit_code, none.stdout) == (0, "")
    assert "make one with `thresher keys create" in none.stderr
    assert json.loads(run(app, ["keys", "list", "--json"]).stdout) == []
    _, key = new_key(["acme"], [Role.QUERY], "mounted")
    monkeypatch.setenv("API_KEYS", json.dumps({"keys": [json.loads(key.model_dump_json(exclude_none=True))]}))
    assert run(app, ["keys", "create", "-t", "demo"]).exit_code == 0
    listed = json.loads(run(app, ["keys", "list", "--json"]).stdout)
    assert [shown["kept_in"] for shown in listed] == [str(folder / "api_keys.json"), "API_KEYS"]
    assert re.search(r"mounted .* never +API_KEYS", run(app, ["keys", "list"]).stdout)
    revoked = run(app, ["keys", "revoke", key.id])
    assert revoked.exit_code == 1
    assert "stands in API_KEYS: take it out there" in revoked.stderr


def test_a_broken_file_says_what_to_do(folder: Path) -> None:
    """Each command names the file, the fault and the way out, and changes nothing."""
    folder.mkdir()
    (folder / "api_keys.json").write_text("{")
    for words in (["list"], ["create", "-t", "acme"], ["revoke", "key_1"]):
        broken = run(app, ["keys", *words])
        assert broken.exit_code == 1
        assert "api_keys.json holds no valid API keys: the JSON" in broken.stderr
        assert "mend it, or take it away" in broken.stderr
    assert (folder / "api_keys.json").read_text() == "{"
