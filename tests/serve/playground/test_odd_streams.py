"""What the service does not send, or a network makes of what it sends: the page is given such answers."""

import json

from selenium.webdriver.common.keys import Keys

from tests.serve.playground.conftest import CITED, QUESTION, Playground

# Answers the next question with a stream of single bytes, so that lines and characters come apart anywhere.
_ANSWER_WITH = """
const [text] = arguments, real = window.fetch;
window.fetch = (url, options) => {
  if (!url.endsWith('/query/')) return real(url, options);
  const bytes = new TextEncoder().encode(text);
  const start = controller => {
    for (const byte of bytes) controller.enqueue(new Uint8Array([byte]));
    controller.close();
  };
  return Promise.resolve(new Response(new ReadableStream({start}), {headers: {'x-request-id': 'odd-1'}}));
};
"""


def ask(page: Playground, stream: str) -> None:
    """Ask, and let a stream be the answer."""
    page.load(tenant="acme", mode="standard", question=QUESTION)
    page.script(_ANSWER_WITH, stream)
    page.find("#question").send_keys(Keys.ENTER)


def test_stream_in_pieces_that_breaks_off_keeps_its_words_and_says_so(page: Playground) -> None:
    """Any line ends, comments and cuts are read; an end without `done` is told as such, with the request's id."""
    tokens = ["Der ", "Turm 🗼\n", "ist\u2028 höher."]
    events = [
        f"id: {n}\nevent: token\ndata: {json.dumps({'text': text})}\n\n" for n, text in enumerate(tokens)
    ]
    ask(
        page,
        events[0] + ": ping\r\n\r\n" + events[1].replace("\n", "\r\n") + events[2].replace("\n", "\r") + "\n",
    )
    problem = page.find(".problem").text
    assert page.find(".answer").get_property("textContent") == "".join(tokens)
    assert problem.startswith("Broken off\n")
    assert "odd-1" in problem
    assert page.texts(".phase") == ["Failed"]


def test_chunks_that_no_search_told_are_shown_all_the_same(page: Playground) -> None:
    """A chunk of the result that no event named stands in the list with its number, and its citation can be opened."""
    result = page.client.post("/query/", json={"q": QUESTION, "tenant_id": "acme"}).json()
    told = {"query": None, "documents": result["documents"][1:]}
    events = {"retrieval": told, "unheard-of": {}, "result": result, "done": {}}
    ask(page, "".join(f"event: {kind}\ndata: {json.dumps(data)}\n\n" for kind, data in events.items()))
    page.answered()
    assert page.texts(".number") == ["[2]", "[3]", "[1]"]
    page.find(".marker").click()
    assert page.texts("#passage mark") == [CITED]


def test_first_words_never_come_after_the_whole_answer(page: Playground) -> None:
    """Both are measured by the page's clock, whatever the service's says."""
    result = page.client.post("/query/", json={"q": QUESTION, "tenant_id": "acme"}).json()
    result["timings"]["total"] = 0.0
    events = {"token": {"text": "330"}, "result": result, "done": {}}
    ask(page, "".join(f"event: {kind}\ndata: {json.dumps(data)}\n\n" for kind, data in events.items()))
    page.answered()
    rows = {row.split(" words")[0].split(" answer")[0]: row.split()[-2] for row in page.texts(".times tr")}
    assert 0 < float(rows["until the first"]) <= float(rows["whole"])


def test_crowded_service_is_told_of_with_what_to_do(page: Playground) -> None:
    """A question that finds no room ends in a problem that says when to ask again, and the form can be used."""
    page.load(tenant="acme", mode="standard", question=QUESTION)
    refused = json.dumps(
        {"type": "urn:thresher:problem:overloaded", "title": "Overloaded", "detail": "too many questions"}
    )
    page.script(
        "const [text] = arguments, real = fetch; window.fetch = (url, options) => url.endsWith('/query/')"
        " ? Promise.resolve(new Response(text, {status: 503})) : real(url, options)",
        refused,
    )
    page.find("#question").send_keys(Keys.ENTER)
    problem = page.find(".panel .problem").text
    assert "too many questions" in problem
    assert "Ask again in a few seconds" in problem
    page.until(lambda: not page.find("#stop").is_enabled())


def test_of_two_modes_the_second_waits_where_there_is_no_room_for_both(page: Playground) -> None:
    """A comparison that finds one place only is answered one mode after the other."""
    page.load(tenant="acme", mode="crag", compared="standard", question=QUESTION)
    page.script(
        "const [text] = arguments, real = fetch; window.asked = 0; window.fetch = (url, options) =>"
        " url.endsWith('/query/') && (window.asked += 1) === 2"
        " ? Promise.resolve(new Response(text, {status: 503})) : real(url, options)",
        json.dumps({"type": "urn:thresher:problem:overloaded", "title": "Overloaded", "detail": "full"}),
    )
    page.find("#question").send_keys(Keys.ENTER)
    page.answered(panels=2)
    assert page.script("return window.asked") == 3
    assert page.all(".problem, .panel.failed") == []
