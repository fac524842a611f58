"""Many questions in one request."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from settings import Settings
from tests.serve.conftest import RunningServer, finished
from tests.stub_llm import FOREVER, TEXT, Behaviour, StubLLM

TOWER = {"id": "tower", "q": "How tall is the Eiffel Tower?"}
LAKE = {"id": 2, "q": "How long is Lake Constance?", "mode": "standard"}


@pytest.fixture(scope="module")
def slow(stub: StubLLM, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A service that answers two questions of a batch at a time, by the stub, which would take more."""
    more = {"batch_concurrency": 2, "llm_concurrency": 10, "max_batch_questions": 12}
    settings = Settings.load(data_dir=tmp_path_factory.mktemp("batch"), port=0, **more, **stub.settings())
    with RunningServer(settings) as client:
        finished(client, client.post("/ingest/", json={"tenant_id": "acme", "texts": [TEXT]}).json())
        yield client


def test_each_question_gets_its_answer_in_order(client: httpx.Client) -> None:
    """What stands beside the questions holds for all of them, what one says itself wins, and ids come back."""
    body = {
        "tenant_id": "acme",
        "mode": "crag",
        "questions": [TOWER, LAKE, {"q": "How long?", "tenant_id": "acme"}],
    }
    answer = client.post("/query/batch", json=body).json()
    assert [item["id"] for item in answer["items"]] == ["tower", 2, None]
    assert [item["result"]["mode"] for item in answer["items"]] == ["crag", "standard", "crag"]
    assert "330" in answer["items"][0]["result"]["answer"]
    assert "63 km" in answer["items"][1]["result"]["answer"]
    assert answer["failed"] == 0


@pytest.mark.parametrize(
    ("wrong", "status", "kind"),
    [
        ({"q": "x", "mode": "nope"}, 404, "unknown-mode"),
        ({"q": "x", "tenant_id": "nobody"}, 404, "unknown-tenant"),
        ({"q": "x", "tenant_id": "../etc"}, 422, "invalid-tenant"),
        ({"q": " "}, 422, "invalid-request"),
        ({"q": None}, 422, "invalid-request"),
        ({}, 422, "invalid-request"),
        ({"q": "x", "modus": "crag"}, 422, "invalid-request"),
        ({"q": "x", "id": [1]}, 422, "invalid-request"),
        ({"q": "x" * 5_000}, 422, "invalid-request"),
        ({"q": "x", "json_schema": {}}, 422, "unsupported-input"),
        ({"q": "x", "id": "\ud800"}, 422, "invalid-request"),
        (" ", 422, "invalid-request"),
        ({"q": "x", "modus": None}, 422, "invalid-request"),
        (7, 422, "invalid-request"),
        (None, 422, "invalid-request"),
    ],
)
def test_a_wrong_question_stops_no_other(client: httpx.Client, wrong: Any, status: int, kind: str) -> None:
    """A question that can't be answered has the problem that a request of its own would have."""
    # Not by the client's own encoder, which refuses a lone surrogate itself.
    sent = json.dumps({"tenant_id": "acme", "questions": [TOWER, wrong, LAKE]})
    answer = client.post("/query/batch", content=sent, headers={"content-type": "application/json"}).json()
    first, second, third = answer["items"]
    assert (first["problem"], third["problem"], second["result"]) == (None, None, None)
    assert (second["problem"]["status"], second["problem"]["type"]) == (
        status,
        f"urn:thresher:problem:{kind}",
    )
    assert second["problem"]["request_id"] == answer["request_id"]
    assert answer["failed"] == 1


@pytest.mark.parametrize("name", [True, False, 1.5, [1], {"a": 1}])
def test_an_id_is_a_text_or_a_whole_number(client: httpx.Client, name: Any) -> None:
    """Another id is refused in one plain sentence, and does not come back as something else."""
    [item] = client.post("/query/batch", json={"questions": [{**TOWER, "id": name}]}).json()["items"]
    assert item["id"] is None
    assert item["problem"]["detail"] == "id: must be a text or a whole number"


def test_null_leaves_a_default_in_force(client: httpx.Client) -> None:
    """A field that is null is one that is not given: what stands beside the questions holds."""
    question = {**TOWER, "id": None, "k": None, "mode": None, "history": None, "tenant_id": None}
    body = {"tenant_id": "acme", "mode": "crag", "k": 1, "questions": [question]}
    [item] = client.post("/query/batch", json=body).json()["items"]
    assert (item["result"]["mode"], len(item["result"]["grades"])) == ("crag", 1)


def test_a_question_may_be_its_text_alone(client: httpx.Client) -> None:
    """A text among the questions is asked with what stands beside them."""
    body = {"tenant_id": "acme", "k": 1, "questions": [TOWER["q"], TOWER]}
    text, whole = client.post("/query/batch", json=body).json()["items"]
    assert (text["id"], text["result"]["answer"]) == (None, whole["result"]["answer"])


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ({}, "questions: is missing"),
        ({"questions": []}, "questions: must not be empty"),
        ({"questions": {"q": "x"}}, "questions: must be a list"),
        ({"questions": [TOWER], "q": "x"}, "q: is unknown"),
        ({"questions": [TOWER] * 101}, "at most 100 (MAX_BATCH_QUESTIONS)"),
    ],
)
def test_a_wrong_batch_is_refused_whole(client: httpx.Client, body: dict[str, Any], part: str) -> None:
    """What is wrong with the request itself is a problem that names it, and nothing is asked."""
    response = client.post("/query/batch", json=body)
    assert response.status_code == 422
    assert part in response.json()["detail"]


def test_only_so_many_are_asked_at_a_time(slow: httpx.Client, stub: StubLLM) -> None:
    """The service answers BATCH_CONCURRENCY questions at a time, of however many."""
    stub.behaviour, stub.peak = Behaviour(delay=0.02), 0
    answer = slow.post("/query/batch", json={"tenant_id": "acme", "questions": [TOWER] * 8}).json()
    assert answer["failed"] == 0
    assert stub.peak == 2


def test_the_deadline_is_each_questions_own(slow: httpx.Client, stub: StubLLM) -> None:
    """A question that hangs is a 504 after the caller's time, and the others have the same time."""
    stub.behaviour = lambda body: Behaviour(delay=FOREVER if "hang" in str(body) else 0)
    questions = [{"q": "Does it hang?"}, {"q": "Will it hang?"}, TOWER, TOWER]
    headers = {"X-Request-Timeout": "0.4"}
    answer = slow.post(
        "/query/batch", json={"tenant_id": "acme", "questions": questions}, headers=headers
    ).json()
    assert [(item["problem"] or {}).get("status") for item in answer["items"]] == [504, 504, None, None]
    assert "cited_answer was running" in answer["items"][0]["problem"]["detail"]


def test_leaving_ends_all_of_it(slow: httpx.Client, stub: StubLLM) -> None:
    """When the client goes away, the questions under way are stopped and the others are never asked."""
    stub.behaviour = Behaviour(delay=FOREVER)
    started, aborted = stub.started, stub.aborted
    with pytest.raises(httpx.ReadTimeout):
        slow.post("/query/batch", json={"tenant_id": "acme", "questions": [TOWER] * 6}, timeout=0.5)
    stub.wait_until(lambda: stub.aborted == aborted + 2, 1.0)
    assert (stub.started, stub.running) == (started + 2, 0)
