import json
import re
import subprocess
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

from tests.serve.playground.conftest import CITED, QUESTION, Playground, focused
from tests.stub_llm import TEXT, Behaviour

SHELL_QUESTION = 'How tall is "it", $(echo that) `tower` \\ of Eiffel\'s! & co.; 330 ~*'


def test_answer_appears_as_it_is_written_until_it_is_stopped(page: Playground) -> None:
    """The words that the model has written are there before the answer is whole; Stop also stops the model."""
    page.stub.behaviour = Behaviour(hang_after=4)
    aborted = page.stub.aborted
    page.ask()
    page.until(lambda: page.texts(".answer") == ["The Eiffel Tower in"])
    assert page.texts(".phase") == ["Writing the answer…"]
    assert page.find(".answer").get_attribute("aria-busy") == "true"
    page.find("#stop").click()
    page.until(lambda: page.texts(".phase") == ["Stopped"])
    page.stub.wait_until(lambda: page.stub.aborted == aborted + 1, seconds=2)
    assert page.texts(".answer") == ["The Eiffel Tower in"]
    assert not page.find("#stop").is_enabled()
    assert page.script("return document.activeElement.id") == "question"


def test_citation_opens_its_chunk_with_the_sentence_marked(page: Playground) -> None:
    """Marker, list of sources and list of chunks open the chunk with exactly the quoted words marked."""
    page.ask()
    page.answered()
    assert page.texts(".answer") == [TEXT]
    for opener in (".marker", ".sources .link", ".chunk .link"):
        page.find(opener).click()
        assert page.texts("#passage-title") == ["Eiffel Tower"]
        assert page.texts("#passage-text") == [f"Landmarks 🗼🗼 of Paris. {CITED} It is made of iron."]
        assert page.texts("#passage mark") == [CITED]
        page.find("#passage-close").click()
        assert not page.driver.find_element("id", "passage").is_displayed()


def test_cited_words_are_in_the_preview_of_their_chunk(page: Playground) -> None:
    """However far down a long chunk the cited sentence stands, the few lines shown of it hold it."""
    landmarks = " ".join(f"Landmark {n} of the city is not the one that is meant." for n in range(12))
    page.ingest("deep", [{"id": "deep", "text": f"{landmarks}\n\nOf towers: {CITED}"}])
    page.ask(tenant="deep")
    page.answered()
    [shown] = page.all(".chunk .text")
    assert shown.get_property("textContent") == f"… Of towers: {CITED}"
    box, mark = shown.rect, page.find(".chunk mark").rect
    assert mark["y"] + mark["height"] <= box["y"] + box["height"] + 1


def test_grades_scores_and_fates_are_those_of_the_answer(page: Playground) -> None:
    """Each chunk shows the score, grade and fate that POST /query/ tells, and kept ones their number."""
    page.ask(mode="crag")
    page.answered()
    asked = {"q": QUESTION, "mode": "crag", "tenant_id": "acme"}
    result = page.client.post("/query/", json=asked).json()
    assert {grade["kept"] for grade in result["grades"]} == {True, False}
    numbers = {chunk["chunk_id"]: f"[{n}]" for n, chunk in enumerate(result["documents"], 1)}
    scores = {chunk["chunk_id"]: f"score {chunk['score']:.2f}" for chunk in result["documents"]}
    for shown, grade in zip(page.all(".chunk"), result["grades"], strict=True):
        chunk = grade["chunk_id"]
        assert f"{grade['label']} {grade['score']:.2f}" in shown.text
        assert ("kept" in shown.text, "dropped" in shown.text) == (grade["kept"], not grade["kept"])
        assert shown.text.startswith(numbers.get(chunk, "Lakes"))
        assert scores.get(chunk, "score 0.") in shown.text
    assert f"Strategy: {result['strategy']}" in page.find(".notes").text


def test_second_search_is_shown_with_the_rephrased_question(page: Playground) -> None:
    """When corrective RAG rephrases, the new question and the chunks of both searches with their grades are there."""
    page.stub.behaviour = Behaviour(text="What is the height of the Eiffel Tower in metres?")
    page.ask("Who baked the bread of yesterday's breakfast?", mode="crag")
    page.answered()
    assert "Rephrased as: What is the height of the Eiffel Tower in metres?" in page.find(".notes").text
    first, second = page.texts(".searches h4")
    assert first == "Searched: Who baked the bread of yesterday's breakfast?"
    assert second == "Searched again: What is the height of the Eiffel Tower in metres?"
    assert len(page.all(".chunk")) == len(page.all(".chunk .grade")) == 6


def test_bars_are_as_long_as_the_times(page: Playground) -> None:
    """Each stage has a bar whose length is in proportion to its seconds."""
    page.stub.behaviour = Behaviour(pause=0.02)
    page.ask(mode="crag")
    page.answered()
    rows = page.script(
        "return [...document.querySelectorAll('.times tr')].map(row => [row.cells[0].textContent,"
        " parseFloat(row.cells[1].textContent), row.querySelector('.bar').getBoundingClientRect().width])"
    )
    names = [name for name, _, _ in rows]
    assert names[:2] == ["corrective search", "cited answer"]
    assert names[-1] == "whole answer"
    longest = max(seconds for _, seconds, _ in rows)
    widest = max(width for _, _, width in rows)
    for name, seconds, width in rows:
        assert width / widest == pytest.approx(seconds / longest, abs=0.02), name


def test_two_modes_answer_side_by_side(page: Playground) -> None:
    """With a second mode to compare with, both answer the same question, one beside the other."""
    page.ask(mode="crag", compared="structured")
    page.answered(panels=2)
    assert page.texts(".panel h3") == ["crag · acme", "structured · acme"]
    assert page.texts(".asked") == [QUESTION, QUESTION]
    left, right = (panel.rect for panel in page.all(".panel"))
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] <= right["x"]
    assert page.texts(".answer") == [TEXT, "330 metres"]
    assert "Confidence: " in page.all(".notes")[1].text
    assert "Passage 1 says so." in page.all(".notes")[1].text


def test_copied_request_asks_the_same_in_a_shell(page: Playground) -> None:
    """The copied curl command asks the very question, whatever characters mean something to the shell."""
    page.command("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    page.ask(SHELL_QUESTION, mode="standard", k="1")
    page.answered()
    page.find(".command summary").click()
    page.find(".command button").click()
    page.until(lambda: page.texts(".command [role=status]") == ["Copied."])
    command = page.driver.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
    assert command == page.find(".command code").text
    mine = page.stub.requests[-1]
    done = subprocess.run(
        ["sh", "-c", f"{command} --silent --noproxy '*'"], capture_output=True, text=True, timeout=30
    )
    assert '"answer":"The Eiffel Tower' in done.stdout, done
    assert SHELL_QUESTION in str(mine["messages"][-1]["content"])
    assert without_code(page.stub.requests[-1]["messages"]) == without_code(mine["messages"])


def without_code(messages: list[dict[str, Any]]) -> str:
    """Give the messages without the code around the passages, which is another one in each prompt."""
    return re.sub(r"\b[0-9a-f]{12}\b", "", json.dumps(messages))


@pytest.mark.parametrize(
    ("behaviour", "written"),
    [(Behaviour(status=500), ""), (Behaviour(break_after=4), "The Eiffel Tower in")],
    ids=["before the first word", "in the middle"],
)
def test_problem_is_shown_with_its_text_and_request_id(
    page: Playground, behaviour: Behaviour, written: str
) -> None:
    """A fault shows the problem's words and the request's id, and what was written until then stays."""
    page.stub.behaviour = behaviour
    page.ask()
    shown = page.find(".problem").text
    told: dict[str, Any] = page.client.post("/query/", json={"q": QUESTION, "tenant_id": "acme"}).json()
    assert shown.startswith(told["title"])
    assert re.search(r"Request id: [0-9a-f]{32}$", shown)
    assert page.texts(".phase") == ["Failed"]
    assert page.texts(".answer") == [written]


def test_lost_connection_is_told(page: Playground) -> None:
    """When the service can't be reached, the page says so in words."""
    page.load(tenant="acme", question=QUESTION)
    offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    page.command("Network.enable")
    page.command("Network.emulateNetworkConditions", **offline)
    try:
        page.find("#question").send_keys(Keys.ENTER)
        assert "The service cannot be reached" in page.find(".problem").text
        page.until(lambda: "cannot be reached" in page.find("#service").text)
    finally:
        page.command(
            "Network.emulateNetworkConditions", **(offline | {"offline": False, "downloadThroughput": -1})
        )
    page.until(lambda: "Ready" in page.find("#service").text)


def test_tenant_without_documents_is_told_how_to_bring_some(page: Playground) -> None:
    """A tenant that has nothing gets no bare error: the page says how documents come, and looks for them once."""
    page.ask(tenant="nobody")
    assert "Upload documents for this tenant first" in page.find(".problem").text
    assert "thresher ingest FILES --tenant nobody" in page.find("#holdings").text
    looked = [url.partition("?")[2] for url in page.requested() if "/documents?" in url]
    assert looked == ["tenant_id=nobody&limit=50"]


def test_first_visit_leads_to_the_tenant_of_the_demonstration(page: Playground) -> None:
    """Where the default tenant is empty, a link chooses the one that `make demo` fills."""
    page.load()
    page.find("#holdings a").click()
    page.until(lambda: "demo has no documents yet" in page.find("#holdings").text)
    assert page.find("#tenant").get_property("value") == "demo"
    assert page.find("#upload label").text == "Files to upload for demo"


def test_documents_follow_the_tenant_while_it_is_written(page: Playground) -> None:
    """The list is that of the written tenant before the field is left, which is then offered at the next visit."""
    page.load(tenant="acm")
    page.find("#tenant").send_keys("e")
    page.until(lambda: page.texts("#holdings h3") == ["What acme holds"])
    assert focused(page) == "tenant"
    page.load()
    offered = page.script("return [...document.querySelectorAll('#tenants option')].map(one => one.value)")
    assert offered[0] == "acme"
    assert "acm" not in offered


def test_link_with_an_unknown_mode_says_so(page: Playground) -> None:
    """A mode in the address that is not there is named, with the one chosen in its place, until another is chosen."""
    page.load(mode="crga", compared="standrd", model="gtp")
    page.until(lambda: len(page.texts("#lacking p")) == 3)
    assert sorted(page.texts("#lacking p")) == [
        "Compare with: there is no “standrd” here.",
        "Mode: there is no “crga” here, so standard is chosen.",
        "Model: there is no “gtp” here.",
    ]
    page.find("#mode").send_keys("crag")
    page.until(lambda: page.all("#lacking p") == [])


def test_page_can_be_loaded_again_as_it_was_without_asking(page: Playground) -> None:
    """What was chosen is in the address; loading it again fills the fields and asks nothing."""
    page.ask(mode="crag", compared="standard", k="2")
    page.answered(panels=2)
    started = page.stub.started
    page.driver.refresh()
    page.until(
        lambda: len(page.all("#mode option")) > 1 and page.find("#mode").get_property("value") == "crag"
    )
    values = {
        name: page.find(f"#{name}").get_property("value") for name in ("tenant", "compared", "k", "question")
    }
    assert values == {"tenant": "acme", "compared": "standard", "k": "2", "question": QUESTION}
    assert page.all(".panel") == []
    assert page.stub.started == started
