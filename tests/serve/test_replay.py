"""Kept runs over HTTP, and asking again from the command line."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from serve.commands.local import LocalService
from settings import Settings
from tests.serve.conftest import CANARY, KeyedServer, finished
from tests.serve.test_cli import invoke

QUESTION = "How tall is the Eiffel Tower?"


def ask(keyed: KeyedServer, who: str, request_id: str, question: str = QUESTION) -> None:
    answer = keyed.client.post(
        "/query/",
        json={"q": question, "mode": "crag"},
        headers={**keyed.shown(who), "X-Request-ID": request_id},
    )
    assert answer.status_code == 200, answer.text


def trace(keyed: KeyedServer, who: str, request_id: str, **params: str) -> httpx.Response:
    return keyed.client.get(f"/traces/{request_id}", params=params, headers=keyed.shown(who))


def test_a_run_tells_how_an_answer_came_about(keyed: KeyedServer) -> None:
    """A kept run has chunks, grades, strategy, model and times, and of the question nothing but a hash."""
    ask(keyed, "acme", "run-told")
    [run] = trace(keyed, "acme", "run-told").json()["items"]
    assert (run["mode"], run["tenant_id"]) == ("crag", "acme")
    # Other tests may have given the tenant more documents, which the grader drops.
    assert run["strategy"] in ("CORRECT", "PARTIAL")
    [chunk] = [chunk for chunk in run["chunks"] if chunk["document_id"] == "tower"]
    assert (chunk["label"], chunk["position"]) == ("CORRECT", 1)
    assert run["model"] == "extractive"
    assert run["timings"]["total"] > 0
    assert len(run["prompt_hash"]) == 64
    assert run["question"]["text"] is None
    assert "Eiffel" not in json.dumps(run)


def test_a_failed_question_is_kept_too(keyed: KeyedServer) -> None:
    """A question that could not be answered has a run with the kind of its problem; one that was refused has none."""
    body = {"q": QUESTION, "mode": "structured", "json_schema": {"type": "object"}}
    for mode, status in (("structured", 503), ("standard", 422)):
        headers = {**keyed.shown("acme"), "X-Request-ID": f"run-{status}"}
        assert (
            keyed.client.post("/query/", json={**body, "mode": mode}, headers=headers).status_code == status
        )
    [run] = trace(keyed, "acme", "run-503").json()["items"]
    assert run["error"] == {"status": 503, "kind": "model-needed"}
    assert trace(keyed, "acme", "run-422").status_code == 404


def test_a_foreign_run_is_as_one_that_is_not_there(keyed: KeyedServer) -> None:
    """Another tenant gets the answer that it would get of an id that nobody ever used, and its own under one id."""
    ask(keyed, "globex", "run-shared", f"How tall is the Tower of {CANARY}?")
    foreign = trace(keyed, "acme", "run-shared")
    assert foreign.status_code == 404
    unknown = trace(keyed, "acme", "run-of-nobody").json()
    same = {**unknown, "detail": unknown["detail"].replace("run-of-nobody", "run-shared")}
    assert {**foreign.json(), "request_id": ""} == {**same, "request_id": ""}
    assert trace(keyed, "acme", "run-shared", tenant_id="globex").json()["type"] == unknown["type"]
    ask(keyed, "acme", "run-shared")
    assert [run["tenant_id"] for run in trace(keyed, "acme", "run-shared").json()["items"]] == ["acme"]
    both = trace(keyed, "both", "run-shared").json()["items"]
    assert {run["tenant_id"] for run in both} == {"acme", "globex"}
    assert [
        run["tenant_id"] for run in trace(keyed, "operator", "run-shared", tenant_id="acme").json()["items"]
    ] == ["acme"]


@pytest.mark.parametrize("odd", ["%ff", "%00", "%F0%9F%92%A9", "x" * 5_000, "a:b", "%2e%2e"])
def test_what_is_no_id_is_no_fault(keyed: KeyedServer, odd: str) -> None:
    """A text that can't be the id of a request is answered as an id that nobody used."""
    assert trace(keyed, "acme", odd).status_code == 404


def test_a_batch_has_a_run_for_each_question(keyed: KeyedServer) -> None:
    """Every question of a batch is kept under the id of the one request."""
    headers = {**keyed.shown("acme"), "X-Request-ID": "run-batch"}
    keyed.client.post("/query/batch", json={"questions": ["One?", "Two?"]}, headers=headers)
    assert len(trace(keyed, "acme", "run-batch").json()["items"]) == 2


def test_deleting_a_tenant_deletes_its_runs(keyed: KeyedServer) -> None:
    """With a tenant goes what is kept of its questions."""
    operator = keyed.shown("operator")
    texts = {"tenant_id": "leaver", "texts": ["The tower is 330 metres tall."]}
    job = keyed.client.post("/ingest/", json=texts, headers=operator).json()
    with httpx.Client(base_url=keyed.client.base_url, headers=operator, trust_env=False) as client:
        finished(client, job)
    body = {"q": QUESTION, "tenant_id": "leaver"}
    keyed.client.post("/query/", json=body, headers={**operator, "X-Request-ID": "run-leaver"})
    assert trace(keyed, "operator", "run-leaver").status_code == 200
    assert keyed.client.delete("/tenants/leaver", headers=operator).status_code == 200
    assert trace(keyed, "operator", "run-leaver").status_code == 404


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The folder of a service with one kept question, and the id of its request."""
    folder = tmp_path_factory.mktemp("replay")
    service = LocalService(
        Settings.load(data_dir=folder / "data", llm_provider="extractive", trace_store=True)
    )
    try:
        with httpx.Client(base_url=service.url, timeout=60) as client:
            documents = [
                {"id": "tower.md", "text": "The Eiffel Tower in Paris is 330 metres tall."},
                {"id": "lake.md", "text": "Lake Constance is 63 km long."},
            ]
            job = client.post("/ingest/", json={"documents": documents}).json()
            assert finished(client, job)["status"] == "done"
            answer = client.post("/query/", json={"q": QUESTION, "mode": "crag"}).json()
        yield folder, answer["request_id"]
    finally:
        service.close()


def test_replay_shows_what_is_different(asked: tuple[Path, str]) -> None:
    """In another mode the question gets other chunks and another answer, which the comparison tells."""
    folder, request_id = asked
    words = ("replay", request_id, "--question", QUESTION, "--mode", "standard", "--json")
    found = json.loads(invoke(*words, folder=folder).stdout)
    assert found["same"] is False
    assert found["same_answer"] is False
    assert found["facts"]["strategy"] == {"then": "PARTIAL", "now": None}
    [lake] = [chunk for chunk in found["chunks"] if chunk["document_id"].endswith("lake.md")]
    assert (lake["then"]["label"], lake["then"]["position"]) == ("INCORRECT", None)
    assert lake["now"]["position"] == 2


def test_replay_says_that_nothing_is_different(asked: tuple[Path, str]) -> None:
    """The same question to the same documents gets the same prompt and answer, as the table says."""
    folder, request_id = asked
    shown = invoke("replay", request_id, "--question", QUESTION, folder=folder).stdout
    assert "The same answer, from the same chunks." in shown
    assert "tower.md" in shown


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((), "the question was not kept"),
        (("--question", "How deep is the lake?"), "not the question that was asked"),
        (("--question", QUESTION, "--run", "2"), "asked 1 question"),
    ],
)
def test_replay_says_what_it_needs(asked: tuple[Path, str], words: tuple[str, ...], why: str) -> None:
    """A question that was not kept must be given, and be the one that was asked."""
    folder, request_id = asked
    result = invoke("replay", request_id, *words, folder=folder)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert why in result.stderr


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"filters": {"field": "meta.x", "operator": "==", "value": 1}}, "the request had no filters"),
        ({"fliters": {}}, "no field 'fliters'. Did you mean 'filters'?"),
        ({"k": 1}, "the request had no k"),
        (
            {"mode": "standard"},
            "the request had the mode 'crag', and not 'standard'; --mode asks another one",
        ),
        ({"tenant_id": "acme"}, "the request had the tenant_id 'default'"),
    ],
)
def test_replay_refuses_what_the_request_did_not_have(
    asked: tuple[Path, str], tmp_path: Path, body: dict, why: str
) -> None:
    """A field that would not be asked for is refused, and so is one that there is not."""
    folder, request_id = asked
    (tmp_path / "body.json").write_text(json.dumps({"q": QUESTION, **body}))
    result = invoke("replay", request_id, "--body", str(tmp_path / "body.json"), folder=folder)
    assert result.exit_code == 1
    assert why in result.stderr


def test_replay_takes_the_body_that_was_sent(asked: tuple[Path, str], tmp_path: Path) -> None:
    """What the request said, and how its answer was to be told, may stand in the file."""
    folder, request_id = asked
    body = {"q": QUESTION, "mode": "crag", "stream": True, "filters": None, "history": []}
    (tmp_path / "body.json").write_text(json.dumps(body))
    result = invoke("replay", request_id, "--body", str(tmp_path / "body.json"), folder=folder)
    assert result.exit_code == 0, result.output
